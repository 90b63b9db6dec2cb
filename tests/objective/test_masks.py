import math

import pytest
import torch

from quatrain.objective import Cap, Clip, Everywhere
from tests.objective.views import assert_equal, floats, view


@pytest.mark.parametrize(
    ("ratio", "good", "bad"),
    [(0.5, 1, 0), (0.75, 1, 1), (1.0, 1, 1), (1.5, 1, 1), (1.75, 0, 1), (1e9, 0, 1)],
)
def test_clip_blocks_what_has_gone_far_enough(ratio: float, good: float, bad: float):
    """Low 0.25, high 0.5: a good action is blocked above 1.5, a bad one below 0.75; a bound itself is inside."""
    ratios, advantage = torch.full((1, 3), ratio, dtype=torch.float64), floats(0.1, -0.1, 0)[None]
    assert_equal(Clip(low=0.25, high=0.5)(view([[1, 1, 1]]), ratios, advantage), floats(good, bad, 1)[None])


@pytest.mark.parametrize("advantage", [3.0, -3.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
def test_clip_is_where_the_clipped_surrogate_has_a_slope(ratio: float, advantage: float):
    """M · r · Â = ∂/∂log π of min(r Â, clip(r) Â)."""
    log_ratio = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    r = log_ratio.exp()
    (slope,) = torch.autograd.grad(torch.minimum(r * advantage, r.clamp(0.8, 1.2) * advantage).sum(), log_ratio)
    mask = Clip(0.2, 0.2)(view([[1]]), r.detach(), torch.full_like(r, advantage))
    assert_equal(mask * r.detach() * advantage, slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cap_bounds_the_weight_and_keeps_every_action(dtype: torch.dtype):
    ratio = torch.tensor([[math.exp(-60), 0.25, 0.5, 1, 3, 4, math.exp(60)]], dtype=dtype)
    weight = Cap(low=0.5, high=3.0)(view([[1] * 7]), ratio, -torch.ones_like(ratio)) * ratio
    torch.testing.assert_close(weight, torch.tensor([[0.5, 0.5, 0.5, 1, 3, 3, 3]], dtype=dtype))


def test_everywhere_passes_all():
    ratio = floats(0, 1, 1e9)[None]
    assert_equal(Everywhere()(view([[1, 1, 1]]), ratio, -ratio), torch.ones_like(ratio))
