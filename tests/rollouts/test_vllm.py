"""What a run with vLLM cannot be, said before vLLM is imported; tests/vllm has those that need it."""

from typing import Any

import pytest

from quatrain.assembly import plan
from quatrain.config import ConfigError, load
from quatrain.rollouts import vllm

BASE = {"task": {"name": "written:chain"}, "model": "tiny", "engine": {"name": "vllm"}}


def test_it_has_to_be_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"vllm is not installed: pip install 'quatrain\[vllm\]'"):
        plan(load(BASE))
    plan(load(BASE), acts=False)
    plan(load(BASE | {"engine": {"name": "torch"}}))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("engine.weights=int8", "engine.weights is int8, .* set it to same, or engine.name=torch"),
        ("engine.weights=bfloat16", "engine.weights is bfloat16"),
        ("model.dtype=float64", "model.dtype is float64, .* set it to auto"),
        ("update.routing=rollout", "update.routing is rollout, .* set it to none"),
        ("sampling.temperature=0.005", "sampling.temperature is 0.005, and vLLM draws at 0.01 or above"),
        ("evaluate.temperature=0.005", "evaluate.temperature is 0.005"),
        ("update.routing=old", None),
        ("evaluate.temperature=0", None),
        ("model.dtype=bfloat16", None),
    ],
)
def test_what_only_the_built_in_engine_has(settings: str, told: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    config: Any = load(BASE, [settings])
    if told is None:
        plan(config)
        return
    with pytest.raises(ConfigError, match=told):
        plan(config)
