"""Benchmarks count what there is, compare what was measured, and run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks import growth, report, stages
from benchmarks.counting import SMOLLM2, Limit, Shape, Sizes, Work, decode, floor, forward, gradient, optimizer, prefill
from benchmarks.machine import Probe, limit
from benchmarks.results import ratio, read
from benchmarks.side import Job, Side, texts
from benchmarks.stages import batch_of
from quatrain.config import ModelConfig
from quatrain.policies import load_model, plant

SMALL = LlamaConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    tie_word_embeddings=True,
)
SIZES = Sizes(layers=3, width=16, heads=4, kv_heads=2, head_width=8, inner=24, vocabulary=50)
SHAPE = Shape(prompts=2, group=3, prompt_tokens=5, answer_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the growth benchmark."""
    place = tmp_path_factory.mktemp("model")
    growth.make_model(64, place)
    return place


class TestCounting:
    def test_a_pass_and_its_gradient_have_the_operations_that_pytorch_counts(self):
        """Which counts all pairs of tokens, seen or not."""
        model = LlamaForCausalLM._from_config(SMALL, attn_implementation="eager")
        assert Sizes.of(SMALL) == SIZES
        with FlopCounterMode(display=False) as counter:
            model(torch.arange(7)[None]).logits.sum().backward()
        angles = 7 * SIZES.head_width  # of positions; once, without a gradient, and counted by nobody else
        assert counter.get_total_flops() == 3 * forward(SIZES, tokens=7, rows=7, pairs=49).operations + angles

    def test_weights_are_those_of_the_model(self):
        matrices = [p.numel() for p in LlamaForCausalLM(SMALL).parameters() if p.ndim == 2]
        assert SIZES.linear + SIZES.head == sum(matrices)
        assert forward(SIZES, 1, 1, 1).bytes == 4 * sum(matrices)
        assert optimizer(SIZES).bytes == 32 * sum(matrices)

    def test_smollm2_is_as_it_is(self):
        assert Sizes.of(load_model(ModelConfig(name="smollm2"), 0)[0].config) == SMOLLM2

    def test_a_step_is_that_of_the_forest_of_its_batch(self):
        """Nodes that something is predicted from, the distinct ones of them that answers are, and what each of them sees."""
        batch = batch_of(SHAPE, 50)
        assert batch.tokens is not None
        whole, read_ = plant(list(batch.tokens)), plant([tokens[:-1] for tokens in batch.tokens])
        rows = len(torch.unique(whole.parent[whole.position >= SHAPE.prompt_tokens]))
        assert (len(read_), rows) == (2 * 5 + 6 * 3, 2 + 6 * 3)
        once = forward(SIZES, len(read_), rows, int(read_.sees().sum()))
        assert gradient(SIZES, SHAPE) == Work(3 * once.operations, 3 * once.bytes)
        written = [prefill(SIZES, SHAPE), *decode(SIZES, SHAPE)]
        assert len(written) == SHAPE.answer_tokens
        assert sum(work.operations for work in written) == once.operations  # to write is to read once

    def test_decoding_reads_prompts_once_and_every_answer(self):
        first, *_, last = decode(SIZES, SHAPE)
        key = 2 * 3 * 2 * 8 * 4  # of one token: keys and values, three layers of two heads with eight numbers of four bytes
        assert first.bytes == 4 * (SIZES.linear + SIZES.head) + key * (2 * 5 + 6 * 1)
        assert last.bytes - first.bytes == key * 6 * 2

    def test_the_floor_is_what_is_slower(self):
        assert floor([Work(100, 1), Work(1, 100)], Limit(rate=10, bandwidth=5)) == 10 + 20
        assert limit([(1, 30), (5, 10), (2, 20)]) == Limit(2, 20)


class TestRatio:
    def test_equal_ratios_have_no_spread(self):
        found = ratio([2, 4, 8], [1, 2, 4])
        assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))

    def test_the_interval_is_that_of_the_logarithms(self):
        found = ratio([math.e, math.e**3], [1, 1])  # logarithms 1 and 3: mean 2, s/√n = 1, t(0.975, 1) = 12.706
        assert (found.low, found.high) == pytest.approx((math.exp(2 - 12.7062), math.exp(2 + 12.7062)), rel=1e-3)
        assert ratio([3], [2]).high == math.inf

    def test_powers_are_those_of_the_curve(self):
        assert report.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


class TestSides:
    def test_a_step_is_told(self, folder: Path):
        prompts = texts(AutoTokenizer.from_pretrained(folder), 4, 6)
        with Side("benchmarks.with_quatrain", Job(str(folder), prompts, 2, 3, 5, methods=["grpo", "rloo"])) as side:
            told = [side.step() for _ in range(2)]
        for step in told:
            assert step["tokens"] == 2 * 3 * 5
            assert 0 < step["mean_reward"] < 1
            assert step["rollout"] + step["reward"] + step["update"] <= step["seconds"]
            assert 0.1 < step["peak_gib"] < 3

    def test_a_side_that_fails_says_why(self, folder: Path):
        with pytest.raises(RuntimeError, match=r"code 1: .*nosuch"):
            Side("benchmarks.with_quatrain", Job(str(folder), ["w2"], 1, 2, 3, methods=["nosuch"]))

    def test_prompts_have_just_so_many_tokens(self, folder: Path):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert [len(tokenizer(text)["input_ids"]) for text in texts(tokenizer, 3, 9)] == [9] * 3


@pytest.mark.parametrize("name", ["machine", "stages"])
def test_commands_run(name: str, tmp_path: Path):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--threads", "1", "--results", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, capture_output=True)
    assert read(tmp_path / f"{name}.json")["made_with"]["threads"] == "1"


def test_a_round_with_the_model_of_gpus(monkeypatch: pytest.MonkeyPatch):
    """Made smaller, and on a CPU."""
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    monkeypatch.setattr(stages, "LLAMA", stages.LLAMA | small | {"head_dim": 8, "vocab_size": 500})
    kind = {"device": torch.device("cpu"), "dtype": torch.bfloat16}
    measured = stages.Stages(*stages._drawn(**kind), {"short": stages.QUICK}, stages.QUICK, Probe(quick=True, **kind))
    assert measured.sizes.number == 2
    assert min(measured.round().values()) > 0


class TestReport:
    @pytest.fixture
    def results(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(report, "RESULTS", tmp_path)
        return tmp_path

    def put(self, results: Path, name: str, **found: object) -> None:
        made = dict.fromkeys(("processor", "cpus", "threads", "memory_gib", "torch", "transformers", "python"), "some")
        (results / f"{name}.json").write_text(json.dumps({"made_with": made, **found}))

    def test_before_anything_was_measured(self, results: Path):
        for block in (report.machine, report.stages, report.peers, report.learning, report.growth, report.gpu):
            assert block().startswith("Not measured yet: `python -m benchmarks.")
        assert report.targets().count("| – |") == 12
        assert report.growth_curves().startswith("<svg")

    def test_peers(self, results: Path):
        step = {"seconds": 2.0, "rollout": 1.0, "update": 1.0, "tokens": 10, "peak_gib": 1.0}
        slow = step | {"seconds": 10.0, "update": 8.0, "peak_gib": 2.5}
        runs = [{"seed": 0, "quatrain": [0.5] * 20, "trl": [0.25] * 20}]
        learned = {
            "settings": {"model": "m", "task": "t", "steps": 20, "prompts_per_step": 1, "group_size": 2, "lr": 1},
            "runs": runs,
        }
        tried = {"short": {"this": slow, "that": {"failure": "too | much"}}}
        self.put(results, "peers", pairs={"short": [{"quatrain": step, "trl": slow}] * 2}, tried=tried, learning=learned)
        assert "| ≥ 4 | 5.00 [5.00, 5.00] | yes |" in report.targets()
        assert "| ≤ 0.5 | 0.40 [0.40, 0.40] | yes |" in report.targets()
        assert "`trl` | 1.00 | 8.00 | 10.00 | 1 | 2.50 |" in report.peers()
        assert "that | too / much |" in report.peers()
        assert "| 11 to 20 | 0.500 | 0.250 | +0.250 |" in report.learning()

    def test_stages(self, results: Path):
        each = {"rate": 1e9, "bandwidth": 1e12, "generation/quatrain": 0.5, "generation/transformers": 1.0}
        each |= {f"update/{name}": gradient(SIZES, shape).operations / 8e8 for name, shape in report.SHAPES.items()}
        each |= {"method/grpo": 0.5, "method/rloo": 0.45}
        shapes = {name: vars(shape) for name, shape in report.SHAPES.items()}
        self.put(results, "stages", sizes=vars(SIZES), generation=vars(SHAPE), shapes=shapes, rounds=[each] * 3)
        assert report.targets().count("| ≥ 75% | 80.0% | yes |") == 3
        assert "| ≥ 3 | 2.00 [2.00, 2.00] | **no** |" in report.targets()
        assert "| < 3% | 5.0% | **no** |" in report.targets()
        assert "| `rloo` | 0.45 | -5.0% |" in report.stages()

    def test_growth(self, results: Path):
        points = [{"grows": "prompts", "value": n, "seconds": 0.002 * n, "peak_gib": 1.0} for n in (1, 2, 4)]
        self.put(results, "growth", base=vars(growth.Point()), points=points)
        assert "| prompts | 1 to 4 | 0.00 to 0.01 | 2 ms | 1.00 | 1.00 to 1.00 |" in report.growth()
        assert report.growth_curves().count("<circle") == 6
