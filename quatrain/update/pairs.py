"""How a policy ranks the rated answers of a prompt."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from quatrain.types import Batch, Origin


def margins(batch: Batch, logp: Float[Tensor, "B T"]) -> Float[Tensor, "K"]:
    """By how much the policy puts the better answer above the other one, for each pair of a prompt's rated answers.

        s(y⁺) − s(y⁻);  s = log π_θ(y)/π_ref(y), or the mean log π_θ over the tokens of y where the batch has no π_ref

    Source: arXiv:2305.18290 (DPO), eq. 7: the implicit reward, up to a factor; arXiv:2405.14734 (SimPO), eq. 4: the mean.
    """
    if batch.origin is None or batch.reward is None or batch.prompt_id is None or batch.action is None:
        return logp.new_zeros(0)
    rated = (batch.origin == Origin.RATED.code) & batch.action.any(1)
    action, reward, prompt = batch.action[rated], batch.reward[rated], batch.prompt_id[rated]
    if batch.logp_ref is None:
        score = logp[rated].where(action, 0).double().sum(1) / action.sum(1)
    else:
        score = (logp - batch.logp_ref)[rated].where(action, 0).double().sum(1)
    pair = (prompt[:, None] == prompt[None]) & (reward[:, None] > reward[None])  # [better, other]
    return (score[:, None] - score[None])[pair]


def ranking(margins: Float[Tensor, "K"]) -> Float[Tensor, "K"]:
    """1 for each pair that is ranked right, ½ for a tie."""
    return (margins > 0).double() + (margins == 0).double() / 2
