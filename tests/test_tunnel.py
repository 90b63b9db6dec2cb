"""The model that is pre-trained here: made once for each setting, the same each time, and a policy like any other."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quatrain import tunnel
from quatrain.config import ConfigError, ModelConfig, TunnelConfig
from quatrain.policies import advice, cache
from quatrain.prompts import FAMILIES
from quatrain.rewards.verifiers import written_score
from tests.command_line import quatrain, records, settings, train

SHORT = TunnelConfig(steps=2, difficulty=(1, 2))
OF_SHORT = {"model": {"name": "tunnel", "tunnel": {"steps": 2, "difficulty": [1, 2]}}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the models of a test are kept."""
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tunnel, "BATCH", 4)
    return tmp_path / "cache" / "tunnel"


def weights(place: Path) -> bytes:
    return (place / "model.safetensors").read_bytes()


class TestMaking:
    def test_the_same_settings_give_the_same_bits_whatever_was_drawn_before(self, folder: Path):
        first = weights(tunnel.make(SHORT))
        (folder / tunnel.folder(SHORT).name).rename(folder / "elsewhere")
        torch.manual_seed(5)
        torch.set_num_threads(2)
        try:
            before = torch.random.get_rng_state()
            assert weights(tunnel.make(SHORT)) == first
            assert torch.get_num_threads() == 2
            assert torch.equal(torch.random.get_rng_state(), before)
        finally:
            torch.set_num_threads(1)

    def test_it_is_made_once(self, monkeypatch: pytest.MonkeyPatch):
        place = tunnel.make(SHORT)
        monkeypatch.setattr(tunnel, "pretrain", lambda _: pytest.fail("made again"))
        assert tunnel.make(SHORT) == place
        with pytest.raises(pytest.fail.Exception, match="made again"):
            tunnel.make(SHORT.model_copy(update={"seed": 1}))

    def test_every_setting_has_a_place_of_its_own(self):
        changes = ({"steps": 3}, {"difficulty": (1, 3)}, {"wrong": 0.5}, {"seed": 1})
        places = [tunnel.folder(SHORT.model_copy(update=change)) for change in ({}, *changes)]
        assert len(set(places)) == 5
        assert {next(iter(change)) for change in changes} == set(TunnelConfig.model_fields)

    def test_two_that_start_at_once_find_one_model(self, folder: Path):
        with ThreadPoolExecutor(2) as pool:
            places = list(pool.map(tunnel.make, [SHORT, SHORT]))
        assert places[0] == places[1] == tunnel.folder(SHORT)
        assert sorted(path.name for path in folder.iterdir()) == [places[0].name, f"{places[0].name}.lock"]

    def test_a_failure_leaves_nothing_behind(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        with monkeypatch.context() as patch:
            patch.setattr(tunnel, "_network", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                tunnel.make(SHORT)
        assert [path for path in folder.iterdir() if path.is_dir()] == []
        assert tunnel.make(SHORT).is_dir()

    def test_only_safetensors_are_kept(self):
        assert {path.suffix for path in tunnel.make(SHORT).iterdir()} == {".json", ".safetensors"}
        assert sum(x.numel() for x in load_file(tunnel.make(SHORT) / "model.safetensors").values()) > 700_000


class TestCache:
    def test_is_where_the_environment_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        assert cache() == tmp_path / "cache"
        monkeypatch.delenv("QUATRAIN_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        assert cache() == Path("/caches/quatrain")
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache() == Path.home() / ".cache" / "quatrain"


def shown(config: TunnelConfig, count: int = 400) -> Iterator[tuple[str, str]]:
    draw = random.Random(0)
    return (tunnel._shown(config, draw) for _ in range(count))


class TestWhatIsShown:
    def test_all_families_at_all_difficulties(self):
        questions = [question for question, _ in shown(TunnelConfig(difficulty=(2, 3)))]
        digits = {len(q.split("+")[0]) - len("Question: ") for q in questions if "+" in q and q.count("+") == 1 and " +" not in q}
        assert {2, 3} <= digits
        assert all(any(mark in q for q in questions) for mark in ("=?", "* ", "+"))

    @pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
    def test_a_share_of_the_answers_is_wrong(self, wrong: float):
        config, right = TunnelConfig(wrong=wrong), []
        draw, again = random.Random(0), random.Random(0)
        for _ in range(400):
            _, solution = tunnel._shown(config, draw)
            family = FAMILIES[again.choice(sorted(FAMILIES))]
            problem = family.make(again, again.randint(*config.difficulty))
            again.random()
            right.append(written_score(solution, problem.info["written"]))
        assert 1 - sum(right) / len(right) == pytest.approx(wrong, abs=0.06 if 0 < wrong < 1 else 0)

    def test_one_problem_has_one_wrong_answer(self):
        told: dict[str, set[str]] = {}
        for question, solution in shown(TunnelConfig(difficulty=(1, 1), wrong=1.0), 4000):
            if "=?" not in question:
                told.setdefault(question, set()).add(solution)
        assert len(told) > 100
        assert all(len(solutions) == 1 for solutions in told.values())

    def test_the_loss_is_on_the_solution_alone(self):
        tokenizer = tunnel.character_tokenizer(["Question: ", "\nAnswer:"])
        texts = list(shown(SHORT, 8))
        tokens, solution = tunnel._encode(tokenizer, texts)
        for row, (question, told) in enumerate(texts):
            assert tokenizer.decode(tokens[row][solution[row]]) == told
            assert tokenizer.decode(tokens[row][~solution[row]]).replace("<pad>", "") == question
            assert int(solution[row].nonzero()[0]) < len(question) - 10, "the words around a question are one token each"


def test_it_learns(monkeypatch: pytest.MonkeyPatch):
    """Twenty steps suffice for the form of a solution."""
    monkeypatch.setattr(tunnel, "BATCH", 16)
    losses = []
    texts = list(shown(SHORT, 32))
    for steps in (1, 20):
        model, tokenizer = tunnel.pretrain(SHORT.model_copy(update={"steps": steps}))
        tokens, solution = tunnel._encode(tokenizer, texts)
        with torch.no_grad():
            losses.append(tunnel._loss(model, tokens, solution).item())
    assert losses[1] < 0.7 * losses[0]


class TestRuns:
    def test_a_run_is_measured_replayed_and_gone_on_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        changes = OF_SHORT | {"method": "grpo", "steps": 3, "rewards": [{"name": "format"}], "checkpoint.every": 1}
        run = train(tmp_path / "run", "written:addition?digits=1", **{k.replace(".", "__"): v for k, v in changes.items()})
        again = train(tmp_path / "again", "written:addition?digits=1", **{k.replace(".", "__"): v for k, v in changes.items()})
        assert [r["fingerprint"] for r in records(run / "metrics.jsonl")] == [
            r["fingerprint"] for r in records(again / "metrics.jsonl")
        ]
        for step in (1, 3):
            assert "to the bit" in quatrain("replay", run, "--step", step).out
        assert "accuracy" in quatrain("evaluate", run, "--problems", 4).out
        assert json.loads((run / "model/quatrain.json").read_text()) == {"template": "plain", "examples": 0}
        asked = quatrain(*("evaluate", run / "model", "--task", "written:addition?digits=1", "--problems", 4), "--set", "seed=0")
        assert asked.out.splitlines()[-1] == quatrain("evaluate", run, "--problems", 4).out.splitlines()[-1]
        for path in (run / "model", run / "checkpoints" / "step-000003"):
            for file in sorted(path.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            path.rmdir()
        done = quatrain("train", "--resume", run)
        assert (done.code, done.err) == (0, "")
        assert records(run / "metrics.jsonl")[2]["fingerprint"] == records(again / "metrics.jsonl")[2]["fingerprint"]

    def test_pre_training_is_a_stage_of_the_run_and_happens_once(self, tmp_path: Path):
        changes = OF_SHORT | {"method": "dr_grpo"}
        said = [
            quatrain("train", "--task", "written:chain", "--out", tmp_path / str(n), *settings(changes)).out for n in range(2)
        ]
        assert ["pre-training the tunnel policy" in out for out in said] == [True, False]

    def test_another_model_refuses_its_settings(self):
        done = quatrain(
            "train", "--method", "grpo", "--task", "written:chain", "--model", "tiny", "--set", "model.tunnel.steps=3"
        )
        assert done.code == 2
        assert "model.tunnel says how the model tunnel starts, and the model is tiny: set model=tunnel" in done.err

    def test_a_range_that_holds_nothing_is_refused(self):
        given = ("train", "--method", "grpo", "--task", "written:chain", "--model", "tunnel")
        done = quatrain(*given, "--set", "model.tunnel.difficulty=[3, 1]")
        assert done.code == 2
        assert "model.tunnel.difficulty = [3, 1] holds nothing" in done.err


@pytest.mark.parametrize("text", ["{", "[]", '{"temperature": 1}'])
def test_how_a_model_was_asked_is_read_with_care(tmp_path: Path, text: str):
    (tmp_path / "quatrain.json").write_text(text)
    with pytest.raises(ConfigError, match=r"quatrain\.json is not as a run writes it: remove it"):
        advice(ModelConfig(name=str(tmp_path)))
