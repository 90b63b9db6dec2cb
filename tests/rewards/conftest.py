"""What the tests of rewards share."""

import pytest
import torch

from quatrain.types import Group, Origin, Prompt, Trajectory


@pytest.fixture
def write_reward(tmp_path):
    """Write a module and give the name of the reward `function` in it."""

    def write(source, function="reward"):
        path = tmp_path / "mine.py"
        path.write_text(source)
        return f"{path}:{function}"

    return write


def trajectory(text, *, tokens=3, prompt_id=0, finish="end", origin=Origin.POLICY, error=None, reward=None):
    action = torch.arange(tokens + 2) >= 2
    return Trajectory(
        tokens=torch.zeros(tokens + 2, dtype=torch.int64),
        action=action,
        logp_rollout=torch.zeros(tokens + 2),
        version=torch.where(action, 0, -1),
        turn=torch.zeros(tokens + 2, dtype=torch.int64),
        prompt_id=prompt_id,
        text=text,
        origin=origin,
        error=error,
        reward=reward,
        info={"finish": finish},
    )


def group(answer, *texts, **facts):
    prompt = Prompt(0, "1 + 1 =", answer=answer)
    return Group(prompt, tuple(trajectory(text, **facts) for text in texts))
