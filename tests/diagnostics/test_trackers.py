"""Trackers get each step once, also from a run that was killed and resumed."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quatrain.config import ConfigError
from quatrain.diagnostics.trackers import open_trackers


@pytest.fixture(params=["wandb", "trackio"])
def service(request, monkeypatch):
    """A stand-in for an appending service: its name, what was logged, and with what it was opened."""
    logged, opened = [], []

    def init(**arguments):
        opened.append(arguments)
        return SimpleNamespace(log=lambda metrics, step: logged.append((step, metrics)), finish=lambda: logged.append("closed"))

    module = SimpleNamespace(init=init, errors=SimpleNamespace(Error=RuntimeError))
    monkeypatch.setitem(sys.modules, request.param, module)
    return SimpleNamespace(name=request.param, logged=logged, opened=opened)


def test_tensorboard_holds_each_step_once(tmp_path):
    with open_trackers(["tensorboard"], tmp_path, {}) as trackers:
        for step in (1, 2, 3, 4):
            trackers.log(step, {"step": step, "reward/mean": step / 10, "kl/ref": float("nan"), "entropy": None})
    with open_trackers(["tensorboard"], tmp_path, {}) as trackers:
        for step in (3, 4, 5):
            trackers.log(step, {"reward/mean": np.float32(step)})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["reward/mean"]
    assert [(event.step, round(event.value, 3)) for event in events.Scalars("reward/mean")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 3.0),
        (4, 4.0),
        (5, 5.0),
    ]


def test_a_service_is_sent_each_step_once(tmp_path, service):
    with open_trackers([service.name], tmp_path, {"steps": 5}) as trackers:
        for step in (1, 2, 3):
            trackers.log(step, {"step": step, "reward/mean": 0.5})
    with open_trackers([service.name], tmp_path, {"steps": 5}) as trackers:
        for step in (2, 3, 4):
            trackers.log(step, {"reward/mean": 0.5})
    assert [entry if entry == "closed" else entry[0] for entry in service.logged] == [1, 2, 3, "closed", 4, "closed"]
    assert service.logged[0] == (1, {"reward/mean": 0.5})
    assert service.opened[0] == service.opened[1]
    assert service.opened[0]["config"] == {"steps": 5}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"{name} is not installed: pip install 'quatrain\[{name}\]'"):
        open_trackers([name], tmp_path, {})


def test_wandb_without_a_login_is_a_setting_that_is_wrong(tmp_path, monkeypatch):
    def init(**arguments):
        raise RuntimeError("api_key not configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, errors=SimpleNamespace(Error=RuntimeError)))
    with pytest.raises(ConfigError, match=r"api_key not configured.*WANDB_MODE=offline"):
        open_trackers(["wandb"], tmp_path, {})


def test_an_unknown_tracker_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no tracker 'tensorbord': did you mean tensorboard\?"):
        open_trackers(["tensorbord"], tmp_path, {})


def test_no_tracker_is_fine(tmp_path):
    open_trackers([], tmp_path, {}).log(1, {"reward/mean": 1.0})
