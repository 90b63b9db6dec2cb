import math
from dataclasses import replace

import pytest
import torch

from quatrain.objective import (
    Against,
    Agreeing,
    BalancedClip,
    ByOrigin,
    Cap,
    Clip,
    Corrected,
    CovarianceDrop,
    CovarianceTop,
    DualClip,
    Everywhere,
    GeometricClip,
    Hazard,
    Old,
    PreservingClip,
    Reference,
    Relative,
    Rollout,
    Shaped,
    SoftGate,
    Taper,
    TotalVariation,
    Unit,
)
from quatrain.objective.masks import covariance
from quatrain.types import Origin
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


@pytest.mark.parametrize(("ratio", "good", "bad"), [(0.5, 1, 0), (1.0, 1, 1), (1.5, 0, 1), (3.0, 0, 1), (3.5, 0, 0)])
def test_dual_clip_blocks_a_bad_action_far_above_as_well(ratio: float, good: float, bad: float):
    ratios = torch.full((1, 2), ratio, dtype=torch.float64)
    assert_equal(DualClip(low=0.2, high=0.2, bound=3.0)(view([[1, 1]]), ratios, floats(1, -1)[None]), floats(good, bad)[None])


@pytest.mark.parametrize(
    ("ratio", "good", "bad"),
    [(0.5, 0.5, 0.375), (0.75, 0.75, 0.75), (1.0, 1, 1), (1.5, 1.5, 1.5), (1.75, 3, 1.75), (1e9, 3, 1e9)],
)
def test_preserving_clip_has_a_share_of_the_bound_where_the_clip_blocks(ratio: float, good: float, bad: float):
    """Low 0.25, high 0.5: below 0.75 a bad action weighs ½·0.75, above 1.5 a good one 2·1.5; shares of 0 are the clip."""
    ratios, advantage = torch.full((1, 3), ratio, dtype=torch.float64), floats(0.1, -0.1, 0)[None]
    mask = PreservingClip(low=0.25, high=0.5, below=0.5, above=2.0)(view([[1, 1, 1]]), ratios, advantage)
    torch.testing.assert_close(mask * ratios, floats(good, bad, ratio)[None])
    none = PreservingClip(low=0.25, high=0.5, below=0.0, above=0.0)(view([[1, 1, 1]]), ratios, advantage)
    assert_equal(none, Clip(low=0.25, high=0.5)(view([[1, 1, 1]]), ratios, advantage))


def test_soft_gate_is_whole_at_one_and_steeper_for_bad_actions():
    """σ(ln 3) = 3/4, and 4·¾·¼ = ¾; twice as steep: 9 to 1, and 4·0.9·0.1 = 0.36. As far below as above."""
    gate = SoftGate(positive=1.0, negative=2.0)
    ratio = floats(1, 1 + math.log(3), 1 - math.log(3), 1, 1 + math.log(3), 1 - math.log(3))[None]
    mask = gate(view([[1] * 6]), ratio, floats(1, 1, 1, -1, -1, 0)[None])
    assert_equal(mask, floats(1, 0.75, 0.75, 1, 0.36, 0.36)[None])


def test_hazard_is_a_damped_and_bounded_ratio():
    """With 1 for all, e^−ζ = 1/(2 + e^ψ + e^−ψ), so e^(ψ − ζ) = σ(ψ)². At log r = ± 2·artanh ½ = ± ln 3: ψ = ± 1, sech² = ¾."""
    ratio = floats(1, 3, 1 / 3)[None]
    weight = Hazard(2.0, 1.0, 1.0, 1.0, 1.0)(view([[1, 1, 1]]), ratio, -torch.ones_like(ratio)) * ratio
    sigmoid = torch.sigmoid(floats(0, 1, -1))
    assert_equal(weight, (sigmoid**2 * floats(1, 0.75, 0.75))[None])


def test_hazard_as_the_paper_has_it():
    """Worked out by hand to three digits, and never more than e^c."""
    ratio = floats(0.5, 0.8, 1, 1.2, 3, 10)[None]
    weight = Hazard()(view([[1] * 6]), ratio, torch.ones_like(ratio)) * ratio
    torch.testing.assert_close(weight, floats(0.054, 0.179, 0.265, 0.330, 0.315, 0.082)[None], atol=5e-4, rtol=0)
    far = torch.logspace(-6, 6, 1000, dtype=torch.float64)[None]
    assert (Hazard()(view([[1] * 1000]), far, torch.ones_like(far)) * far).max() < math.exp(1.5)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"target": 0.19}, (0.5, 2.0)),
        ({"target": 0.3}, (0.5, 3.0)),
        ({"target": 0.48}, (0.5, 4.0)),
        ({"target": 0.5}, (1.0, 4.0)),
        ({"target": 0.081, "part": "odds", "first": "low"}, (0.5, 2.0)),
        ({"target": 0.1, "part": "odds", "first": "low"}, (1.0, 3.0)),
        ({"target": 0.15, "part": "odds", "first": "low"}, (1.0, 4.0)),
        ({"target": 0.5, "part": "odds", "first": "low"}, (1.0, 4.0)),
    ],
)
def test_balanced_clip_widens_until_the_good_have_their_part(settings: dict, found: tuple[float, float]):
    """A good action of advantage 1, ratio 8 and probability ½; bad ones of −1, ¼ and ¼, and of −12, 2 and ¼.

    Share: the good sum ½·min(8, c) is 1, 1½ or 2, the bad one ¼·max(¼, c) + 6 is 6⅛, 6 3/16 or 6¼, so that 1/5⅛ = 0.195,
    1½/4⅝ = 0.324 and 2/4⅛ = 0.485. Odds: 2/24½ = 0.082, 2/24¾, 2/25 = 0.08, 3/25 = 0.12, 4/25 = 0.16.
    """
    clip = BalancedClip(0.5, 1.0, 0.25, 2.0, 4.0, 1.0, **settings)
    acted = view([[1, 1, 1, 0]], logp_rollout=floats(0.5, 0.25, 0.25, 0.9).log()[None])
    ratio, advantage = floats(8, 0.25, 2, 99)[None], floats(1, -1, -12, 99)[None]
    assert clip.found(acted, ratio, advantage) == found
    assert_equal(clip(acted, ratio, advantage)[:, :3], floats(0, 0, 1)[None])
    assert clip.needs == ({"logp_rollout"} if clip.part == "share" else set())


def test_balanced_clip_takes_steps_up_to_its_last_bounds():
    """The last step may be shorter, and there may be none."""
    ratio = floats(0.5, 4)[None]
    bad = -torch.ones_like(ratio)
    assert BalancedClip(0.6, 0.9, 0.2, 1.2, 1.25, 1.0, part="odds").found(view([[1, 1]]), ratio, bad) == (0.9, 1.25)
    fixed = BalancedClip(0.4, 0.4, 0.2, 1.2, 1.2, 1.0, part="odds")
    assert fixed.found(view([[1, 1]]), ratio, bad) == (0.4, 1.2)
    assert_equal(fixed(view([[1, 1]]), ratio, bad), floats(1, 1)[None])
    assert_equal(replace(fixed, bound=3.0)(view([[1, 1]]), ratio, bad), floats(1, 0)[None])


def test_geometric_clip_has_one_weight_for_the_tokens_that_are_not_clipped():
    """Ratios 8, 1 and 1/8, bounds 2 and 1/2. Good: (2·1·⅛)^⅓ = 4^−⅓; bad: (8·1·½)^⅓ = 4^⅓. A fourth token is not acted."""
    ratio = floats(8, 1, 1 / 8, 99).expand(2, 4)
    weight = GeometricClip(low=math.log(2), high=math.log(2))(
        view([[1, 1, 1, 0]] * 2), ratio, floats(1, -1)[:, None].expand(2, 4)
    )
    assert_equal((weight * ratio)[:, :3], torch.stack([4 ** (-1 / 3) * floats(0, 1, 1), 4 ** (1 / 3) * floats(1, 1, 0)]))


def test_corrected_is_another_mask_times_a_truncated_ratio():
    """π_old/π_rollout is 4, ½ and 1; the third action is clipped."""
    acted = view([[1, 1, 1]], logp_old=torch.zeros(1, 3).double(), logp_rollout=-floats(4, 0.5, 1).log()[None])
    ratio, advantage = floats(1, 1, 9)[None], torch.ones(1, 3).double()
    assert_equal(Corrected(high=2.0, of=Clip())(acted, ratio, advantage), floats(2, 0.5, 0)[None])
    assert_equal(Corrected(high=math.inf, of=Everywhere())(acted, ratio, advantage), floats(4, 0.5, 1)[None])
    assert Corrected(of=Clip()).scope == "token"
    assert Corrected(of=GeometricClip()).scope == "sequence"
    assert Corrected(of=CovarianceDrop()).needs == {"logp_old", "logp_rollout"}


def test_corrected_over_the_sequence_is_one_factor_for_all_its_actions():
    """Ratios 4 and ½ come to 2, 1 and ¼ to ¼; a third token of each is no action."""
    ratios = floats(4, 0.5, 99, 1, 0.25, 99).view(2, 3)
    acted = view([[1, 1, 0]] * 2, logp_old=torch.zeros(2, 3).double(), logp_rollout=-ratios.log())
    ones = torch.ones(2, 3).double()
    whole = Corrected(high=1.5, over="sequence", of=Everywhere())
    assert_equal(whole(acted, ones, ones), floats(1.5, 0.25)[:, None].expand(2, 3))
    assert whole.scope == "sequence"


@pytest.mark.parametrize(
    ("over", "passed"),
    [("token", [[0, 1, 1], [1, 1, 0]]), ("sequence", [[1, 1, 1], [0, 0, 0]]), ("geometric", [[1, 1, 1], [1, 1, 1]])],
)
def test_agreeing_is_about_a_token_an_answer_or_its_mean(over, passed: list[list[float]]):
    """Ratios 8, ½, ½ with product 2 and mean 2^⅓, and ½, ½, ¼ with product 1/16 and mean 2^(−4/3) ≈ 0.397; bounds 0.3 and 4."""
    ratios = floats(8, 0.5, 0.5, 0.5, 0.5, 0.25).view(2, 3)
    acted = view([[1, 1, 1]] * 2, logp_old=torch.zeros(2, 3).double(), logp_rollout=-ratios.log())
    ones = torch.ones(2, 3).double()
    gate = Agreeing(low=0.3, high=4.0, over=over, of=Everywhere())
    assert_equal(gate(acted, ones, ones), torch.tensor(passed).double())
    assert gate.scope == ("token" if over == "token" else "sequence")


@pytest.mark.parametrize(("ratio", "factor"), [(0.49, 0), (0.5, 0.5), (1.0, 1.0), (5.0, 5.0), (5.01, 0)])
def test_agreeing_is_the_ratio_itself_within_its_bounds(ratio: float, factor: float):
    acted = view([[1]], logp_old=torch.zeros(1, 1).double(), logp_rollout=-floats(ratio).log()[None])
    assert_equal(Agreeing()(acted, floats(1)[None], floats(1)[None]), floats(factor)[None])
    assert Agreeing().needs == {"logp_old", "logp_rollout"}


def test_against_has_a_ratio_for_each_of_two_masks():
    """To the engine 8, 2 and 2, of which at most 4 count; to the learner before 1, 1 and 2, of which the last is clipped."""
    moved = view([[1, 1, 1]], torch.zeros(1, 3).double(), logp_old=-floats(1, 1, 2).log()[None])
    ratio, advantage = floats(8, 2, 2)[None], torch.ones(1, 3).double()
    assert_equal(Against(Clip(), Old(), Cap(high=4.0))(moved, ratio, advantage) * ratio, floats(4, 2, 0)[None])
    assert Against(Clip(), Rollout(), Corrected()).needs == {"logp_old", "logp_rollout"}
    assert Against(GeometricClip(), Old(), Cap()).scope == "sequence"


def test_taper_has_bounds_for_good_and_for_bad_actions():
    ratio = floats(0.25, 0.5, 2, 8)[None]
    acted = view([[1] * 4])
    assert_equal(Taper()(acted, ratio, torch.zeros_like(ratio)) * ratio, floats(1, 1, 1, 1)[None])
    assert_equal(Taper()(acted, ratio, -torch.ones_like(ratio)) * ratio, floats(0.25, 0.5, 1, 1)[None])
    wide = Taper(positive_low=0.5, positive_high=4.0, negative_low=1.0, negative_high=2.0)
    assert_equal(wide(acted, ratio, torch.ones_like(ratio)) * ratio, floats(0.5, 0.5, 2, 4)[None])
    assert_equal(wide(acted, ratio, -torch.ones_like(ratio)) * ratio, floats(1, 1, 2, 2)[None])


def test_total_variation_is_of_probabilities():
    """From ½ to ¾ is farther than a fifth, though the ratio is 1.5; from 0.01 to 0.1 is not, though it is 10. Both ways."""
    acted, now = floats(0.5, 0.01, 0.75, 0.1)[None], floats(0.75, 0.1, 0.5, 0.01)[None]
    moved = view([[1] * 4], now.log(), logp_rollout=acted.log())
    ratio = now / acted
    assert_equal(TotalVariation(bound=0.2)(moved, ratio, torch.ones_like(ratio)), floats(0, 1, 1, 1)[None])
    assert_equal(TotalVariation(bound=0.2)(moved, ratio, -torch.ones_like(ratio)), floats(1, 1, 0, 1)[None])
    capped = TotalVariation(bound=0.2, cap=5.0)(moved, ratio, torch.ones_like(ratio)) * ratio
    assert_equal(capped, floats(0, 5, 2 / 3, 0.1)[None])


def test_shaped_is_the_slope_of_a_concave_function():
    ratio = floats(0.01, 0.1, 0.9)[None].requires_grad_()
    (slope,) = torch.autograd.grad((ratio / (ratio + 0.1)).sum(), ratio)
    assert_equal(Shaped(gamma=0.1)(view([[1, 1, 1]]), ratio.detach(), torch.ones(1, 3)), slope)


LOGP, ADVANTAGE = floats(-1, -2, -3, -6).view(2, 2), floats(3, 1, -1, -3).view(2, 2)
"""Means −3 and 0: the parts in the covariance are 2·3, 1·1, 0·(−1) and −3·(−3)."""


def test_covariance_by_hand():
    whole = view([[1, 1], [1, 1]], LOGP)
    assert_equal(covariance(whole, ADVANTAGE), floats(6, 1, 0, 9).view(2, 2))
    assert_equal(covariance(view([[1, 1], [0, 1]], LOGP), ADVANTAGE)[1, :1], floats(-math.inf))


@pytest.mark.parametrize(
    ("share", "low", "high", "candidates", "dropped"),
    [(1.0, 0.5, 7.0, [0, 1], 2), (0.5, 0.5, 9.0, [0, 1, 3], 2), (0.0, 0.5, 9.0, [0, 1, 3], 1), (1.0, 10.0, 20.0, [], 0)],
)
def test_covariance_drop_draws_some_of_its_candidates(share: float, low: float, high: float, candidates: list[int], dropped: int):
    acted = view([[1, 1], [1, 1]], LOGP, logp_rollout=torch.zeros(2, 2))
    mask = CovarianceDrop(share, low, high)(acted, torch.ones(2, 2), ADVANTAGE).flatten()
    gone = (mask == 0).nonzero()[:, 0].tolist()
    assert len(gone) == dropped
    assert set(gone) <= set(candidates)


def test_covariance_drop_leaves_what_is_clipped_already():
    acted = view([[1, 1], [1, 1]], LOGP, logp_rollout=torch.zeros(2, 2))
    ratio = floats(9, 1, 1, 1).view(2, 2)  # the first one is clipped, the second one is what is left to be drawn
    mask = CovarianceDrop(share=1e-9, low=0.5, high=7.0, of=Clip())(acted, ratio, ADVANTAGE)
    assert_equal(mask, floats(0, 0, 1, 1).view(2, 2))


def test_every_action_is_drawn_equally_often():
    """Also of answers whose actions were all certain. 400 draws of 2 out of 8, so each one 100 times, ± 4·√(400·¼·¾)."""
    logp, advantage = floats(*[-1] * 4, *[-3] * 4).expand(2, 8)[:1], floats(*[1] * 4, *[-1] * 4)[None]
    generator, drawn = torch.Generator().manual_seed(0), torch.zeros(8)
    for _ in range(400):
        rollout = torch.cat([-torch.rand(1, 1, generator=generator), torch.zeros(1, 7)], 1)
        drawn += CovarianceDrop(0.25, 0.5, 2.0)(view([[1] * 8], logp, logp_rollout=rollout), torch.ones(1, 8), advantage)[0] == 0
    assert drawn.sum() == 800
    assert (drawn - 100).abs().max() < 35


@pytest.mark.parametrize(("share", "chosen"), [(0.0, [0, 0, 0, 1]), (0.5, [1, 0, 0, 1]), (1.0, [1, 1, 0, 1])])
def test_covariance_top_are_the_largest_above_zero(share: float, chosen: list[float]):
    """The advantage is that of the part, not that of the term: rewards 3, 1, −1, −3 of four answers to a prompt."""
    acted = view([[1]] * 4, LOGP.view(4, 1), reward=floats(3, 1, -1, -3), prompt_id=torch.zeros(4, dtype=torch.int64))
    mask = CovarianceTop(share=share, advantage=Relative())(acted, torch.ones(4, 1).double(), torch.zeros(4, 1).double())
    assert_equal(mask[:, 0], floats(*chosen))


def test_covariance_top_without_contrast_is_nothing():
    acted = view([[1]] * 4, LOGP.view(4, 1), reward=torch.ones(4), prompt_id=torch.zeros(4, dtype=torch.int64))
    assert (CovarianceTop()(acted, torch.ones(4, 1), torch.zeros(4, 1)) == 0).all()


def test_by_origin_tells_the_policys_actions_from_demonstrated_ones():
    origin = torch.tensor([Origin.POLICY.code, Origin.DEMONSTRATION.code])
    mixed = view([[1], [1]], LOGP[:, :1], origin=origin, logp_old=torch.full((2, 1), -5.0).double())
    ratio, advantage = floats(9, 9)[:, None], torch.ones(2, 1).double()
    assert_equal(ByOrigin(Clip(), Shaped(gamma=1.0))(mixed, ratio, advantage), floats(0, 0.01)[:, None])
    assert_equal(ByOrigin(Old(), Unit())(mixed), floats(-5, 0)[:, None])
    assert ByOrigin(Clip(), CovarianceDrop()).scope == "batch"
    assert ByOrigin(Old(), Reference()).needs == {"logp_old", "logp_ref"}
