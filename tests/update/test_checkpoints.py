"""Checkpoints: whole or not there, refused when damaged, and the bits that go on."""

import json
import re
from pathlib import Path

import pytest
import torch

from quatrain.config import LoraConfig
from quatrain.update import Learner
from quatrain.update.checkpoints import Checkpoints, damage, save_tensors
from tests.update.plain import batch, learner, policy
from tests.update.test_learner import assert_same_bits, weights

STATE = {"source": {"epoch": 3, "order": [2, 0, 1], "name": "Ünï", "rate": 0.1}, 5: (1, 2)}
"""Whatever JSON can hold, a key that is not a string and a tuple too."""


def small(lora: LoraConfig | None = None) -> Learner:
    made = learner(policy(dtype=torch.float32, lora=lora), "ppo", epochs=2, lr=0.02)
    made.learn(batch(), 1)
    return made


def saved(folder: Path, *steps: int, keep: int = 9) -> Checkpoints:
    checkpoints, made = Checkpoints(folder, keep), small()
    for step in steps:
        checkpoints.save(step, made, STATE)
    return checkpoints


def files(checkpoint: Path) -> list[str]:
    return sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "lora"])
def test_a_restored_learner_goes_on_to_the_same_bits(lora: LoraConfig | None, tmp_path: Path):
    made, checkpoints = small(lora), Checkpoints(tmp_path)
    checkpoints.save(1, made, STATE)
    expected = made.learn(batch(1), 2)
    other = learner(policy(dtype=torch.float32, lora=lora), "ppo", epochs=2, lr=0.02)
    step, manifest = checkpoints.newest(pytest.fail) or (0, {})
    checkpoints.restore(step, manifest, other)
    assert (step, other.updates) == (1, 2)
    assert other.fingerprint() == manifest["fingerprint"]
    assert manifest["state"] == json.loads(json.dumps(STATE))
    assert other.learn(batch(1), 2) == expected
    assert_same_bits(weights(other.policy), weights(made.policy))
    assert_same_bits(other.state()[0], made.state()[0])


def test_an_empty_folder_has_none(tmp_path: Path):
    assert Checkpoints(tmp_path / "nowhere").steps() == []
    assert Checkpoints(tmp_path).newest(pytest.fail) is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path):
    checkpoints = saved(tmp_path, 5, 20, 100, 1_000_000, keep=keep)
    assert checkpoints.steps() == [5, 20, 100, 1_000_000][-keep:]
    assert (checkpoints.newest(pytest.fail) or (0,))[0] == 1_000_000
    assert len(list(tmp_path.iterdir())) == keep


def test_the_newest_up_to_a_step(tmp_path: Path):
    checkpoints = saved(tmp_path, 5, 10, 15)
    found = [(checkpoints.newest(pytest.fail, at_most=step) or (None,))[0] for step in (4, 5, 14, 15, 99)]
    assert found == [None, 5, 10, 15, 15]


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    checkpoints, made = Checkpoints(tmp_path), small()
    checkpoints.save(5, made, {"time": 1})
    made.learn(batch(1), 2)
    checkpoints.save(5, made, {"time": 2})
    _, manifest = checkpoints.newest(pytest.fail) or (0, {})
    assert (manifest["state"], manifest["fingerprint"]) == ({"time": 2}, made.fingerprint())


def test_what_was_being_written_when_the_run_died_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the moment: after any number of files, and before the folder has its name."""
    checkpoints, made = saved(tmp_path, 5), small()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for place in ("quatrain.update.checkpoints._digest", "quatrain.update.checkpoints._sync", "pathlib.Path.rename"):
        with monkeypatch.context() as broken:
            broken.setattr(place, die)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(10, made, STATE)
        assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
        assert checkpoints.steps() == [5]
        assert (checkpoints.newest(pytest.fail) or (0,))[0] == 5
    checkpoints.save(10, made, STATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000005", "step-000010"]


def test_other_folders_are_none_of_its_business(tmp_path: Path):
    checkpoints = saved(tmp_path, 5)
    (tmp_path / "step-000009.bak").mkdir()
    (tmp_path / "step-old").mkdir()
    assert checkpoints.steps() == [5]


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "flipped": lambda path: flip(path, 0.5),
    "flipped at the end": lambda path: flip(path, 1.0),
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_to_any_file_is_refused_by_name_and_the_one_before_is_used(how: str, tmp_path: Path):
    checkpoints = saved(tmp_path, 5, 10)
    names = files(checkpoints.path(10))
    assert {"checkpoint.json", "optimizer.safetensors", "model/model.safetensors", "model/critic.safetensors"} < set(names)
    for name in names:
        content = (checkpoints.path(10) / name).read_bytes()
        DAMAGES[how](checkpoints.path(10) / name)
        warnings: list[str] = []
        step, _ = checkpoints.newest(warnings.append) or (0, {})
        assert step == 5
        (warning,) = warnings
        assert str(checkpoints.path(10)) in warning
        assert f"({name} " in warning
        (checkpoints.path(10) / name).write_bytes(content)
        assert damage(checkpoints.path(10)) is None


def test_any_changed_character_of_the_manifest_is_refused(tmp_path: Path):
    """Or it changed nothing: another blank between two values."""
    checkpoints = saved(tmp_path, 5)
    path = checkpoints.path(5) / "checkpoint.json"
    content = path.read_text()
    refused = 0
    for place in range(0, len(content), 3):
        other = "8" if content[place] == "7" else "7"
        path.write_text(content[:place] + other + content[place + 1 :])
        refused += damage(checkpoints.path(5)) is not None
    assert refused == len(range(0, len(content), 3))


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "3", "{}", '{"sha256": null}', '{"sha256": {}}', '{"self": "x", "sha256": 1}']
)
def test_a_manifest_of_anything_else_is_refused(content: str, tmp_path: Path):
    checkpoints = saved(tmp_path, 5)
    (checkpoints.path(5) / "checkpoint.json").write_text(content)
    warnings: list[str] = []
    assert checkpoints.newest(warnings.append) is None
    assert re.search(r"step-000005 is damaged \(checkpoint\.json .*\) and is not used", warnings[0])


def test_going_on_from_before_damaged_ones_keeps_what_is_written(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20, 30, keep=2)
    for step in (20, 30):
        truncate(checkpoints.path(step) / "optimizer.safetensors")
    assert checkpoints.newest(lambda _: None) is None
    place = checkpoints.save(10, small(), STATE)
    assert damage(place) is None
    assert (checkpoints.newest(lambda _: None) or (0,))[0] == 10


def test_a_file_of_tensors_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "some.safetensors"
    monkeypatch.setattr("quatrain.update.checkpoints._sync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"x": torch.ones(3).expand(2, 3)})
    assert not path.exists()
