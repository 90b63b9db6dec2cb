"""Sides that do the same work by turns: each in a process of its own, kept open and asked for one step at a time."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from quatrain.diagnostics.records import describe_environment

ROOT = Path(__file__).parent.parent
MOST_MEMORY = 0.9
"""The share of the machine's memory that a side may have: one that wants more fails, and takes nothing else along."""


@dataclass(frozen=True)
class Job:
    """What a side is to do: steps of GRPO without a KL penalty, one update each, in float32, with AdamW."""

    model: str
    """A folder that `save_pretrained` wrote."""
    prompts: list[str]
    """Taken in this order, again and again."""
    prompts_per_step: int
    group_size: int
    answer_tokens: int
    answers: list[str] | None = None
    """What the last word of an answer to each prompt should be; without them rewards are drawn, and answers never end early."""
    lr: float = 1e-6
    seed: int = 0
    threads: int = 1
    methods: list[str] = field(default_factory=lambda: ["grpo"])
    """Those that take turns."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is best for this side, where it has a choice."""

    @property
    def sequences(self) -> int:
        return self.prompts_per_step * self.group_size

    def reward(self, prompt: str, text: str) -> float:
        """Whether the last word is right; or a number in [0, 1) that the text decides."""
        if self.answers is None:
            return zlib.crc32(text.encode(errors="replace")) / 2**32
        return float(text.split()[-1:] == [self.answers[self.prompts.index(prompt)]])


class Side:
    """A process that does a job, as who asks it for steps sees it."""

    def __init__(self, module: str, job: Job, python: str | Path = sys.executable) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": str(job.threads),
        }
        self._process = subprocess.Popen(
            [str(python), "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **quiet, **own},
        )
        self.made_with: dict[str, str] = self._ask(json.dumps(asdict(job)))

    def step(self) -> dict[str, Any]:
        """Seconds of a step and of its stages, the process's peak of memory, tokens that were written, and their mean reward."""
        return self._ask("")

    def _ask(self, line: str) -> Any:
        assert self._process.stdin and self._process.stdout
        try:
            print(line, file=self._process.stdin, flush=True)
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            code = self._process.wait()
            self._log.seek(0)
            told = [line.strip() for line in self._log if line.strip()]
            raise RuntimeError(f"its process ended with code {code}: {told[-1] if told else 'it said nothing'}")
        return json.loads(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


class Channel:
    """The same, as the process sees it."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer
        self.job = Job(**json.loads(sys.stdin.readline()))
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (int(MOST_MEMORY * pages),) * 2)
        self.began = 0.0

    def ready(self) -> None:
        """Everything is loaded."""
        self._send(describe_environment("trl", "accelerate"))

    def wait(self) -> None:
        """Until the next step is asked for; from here on it is measured."""
        if not sys.stdin.readline():
            raise SystemExit
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the memory in use now
        self.began = time.perf_counter()

    def tell(self, **found: Any) -> None:
        """The step is done."""
        seconds = time.perf_counter() - self.began
        status = Path("/proc/self/status").read_text()
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert peak is not None
        self._send({"seconds": seconds, "peak_gib": int(peak[1]) / 2**20, **found})

    def _send(self, what: dict[str, Any]) -> None:
        print(json.dumps(what), file=self._out, flush=True)


def texts(tokenizer: Any, count: int, tokens: int, seed: int = 0) -> list[str]:
    """So many texts of exactly so many tokens each, that begin differently: common words without a meaning."""
    draw = random.Random(seed)
    known = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    words, letters = (
        [i for i, text in enumerate(known) if re.fullmatch(form, text)] for form in (r" [a-z]{2,}|[a-z]\d+", "[a-z]")
    )
    drawn = [[draw.choice(words or letters) for _ in range(tokens)] for _ in range(count)]
    out: list[str] = [tokenizer.decode(ids) for ids in drawn]
    assert [tokenizer(text)["input_ids"] for text in out] == drawn
    assert len({ids[0] for ids in drawn}) > 1 or count == 1
    return out
