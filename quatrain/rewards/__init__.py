"""How good an answer was.

`Judge` is imported when it is asked for: it knows tensors, and the processes that compute rewards, which import this package too,
must not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from quatrain.rewards.reward import Reward, check_rewards, load_reward

if TYPE_CHECKING:
    from quatrain.rewards.judge import Judge

__all__ = ["Judge", "Reward", "check_rewards", "load_reward"]


def __getattr__(name: str) -> Any:
    if name == "Judge":
        return importlib.import_module("quatrain.rewards.judge").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
