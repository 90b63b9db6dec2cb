"""Acting: prompts in, trajectories out."""

from quatrain.rollouts.ahead import Ahead
from quatrain.rollouts.engine import Completion, Engine, Request, TorchEngine
from quatrain.rollouts.kept import Kept
from quatrain.rollouts.probes import Probed
from quatrain.rollouts.rollout import Rollout
from quatrain.rollouts.sampling import Sampling
from quatrain.rollouts.vllm import VLLMEngine
from quatrain.rollouts.vllm import check as check_vllm

__all__ = [
    "Ahead",
    "Completion",
    "Engine",
    "Kept",
    "Probed",
    "Request",
    "Rollout",
    "Sampling",
    "TorchEngine",
    "VLLMEngine",
    "check_vllm",
]
