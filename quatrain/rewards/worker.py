"""The process in which rewards are computed: JSON lines in, JSON lines out, over the socket that is its standard input.

It holds no tensors, so nothing that it imports may import torch.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import socket
import warnings
from typing import Any, TextIO

from quatrain.config import RewardConfig
from quatrain.rewards import verifiers
from quatrain.rewards.reward import Reward, load_reward

GRACE_SECONDS = 2.0
"""After its time and this, a call ends the worker, should whoever waits for it be gone."""


def serve(lines: TextIO) -> None:
    """Load the rewards of the first line, say so, then answer each call until nobody is left to call."""
    configs = [RewardConfig.model_validate(config) for config in json.loads(lines.readline())]
    rewards = [load_reward(config) for config in configs]
    verifiers.load()  # so that no answer's time and memory are spent on it
    limit = int(max(config.memory_gib for config in configs) * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _write(lines, {"ready": os.getpid()})
    with open(os.devnull, "w") as nowhere:
        for line in lines:
            call = json.loads(line)
            index = call["reward"]
            # A thread below Python's: it ends a call that holds the interpreter lock, too.
            faulthandler.dump_traceback_later(configs[index].timeout_seconds + GRACE_SECONDS, exit=True, file=nowhere)
            _write(lines, _answer(rewards[index], call["facts"]))
            faulthandler.cancel_dump_traceback_later()


def _answer(reward: Reward, facts: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": reward(facts)}
    except BaseException as error:  # a reward may even call sys.exit
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def _write(lines: TextIO, message: dict[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


def main() -> None:
    """Serve the socket that is standard input, until its other end is closed."""
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a reward that reads its input gets nothing,
    os.dup2(2, 1)  # and one that prints does not mix with the run's output
    warnings.simplefilter("ignore")
    # A run that was interrupted closes its end, or resets it where an answer still lay there unread: either way nobody calls.
    with contextlib.suppress(ConnectionError), channel, channel.makefile("rw", encoding="utf-8", newline="\n") as lines:
        serve(lines)


if __name__ == "__main__":
    main()
