"""Rows only. A new method is a new entry here, and its published loss in ``tests/reference/``.

An id is the published loss; ``id:code`` is what the authors' released code computes where that is something else, and other
suffixes are other published forms of the same method.
"""

from __future__ import annotations

import math

from quatrain.config import ConfigError, nearest
from quatrain.objective import (
    GAE,
    AboveMedian,
    AboveValue,
    Accepted,
    Against,
    Agreeing,
    AmongAccepted,
    BalancedClip,
    BetaNormalized,
    Budget,
    ByEntropy,
    ByOrigin,
    ByReward,
    ByTurn,
    Cap,
    Clip,
    Constant,
    Corrected,
    CovarianceDrop,
    CovarianceTop,
    Current,
    Decoupled,
    Desirable,
    DualClip,
    EntropyBonus,
    EntropySwitched,
    Everywhere,
    Filtered,
    Flattened,
    FlowBalance,
    Gated,
    GeometricClip,
    GeometricMean,
    Hazard,
    Hinge,
    ImplicitProcess,
    ImplicitSteps,
    Intrinsic,
    LengthAdaptiveGAE,
    LengthSwitched,
    Logistic,
    Method,
    Old,
    One,
    OverGreedy,
    PartitionLoss,
    PerCreditedToken,
    PerGroup,
    PerSequence,
    PerToken,
    Perturbed,
    PerTurn,
    Pooled,
    Preferred,
    PrefixMinimum,
    PreservingClip,
    Priced,
    Ramped,
    Reference,
    Rejected,
    Relative,
    ReturnToGo,
    Rollout,
    Sequence,
    Shaped,
    Signed,
    SoftGate,
    SoftlyGated,
    Squared,
    StayClose,
    StepPotential,
    SumPerGroup,
    Taper,
    TeacherGap,
    Term,
    Token,
    TotalVariation,
    TowardTeacher,
    Undiluted,
    Unit,
    Unsolved,
    ValueLoss,
    Verified,
    Whitened,
)
from quatrain.types import Origin

_Z_SCORE = Relative(baseline="group", scale="group")
_VARIANCE = StayClose("variance", to="old")
_SHOWN = (Origin.DEMONSTRATION,)
_BOTH = (Origin.POLICY, Origin.DEMONSTRATION)
_RATED = (Origin.RATED,)
_SPARING = CovarianceDrop(share=0.02, low=1.0, high=40.0, of=Clip(0.2, 0.28))


def _preference(score: str, loss: Logistic | Squared | Hinge, on: tuple[Origin, ...] = _RATED) -> Term:
    return Term(
        denominator=Current(),
        advantage=Preferred(score, loss),  # type: ignore[arg-type]
        likelihood=Sequence(),
        reduce=SumPerGroup(),
        on=on,
    )


def _flow(mask: Cap | Everywhere) -> tuple[Term, PartitionLoss]:
    """Both halves of one squared residual."""
    balance = FlowBalance(beta=15.0, pool="mean", of=_Z_SCORE)
    return (
        Term(mask=mask, denominator=Old(), advantage=balance, likelihood=Sequence(), reduce=PerSequence()),
        PartitionLoss(mask=mask, denominator=Old(), advantage=balance, reduce=PerSequence()),
    )


METHODS: dict[str, Method] = {
    "sft": Method(
        Term(denominator=Current(), advantage=One(), on=_SHOWN),
        paper="arXiv:2203.02155",
        claim="Imitates demonstrations: the mean negative log-likelihood of their tokens.",
        aka=("nll", "supervised", "behaviour_cloning"),
        note="Papers print a sum over tokens; the mean over the minibatch's tokens is what all libraries compute. "
        "Equal to TRL and verl.",
    ),
    "dft": Method(
        Term(denominator=Unit(), advantage=One(), on=_SHOWN),
        paper="arXiv:2508.05629",
        claim="Weighing each token by its probability cancels the 1/π in imitation's gradient, and it generalizes better.",
        aka=("dynamic_fine_tuning",),
        note="The paper prints a sum over tokens, its code the mean over the minibatch's tokens, as here. Equal to TRL.",
    ),
    "rft": Method(
        Term(denominator=Current(), advantage=Accepted(threshold=1.0), reduce=PerCreditedToken()),
        paper="arXiv:2308.01825",
        claim="Imitates the policy's own accepted answers.",
        aka=("raft", "rejection_sampling"),
        note="The paper prints no normalizer: the mean is over the accepted answers' tokens. It samples once and "
        "removes duplicates; here each step samples anew. Equal to TRL on the accepted answers.",
    ),
    "reinforce": Method(
        Term(denominator=Current(), advantage=Relative(baseline="none"), likelihood=Sequence(), reduce=PerSequence()),
        paper="doi:10.1007/BF00992696",
        claim="The plain policy gradient: unbiased, with the largest variance.",
        aka=("vanilla_pg",),
        note="Equal to verl.",
    ),
    "reinforce_is": Method(
        Term(denominator=Rollout(), advantage=Relative(baseline="none"), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:cs/0204043",
        claim="The ratio of whole sequences makes another policy's samples an unbiased estimate, at a price in variance.",
        aka=("off_policy_reinforce", "importance_sampling"),
        note="Equal to verl.",
    ),
    "reinforce_pp": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Whitened(ReturnToGo(kl=0.01)), reduce=PerSequence()),
        paper="arXiv:2501.03262",
        claim="Statistics of the whole minibatch instead of each prompt's own: a bias that vanishes with its size.",
        aka=("reinforce++", "reinforce_plus_plus"),
        note="The paper is of two minds on what is whitened; it is tokens, as in its code. verl's clip is dual at 3.",
    ),
    "reinforce_pp:code": Method(
        Term(
            mask=Clip(0.2, 0.2),
            denominator=Old(),
            advantage=Whitened(ReturnToGo(kl=0.01), eps=0.0, floor=1e-4, correction=0),
            reduce=PerToken(),
        ),
        paper="arXiv:2501.03262",
        claim="What its code (OpenRLHF) computes: a mean over the minibatch's tokens, whitened by the biased deviation.",
        note="verl's clip is dual at 3, and its whitening divides by n − 1.",
    ),
    "reinforce_pp:baseline": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Whitened(Relative()), reduce=PerSequence()),
        Term(name="kl", coefficient=0.01, denominator=Current(), advantage=StayClose("k2"), reduce=PerSequence()),
        paper="arXiv:2501.03262",
        claim="Its form for several answers to a prompt: the group's mean is subtracted first, and the KL is a loss.",
        aka=("reinforce++_baseline", "reinforce_pp_baseline"),
        note="The paper does not state the coefficient of the KL; 0.01 is ours. verl's clip is dual at 3.",
    ),
    "rloo": Method(
        Term(denominator=Current(), advantage=Relative(baseline="leave_one_out"), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2402.14740",
        claim="REINFORCE whose baseline is the mean reward of the prompt's other answers: unbiased, no critic.",
        aka=("leave_one_out",),
        note="Equal to verl; TRL clips the ratio of sequences to π_old.",
    ),
    "remax": Method(
        Term(denominator=Current(), advantage=OverGreedy(), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2310.10505",
        claim="REINFORCE whose baseline is the reward of the most probable answer: no critic, and one sample is enough.",
        aka=("greedy_baseline", "scst"),
        note="Its code also bounds the difference of rewards to ±5, discounts it, adds a KL and takes a mean over "
        "tokens. Equal to verl.",
    ),
    "opo": Method(
        Term(denominator=Current(), advantage=Relative(baseline="length_weighted"), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2505.23585",
        claim="Exactly on-policy, with the baseline of least variance: long answers count for more in it.",
        aka=("optimal_baseline",),
        note="The baseline is optimal if the tokens' gradients are orthogonal and equally long. Equal to verl.",
    ),
    "opo:code": Method(
        Term(denominator=Current(), advantage=Relative(baseline="length_weighted"), reduce=PerToken()),
        paper="arXiv:2505.23585",
        claim="What its code computes: a mean over the minibatch's tokens, where the derivation has a sum for each answer.",
        note="Equal to verl.",
    ),
    "oblr_po": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative(baseline="gradient_weighted"), reduce=Constant()),
        paper="arXiv:2511.23310",
        claim="The baseline of least variance weighs rewards by squared gradients, and the step follows their signal and noise.",
        aka=("oblr", "gradient_weighted_baseline"),
        note="The learning rate that follows signal and noise is `update.snr_parts`, for any method. That the answer "
        "itself is left out, so that nothing is biased, is ours, as are the clip and that gradients are those of the head, "
        "taken as orthogonal from token to token. In small groups it can be of more variance than rloo's baseline.",
    ),
    "gpg": Method(
        Term(denominator=Current(), advantage=Relative(baseline="group"), reduce=Undiluted(PerGroup())),
        paper="arXiv:2504.02546",
        claim="The plain policy gradient with a group baseline, made up for groups without contrast, is all it takes.",
        aka=("group_policy_gradient",),
        note="verl takes the mean over tokens, and makes up for answers of reward 0 instead of groups without contrast.",
    ),
    "gpg:code": Method(
        Term(denominator=Current(), advantage=Relative(baseline="group"), reduce=Undiluted(PerToken())),
        paper="arXiv:2504.02546",
        claim="What its code computes: a mean over the minibatch's tokens, where the paper has one for each group.",
        note="verl makes up for answers of reward 0 instead of groups without contrast.",
    ),
    "max_rl": Method(
        Term(denominator=Current(), advantage=Relative(scale="group_mean"), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2602.02710",
        claim="Over the group's mean reward, the gradient is that of maximum likelihood, to an order that grows with the group.",
        aka=("maxrl", "maximum_likelihood_rl"),
        note="Rewards are 0 or 1, or at least not negative.",
    ),
    "grpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(name="kl", coefficient=0.04, denominator=Current(), advantage=StayClose("k3"), reduce=PerSequence()),
        paper="arXiv:2402.03300",
        claim="PPO without a critic: the group's mean and deviation stand in for the value.",
        aka=("group_relative",),
        note="The paper states no ε; 0.2 is PPO's. TRL adds 1e-4 to the deviation and by default multiplies the KL "
        "by the ratio. verl's clip is dual at 3.",
    ),
    "guirlvg": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(
            name="kl",
            coefficient=1e-4,
            denominator=Current(),
            advantage=ByReward(StayClose("k3"), most=1.0),
            reduce=PerSequence(),
        ),
        paper="arXiv:2508.04389",
        claim="The more an answer is rewarded, the more the reference holds it: rewards are over-optimized less.",
        aka=("adversarial_kl",),
        note="The largest reward is 2 in the paper and 1 in most tasks here. We found no ε; 0.2 is PPO's.",
    ),
    "rapo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(
            name="kl",
            coefficient=0.01,
            denominator=Current(),
            advantage=Flattened(StayClose("weighted"), least=0.5),
            reduce=PerSequence(),
        ),
        EntropyBonus(coefficient=0.001, reduce=PerSequence()),
        paper="arXiv:2510.03865",
        claim="A forward KL, to a reference that is flatter where answers fail, lets the policy explore beyond its base model.",
        aka=("rewards_aware_policy_optimization",),
        note="We found neither the weights of KL and entropy nor ε and φ: 0.01, 0.001, 0.2 and the line from 0.5 to 1 are ours. "
        "So are ratios by token, and leaving out Z, which no sample tells. Its estimate of the forward KL, as a loss, descends "
        "another divergence with the same optimum.",
    ),
    "selective": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Unsolved(_Z_SCORE), reduce=PerSequence()),
        Term(name="kl", coefficient=0.04, denominator=Current(), advantage=Unsolved(StayClose("k3")), reduce=PerSequence()),
        paper="arXiv:2510.02230",
        claim="Learning only from prompts that greedy decoding fails, with a forward KL, keeps what the base model can solve.",
        aka=("self", "selective_examples"),
        note="The released script has no KL: method.kl.coefficient=0. We found neither its weight nor its estimate; 0.04 and k3, "
        "which descends the forward KL, are GRPO's. Answers to the prompts that are dropped count in the means as if they had no "
        "advantage; its code does not sample them.",
    ),
    "dr_grpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative(baseline="group"), reduce=Constant()),
        paper="arXiv:2503.20783",
        claim="GRPO without its biases by length and by difficulty.",
        aka=("drgrpo", "grpo_done_right"),
        note="TRL divides by the budget of tokens. verl's clip is dual at 3.",
    ),
    "dr_grpo:code": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative(baseline="group"), reduce=Constant(tokens=3000)),
        paper="arXiv:2503.20783",
        claim="What its code computes: over the budget of tokens, 3000 in its scripts.",
        note="Equal to TRL; verl's clip is dual at 3.",
    ),
    "bnpo": Method(
        Term(mask=Clip(0.2, 0.28), denominator=Old(), advantage=BetaNormalized(), reduce=Constant()),
        paper="arXiv:2506.02864",
        claim="A normalizer fitted to how the prompts fare has less variance than the deviation or none.",
        aka=("beta_normalization",),
        note="Clip and reduction are its code's, which also has a dual clip at 10. TRL's bnpo is the advantage of "
        "GRPO under a mean over tokens.",
    ),
    "lite_ppo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative(baseline="group", scale="batch"), reduce=PerGroup()),
        paper="arXiv:2508.08221",
        claim="The group's mean, the minibatch's deviation and a mean over tokens are all that PPO without a critic needs.",
        aka=("liteppo", "ppo_lite"),
        note="The paper states no ε; 0.2 is PPO's. TRL takes the mean over the minibatch's tokens and adds 1e-4 to "
        "the deviation.",
    ),
    "qwenlong_l1_5": Method(
        Term(denominator=Old(), advantage=Relative(baseline="group", scale="task"), reduce=PerGroup()),
        paper="arXiv:2512.12967",
        claim="The deviation of a task's rewards, not of a prompt's or of all, where tasks are rewarded on different scales.",
        aka=("task_advantage", "task_normalized_grpo"),
        note="One update for each batch, so that the ratio is 1 and nothing is clipped. aepo is what the paper puts around this "
        "advantage. In a run with one task the deviation is that of the minibatch.",
    ),
    "aepo": Method(
        Term(
            denominator=Old(),
            advantage=EntropySwitched(low=0.1, high=0.3, of=Relative(baseline="group", scale="task")),
            reduce=PerGroup(),
        ),
        paper="arXiv:2512.12967",
        claim="Bad answers are left out from when entropy is too high until it is too low, and so it stays between the two.",
        aka=("adaptive_entropy_policy_optimization", "entropy_hysteresis"),
        note="The paper states neither bound; 0.1 and 0.3 nats are ours, from its curves. Its README keeps no memory and leaves "
        "bad answers out between the bounds, where its own comment says above. Other methods have the same name.",
    ),
    "gdpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Decoupled(of=_Z_SCORE), reduce=PerSequence()),
        paper="arXiv:2601.05242",
        claim="Each of several rewards normalized by itself: combinations that sum to the same total no longer look alike.",
        aka=("reward_decoupled",),
        note="The paper states no ε; 0.2 is PPO's. TRL takes the mean over the minibatch's tokens and adds 1e-4 to the "
        "deviations. LaGDPO (arXiv:2603.12166) is named after it; that it normalizes rewards like this is inferred from its "
        "abstract.",
    ),
    "gdpo:code": Method(
        Term(
            mask=Clip(0.2, 0.2),
            denominator=Old(),
            advantage=Whitened(Decoupled(of=_Z_SCORE, whole=Relative(baseline="none"))),
            reduce=PerToken(),
        ),
        paper="arXiv:2601.05242",
        claim="What its code on verl computes: the sum is whitened over tokens, and so is the mean of the loss.",
        note="verl's clip is dual at 3.",
    ),
    "dapo": Method(
        Term(mask=Clip(0.2, 0.28), denominator=Old(), advantage=_Z_SCORE, reduce=PerGroup()),
        paper="arXiv:2503.14476",
        claim="Clip-higher and the token-level mean keep long answers learning and entropy alive.",
        aka=("clip_higher",),
        note="Resampling of groups without contrast and the penalty on long answers are matters of the recipe. TRL "
        "and verl take the mean over the minibatch's tokens; TRL adds 1e-4 to the deviation, verl's clip is "
        "dual at 3.",
    ),
    "dapo:code": Method(
        Term(mask=DualClip(0.2, 0.28, bound=10.0), denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        paper="arXiv:2503.14476",
        claim="What its code computes: a mean over the minibatch's tokens, where the paper has one for each group; a dual clip.",
        note="Equal to verl with clip_ratio_c=10; TRL with delta=10 adds 1e-4 to the deviation.",
    ),
    "spae": Method(
        Term(
            mask=Clip(0.2, 0.28),
            denominator=Old(),
            advantage=Whitened(StepPotential(fade=0.5, weight=0.5, known=0.9)),
            reduce=PerToken(),
        ),
        paper="arXiv:2601.03823",
        claim="Less credit after the answer is known, and more for steps that come nearer to it: as accurate, and shorter.",
        aka=("step_potential",),
        note="Each step is probed: the policy is asked for its answer there. We found no bounds of the clip; they are dapo's. "
        "The paper drops groups without contrast; here they learn from their steps' potentials alone. That what comes after the "
        "last probe keeps its potential is ours.",
    ),
    "dual_clip": Method(
        Term(mask=DualClip(0.2, 0.2, bound=3.0), denominator=Old(), advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        ValueLoss(coefficient=0.5, clip=0.2, advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        paper="arXiv:1912.09729",
        claim="A bound from below where the advantage is negative keeps stale data with huge ratios from wrecking the update.",
        aka=("dual_clip_ppo", "two_sided_clip"),
        note="verl whitens the advantages; its critic's loss has no coefficient.",
    ),
    "gspo": Method(
        Term(mask=Clip(3e-4, 4e-4), denominator=GeometricMean(), advantage=_Z_SCORE, reduce=PerSequence()),
        paper="arXiv:2507.18071",
        claim="Ratio and clip of the whole sequence, as the reward is of the whole sequence.",
        aka=("gspo_token",),
        note="With one advantage for all tokens of an answer, GSPO-token has the same gradient. Equal to verl; TRL "
        "adds 1e-4 to the deviation.",
    ),
    "luspo": Method(
        Term(mask=Clip(2e-3, 2.5e-3), denominator=GeometricMean(), advantage=_Z_SCORE, reduce=Constant()),
        paper="arXiv:2602.05261",
        claim="GSPO times the answer's length: without its pull toward short answers.",
        aka=("length_unbiased",),
        note="Equal to verl; TRL adds 1e-4 to the deviation.",
    ),
    "rank_grpo": Method(
        Term(mask=Clip(0.06, 0.08), denominator=GeometricMean("turn"), advantage=ByTurn(_Z_SCORE), reduce=PerTurn()),
        Term(name="kl", coefficient=0.001, denominator=Current(), advantage=StayClose("k3"), reduce=PerSequence()),
        paper="arXiv:2510.20150",
        claim="Each item of a ranked list has its own reward, advantage and ratio: late items learn from what they are worth.",
        aka=("rank_level_grpo", "turn_level_gspo"),
        note="A rank is a turn here, whose rewards the trajectory brings; in a task of one turn it is GSPO with a KL. The range "
        "of the clip and the coefficient of the KL are those of its code.",
    ),
    "rank_grpo:code": Method(
        Term(
            mask=Clip(0.06, 0.08),
            denominator=GeometricMean("turn"),
            advantage=ByTurn(Relative(scale="group", eps=1e-4)),
            reduce=PerToken(),
        ),
        Term(name="kl", coefficient=0.001, denominator=Current(), advantage=StayClose("k3"), reduce=PerToken()),
        paper="arXiv:2510.20150",
        claim="What its code computes: a mean over the minibatch's tokens, so that an item weighs by its length.",
        note="Its code has rewards and penalties of its own for what follows the last item.",
    ),
    "gmpo": Method(
        Term(mask=GeometricClip(0.4, 0.4), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        paper="arXiv:2507.20673",
        claim="The geometric mean of clipped ratios is moved less by single tokens, so the clip may be wider.",
        aka=("geo_mean",),
        note="Equal to verl; TRL adds 1e-4 to the deviation.",
    ),
    "gfpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Filtered(share=0.5, by="length"), reduce=PerGroup()),
        Term(name="kl", coefficient=0.001, denominator=Current(), advantage=StayClose("k3"), reduce=PerGroup()),
        EntropyBonus(coefficient=0.001, reduce=PerGroup()),
        paper="arXiv:2508.09726",
        claim="Sample more and learn from the short answers: as good, and much shorter.",
        aka=("group_filtered",),
        note="The paper states no ε (0.2 is PPO's) and prints the KL to π_old, by which we take π_ref to be meant.",
    ),
    "grpo_lambda_length": Method(
        Term(
            mask=Clip(0.2, 0.2),
            denominator=Old(),
            advantage=LengthSwitched(share=0.2, weight=0.6, of=_Z_SCORE),
            reduce=PerSequence(),
        ),
        paper="arXiv:2505.18086",
        claim="Brevity is asked for only where the policy already succeeds, so that accuracy does not collapse.",
        aka=("length_switch",),
        note="The paper states no ε; 0.2 is PPO's. Its code is said to shorten the wrong answers of the best groups, too; by its "
        "formula they get 0, as here. GRPO-λ is also the name of arXiv:2510.00194, which is about eligibility traces.",
    ),
    "cispo": Method(
        Term(mask=Cap(high=5.0), denominator=Old(), advantage=_Z_SCORE, reduce=PerGroup()),
        paper="arXiv:2506.13585",
        claim="Caps the weight and drops no token, so rare reflective tokens keep their gradient.",
        aka=("minimax_m1",),
        note="The paper tunes the bound and states no value; 5 is that of arXiv:2510.13786. TRL and verl take the "
        "mean over the minibatch's tokens; TRL adds 1e-4 to the deviation, verl has a lower bound of 0.8.",
    ),
    "sapo": Method(
        Term(mask=SoftGate(positive=1.0, negative=1.05), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        paper="arXiv:2511.20347",
        claim="A smooth gate, steeper for bad actions, in the place of the clip: stable for longer.",
        aka=("soft_adaptive",),
        note="Equal to verl; TRL adds 1e-4 to the deviation.",
    ),
    "mhpo": Method(
        Term(
            mask=Hazard(bound=1.5, rise_shape=1.5, rise_scale=1.0, fall_shape=2.0, fall_scale=0.8),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerSequence(),
        ),
        paper="arXiv:2603.16929",
        claim="A hazard for how far a ratio has risen and another for how far it has fallen bound the gradient without a kink.",
        aka=("modulated_hazard",),
        note="The hazard is not 0 at ratio 1, so that with these numbers even answers of the current policy weigh "
        "e^−1.328 = 0.265 of what they weigh in other rows: next to those, its learning rate is that much smaller.",
    ),
    "r2vpo": Method(
        Term(denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(
            name="variance",
            denominator=Current(),
            advantage=Priced(bound=0.01, rate=10.0, first=2.5, of=_VARIANCE),
            reduce=PerSequence(),
        ),
        paper="arXiv:2601.03320",
        claim="A price on the ratio's variance in the place of the clip: Â − 2λ·(r − 1) brakes stale data and never cuts it.",
        aka=("ratio_variance",),
        note="λ is a dual variable: it rises while the variance is above its bound. Bound, rate and the first λ are ours: a "
        "standard deviation of 0.1, and λ = 2.5 lets an answer one deviation above the mean come to rest at ratio 1.2. With one "
        "update for each batch the ratio is 1, and λ falls to 0. Reduction and advantage are GRPO's.",
    ),
    "r2vpo:fixed": Method(
        Term(denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(name="variance", coefficient=2.5, denominator=Current(), advantage=_VARIANCE, reduce=PerSequence()),
        paper="arXiv:2601.03320",
        claim="The same with λ as a number, so that nothing is remembered.",
        note="2.5 is ours: an answer one deviation above the mean comes to rest at ratio 1.2.",
    ),
    "c3po": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=_Z_SCORE, reduce=Budget(tokens=409_600.0)),
        Term(
            name="kl",
            coefficient=0.001,
            denominator=Current(),
            advantage=StayClose("k3"),
            reduce=Budget(tokens=409_600.0),
        ),
        EntropyBonus(coefficient=0.0005, reduce=Budget(tokens=409_600.0)),
        paper="arXiv:2506.14731",
        claim="The same number of tokens in every update: rewards, lengths and gradients stay calm where answers' lengths vary.",
        aka=("constrained_contextual_computation",),
        note="The budget is of a minibatch and stands in all three terms: set reduce.tokens, kl.reduce.tokens and "
        "entropy.reduce.tokens alike, to somewhat less than a minibatch holds. The losses of its experts' router are a matter "
        "of the model.",
    ),
    "ce_gppo": Method(
        Term(
            mask=PreservingClip(low=0.2, high=0.2, below=0.5, above=1.0),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerGroup(),
        ),
        paper="arXiv:2509.20712",
        claim="Clipped tokens keep a bounded gradient; its two scales, below and above, hold entropy where it does good.",
        aka=("gradient_preserving_clipping",),
        note="The paper's runs have β₁ = 0.5, which it finds good in general, and 0.75, which it finds better with 7B "
        "parameters. Its code takes the mean over the minibatch's tokens, and its clip is dual at 10.",
    ),
    "clip_cov": Method(
        Term(mask=CovarianceDrop(share=2e-4, low=1.0, high=5.0), denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        paper="arXiv:2505.22617",
        claim="Without the update of a few tokens that are both likely and good, entropy does not collapse.",
        aka=("clip_covariance",),
        note="Equal to verl where every candidate is drawn; the lotteries differ.",
    ),
    "clip_cov:code": Method(
        Term(
            mask=CovarianceDrop(share=2e-4, low=1.0, high=5.0, of=Clip(1.0, 1.0)),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerToken(),
        ),
        paper="arXiv:2505.22617",
        claim="What its code computes: PPO's clip beside it, with ε = 1 in its scripts.",
        note="Its code takes the means over each micro-batch; here they are the minibatch's. Equal to verl where "
        "every candidate is drawn; the lotteries differ.",
    ),
    "kl_cov": Method(
        Term(denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        Term(
            name="kl",
            mask=CovarianceTop(share=2e-3, advantage=_Z_SCORE),
            denominator=Current(),
            advantage=StayClose("forward", to="old"),
            reduce=PerToken(),
        ),
        paper="arXiv:2505.22617",
        claim="A KL penalty on the few tokens that are both likely and good holds entropy up.",
        aka=("kl_covariance",),
        note="KL(π_old‖π_θ) is of whole distributions in the paper; here it is estimated from the token that π_old "
        "drew. verl has the size of the log-ratio instead, as kl_cov:code has.",
    ),
    "kl_cov:code": Method(
        Term(denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        Term(
            name="kl",
            mask=CovarianceTop(share=2e-3, advantage=_Z_SCORE),
            denominator=Current(),
            advantage=StayClose("abs", to="old"),
            reduce=PerToken(),
        ),
        paper="arXiv:2505.22617",
        claim="What its code computes: the size of the log-ratio in the place of the KL.",
        note="Its code takes the means over each micro-batch; here they are the minibatch's. Equal to verl.",
    ),
    "spear": Method(
        Term(mask=_SPARING, denominator=Old(), advantage=Relative(), reduce=Constant(tokens=16_384)),
        Term(
            name="replay",
            mask=_SPARING,
            denominator=Rollout(),
            advantage=AboveMedian(history=10_240),
            reduce=Ramped(Constant(tokens=16_384), updates=200.0),
            on=(Origin.REPLAY,),
        ),
        paper="arXiv:2509.22601",
        claim="Imitating its own best answers, ever more of them, an agent explores first and then settles, at an even entropy.",
        aka=("self_imitation", "learn_the_ropes"),
        note="Numbers are those of its code, whose default weight of the replay is 0.001 and that of its scripts 1; its schedule "
        "counts steps, and here updates. Old probabilities of replayed answers are the engine's. Those below the median count in "
        "the means as if they had no advantage; the code drops them, and replays in updates of their own. The reward of tool "
        "calls, which fades, and the filters of answers and of groups are matters of the recipe.",
    ),
    "tis": Method(
        Term(mask=Corrected(high=2.0, of=Clip(0.2, 0.28)), denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        paper="https://fengyao.notion.site/off-policy-rl",
        claim="Engine and learner disagree about the same weights; a truncated ratio of the two makes up for it.",
        aka=("flash_rl", "flashrl", "truncated_importance_sampling"),
        note="The loss that is corrected is that of dapo:code, but for its dual clip. TRL adds 1e-4 to the "
        "deviation; verl's clip is dual at 3.",
    ),
    "seq_tis": Method(
        Term(
            mask=Corrected(high=2.0, over="sequence", of=Clip(0.2, 0.28)),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerToken(),
        ),
        paper="https://richardli.xyz/rl-collapse",
        claim="The ratio of the whole answer: what a token's own leaves out of its prefix adds up over long answers.",
        aka=("sequence_tis",),
        note="The loss that is corrected is that of tis, and 2 is verl's bound. TRL adds 1e-4 to the deviation; verl's clip is "
        "dual at 3.",
    ),
    "mis": Method(
        Term(
            mask=Agreeing(low=0.0, high=2.0, of=Corrected(high=math.inf, of=Clip(0.2, 0.28))),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerToken(),
        ),
        paper="https://richardli.xyz/rl-collapse",
        claim="A token far likelier to the learner than to the engine is left out: even truncated, it would mislead.",
        aka=("token_mis", "masked_importance_sampling"),
        note="The loss that is corrected is that of tis, and 2 is verl's bound. TRL adds 1e-4 to the deviation; verl's clip is "
        "dual at 3.",
    ),
    "mis:sequence": Method(
        Term(
            mask=Agreeing(low=0.0, high=2.0, over="sequence", of=Corrected(high=math.inf, over="sequence", of=Clip(0.2, 0.28))),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerToken(),
        ),
        paper="https://richardli.xyz/rl-collapse",
        claim="The same of whole answers: those that the engine would hardly have given to the learner are left out.",
        aka=("seq_mis",),
        note="The loss that is corrected is that of tis, and 2 is verl's bound. TRL adds 1e-4 to the deviation; verl's clip is "
        "dual at 3.",
    ),
    "icepop": Method(
        Term(
            mask=Agreeing(low=0.5, high=5.0, of=Corrected(high=math.inf, of=Clip(0.2, 0.2))),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerSequence(),
        ),
        paper="arXiv:2510.18855",
        claim="Tokens on which engine and learner differ much, either way, have no weight, so the gap does not grow from update "
        "to update.",
        aka=("ice_pop", "double_sided_masking"),
        note="The paper prints a KL, too, whose weight is 0 in its runs on reasoning; ε = 0.2 is PPO's. A token without weight "
        "still counts in its answer's length. TRL adds 1e-4 to the deviation; verl's clip is dual at 3.",
    ),
    "decoupled_ppo": Method(
        Term(
            mask=Corrected(high=math.inf, of=Clip(0.2, 0.2)),
            denominator=Old(),
            advantage=GAE(gamma=1.0, lam=0.95),
            reduce=PerToken(),
        ),
        ValueLoss(coefficient=0.5, clip=0.2, advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        paper="arXiv:2110.00641",
        claim="The policy that bounds the step need not be the one that acted: stale data and large batches do no harm.",
        note="π_prox is the policy at the start of the update, as in arXiv:2505.24298; the paper's is an average "
        "of weights. verl whitens the advantages and clips dually; its critic's loss has no coefficient.",
    ),
    "areal": Method(
        Term(
            mask=Corrected(high=math.inf, of=Clip(0.2, 0.2)),
            denominator=Old(),
            advantage=Whitened(Relative(baseline="none")),
            reduce=PerToken(),
        ),
        paper="arXiv:2505.24298",
        claim="The same without a critic, on answers that are some versions old: as good as on fresh ones, and far sooner.",
        aka=("areal_ppo", "decoupled_ppo_without_critic"),
        note="The rewards of the global batch are normalized; that their statistics are over its tokens is our reading. Which "
        "answers are too old is a matter of the recipe. verl's clip is dual at 3.",
    ),
    "mini_rl": Method(
        Term(
            mask=Against(mask=Clip(0.2, 0.27), denominator=Old(), of=Cap(high=5.0)),
            denominator=Rollout(),
            advantage=Relative(baseline="group"),
            reduce=Constant(),
        ),
        paper="arXiv:2512.01374",
        claim="A first-order approximation to the reward of whole answers, good while engine and learner are close: the weight "
        "is against the engine, the clip against the learner before the update.",
        aka=("minirl",),
        note="Replaying the experts that the engine chose is a matter of the model.",
    ),
    "hispo": Method(
        Term(
            mask=Agreeing(
                low=0.99,
                high=1.01,
                over="geometric",
                of=Agreeing(low=0.5, high=1.5, of=DualClip(0.2, 0.28, bound=3.0)),
            ),
            denominator=Rollout(),
            advantage=_Z_SCORE,
            reduce=Constant(tokens=8192),
        ),
        paper="arXiv:2603.21065",
        claim="Engine and learner must agree on the whole answer and on the token: long tasks with tools stay stable.",
        aka=("hierarchical_importance_sampling",),
        note="The paper states neither the gates' widths, nor the clip's bounds, nor the longest answer, which is the divisor: "
        "all six numbers are ours.",
    ),
    "p1_vl": Method(
        Term(
            mask=Agreeing(
                low=0.0, high=1.01, over="geometric", of=Corrected(high=math.inf, over="sequence", of=Clip(3e-4, 4e-4))
            ),
            denominator=GeometricMean(),
            advantage=_Z_SCORE,
            reduce=PerSequence(),
        ),
        paper="arXiv:2602.09443",
        claim="GSPO on the answers whose geometric mean of engine ratios is small enough; what is kept weighs the full product.",
        aka=("geo_mis", "seq_mis_geometric"),
        note="The paper's bound is not known to us; 1.01 is ours, and the clip is that of gspo.",
    ),
    "minpro": Method(
        Term(mask=Cap(high=5.0), denominator=PrefixMinimum(), advantage=_Z_SCORE, reduce=PerGroup()),
        paper="arXiv:2601.22718",
        claim="The exact correction of a token is the product over its prefix; the prefix's least ratio in its place is stable.",
        aka=("minimum_prefix_ratio",),
        note="The paper's bounds are not known to us; those of cispo are ours.",
    ),
    "bapo": Method(
        Term(
            mask=BalancedClip(low=0.6, low_last=0.9, low_step=0.02, high=1.2, high_last=3.0, high_step=0.05, target=0.4),
            denominator=Rollout(),
            advantage=_Z_SCORE,
            reduce=Constant(),
        ),
        paper="arXiv:2510.18927",
        claim="Bad answers dominate stale batches; bounds that move until the good ones have their part keep entropy up.",
        aka=("balanced_policy_optimization",),
        note="The part is printed as one in the size of the sum of all, in which bad answers count below 0; of the sum of all "
        "sizes, 0.4 would be more. What is clipped counts at its bound, so a higher lower bound adds to the bad ones' part.",
    ),
    "bapo:code": Method(
        Term(
            mask=BalancedClip(
                low=0.8,
                low_last=0.95,
                low_step=0.05,
                high=1.2,
                high_last=2.0,
                high_step=0.1,
                target=0.5,
                part="odds",
                first="low",
                bound=3.0,
            ),
            denominator=Old(),
            advantage=_Z_SCORE,
            reduce=PerToken(),
        ),
        paper="arXiv:2510.18927",
        claim="What its code computes: good against bad answers, the lower bound first, and a dual clip.",
        note="Its code searches in each micro-batch; here it is the minibatch. The numbers are those of its script.",
    ),
    "topr": Method(
        Term(mask=Taper(), denominator=Rollout(), advantage=Signed(), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2503.14286",
        claim="Good answers whole, bad ones by their ratio and at most whole: stable off-policy without KL or clip.",
        aka=("tapered_off_policy_reinforce",),
        note="A reward of at least 1 is a good answer, any other is a bad one.",
    ),
    "dppo_tv": Method(
        Term(mask=TotalVariation(bound=0.15), denominator=Rollout(), advantage=Relative(), reduce=Constant()),
        paper="arXiv:2602.04879",
        claim="A bound on the change of the probability instead of the ratio: rare tokens learn, likely ones do not run away.",
        aka=("dppo", "divergence_ppo", "dppo_binary_tv"),
        note="Equal to verl.",
    ),
    "dppo_tv:code": Method(
        Term(mask=TotalVariation(bound=0.15, cap=10.0), denominator=Rollout(), advantage=Relative(), reduce=PerToken()),
        paper="arXiv:2602.04879",
        claim="What its code computes: ratios up to 10, and a mean over the minibatch's tokens.",
        note="Equal to verl.",
    ),
    "alp": Method(
        Term(
            mask=Clip(0.5, 3.0),
            denominator=Rollout(),
            advantage=_Z_SCORE,
            likelihood=Perturbed(Token(), sigma=1e-6, lr=5e-4),
            reduce=PerToken(),
        ),
        paper="arXiv:2603.19470",
        claim="Learned noise in the layers of the policy that learns keeps its ratio to the engine's tame: one ratio, one clip.",
        aka=("adaptive_layerwise_perturbation", "token_alp"),
        note="The form by token. σ, its learning rate and the clip are those of the authors' script, which is of the form by "
        "sequence; we found no others. Its code also has a dual clip at 3. There noise is drawn for each pass; here it is a "
        "function of the update, the layer and the tokens so far, so that a prompt's answers share that of the prompt.",
    ),
    "alp:sequence": Method(
        Term(
            mask=Clip(0.5, 3.0),
            denominator=Rollout(),
            advantage=_Z_SCORE,
            likelihood=Perturbed(Sequence(), sigma=1e-6, lr=5e-4),
            reduce=PerSequence(),
        ),
        paper="arXiv:2603.19470",
        claim="The form by sequence, its best: the ratio of whole answers, a product that noise keeps from running away.",
        aka=("seq_alp",),
        note="The mean is over answers; its code takes it over the minibatch's tokens.",
    ),
    "ppo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        ValueLoss(coefficient=0.5, clip=0.2, advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        EntropyBonus(coefficient=0.0, reduce=PerToken()),
        paper="arXiv:1707.06347",
        claim="A learned critic tells each token's share; the clip keeps the update near.",
        aka=("ppo_clip",),
        note="The clip of the value is that of OpenAI's code; the paper has the squared error alone "
        "(value.clip=.inf). verl whitens the advantages and clips dually; its critic's loss has no "
        "coefficient.",
    ),
    "vapo": Method(
        Term(mask=Clip(0.2, 0.28), denominator=Old(), advantage=LengthAdaptiveGAE(alpha=0.05), reduce=PerToken()),
        ValueLoss(coefficient=0.5, clip=math.inf, advantage=GAE(gamma=1.0, lam=1.0), reduce=PerToken()),
        Term(name="nll", coefficient=0.1, denominator=Current(), advantage=Accepted(1.0), reduce=PerCreditedToken()),
        paper="arXiv:2504.05118",
        claim="A critic that is trained to full returns, and a λ that grows with the answer, beat methods without a critic.",
        aka=("value_augmented_ppo",),
        note="The paper does not print the critic's loss or its coefficient; they are PPO's. Training the critic "
        "first is a matter of the recipe.",
    ),
    "ui_tars_2": Method(
        Term(mask=Clip(0.2, 0.28), denominator=Old(), advantage=LengthAdaptiveGAE(alpha=0.05), reduce=PerToken()),
        ValueLoss(coefficient=0.5, clip=math.inf, advantage=GAE(gamma=1.0, lam=1.0), reduce=PerToken()),
        paper="arXiv:2509.02544",
        claim="PPO with a critic of full returns, a λ that grows with the answer, and clip-higher: stable over many turns.",
        aka=("decoupled_gae",),
        note="The objective of vapo without the likelihood of correct answers. The paper gives no numbers; they are vapo's. "
        "Shaped rewards and training the critic first are matters of the recipe.",
    ),
    "flowrl": Method(
        *_flow(Cap(low=0.8, high=1.2)),
        paper="arXiv:2509.15207",
        claim="Answers in proportion to exp(β·r) in the place of the best one alone: more ways to be right are kept.",
        aka=("flow_rl", "flow_balance"),
        note="ε = 0.2, the mean over the minibatch's answers and the unbiased deviation are those of its code. The gradient "
        "of log Z reaches the model, as there; its network reads all tokens of the prompt (the code leaves out the last) "
        "and has no dropout, as a policy is scored as it acts. It starts at log Z = 0.",
    ),
    "flowrl:code": Method(
        *_flow(Everywhere()),
        paper="arXiv:2509.15207",
        claim="What its first release computes: the ratio of whole answers without bounds as the weight.",
        note="A later version caps the ratio at 10.",
    ),
    "prime": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=ImplicitProcess(beta=0.05), reduce=PerToken()),
        paper="arXiv:2502.01456",
        claim="A process reward learned online from outcomes alone makes each sample worth more.",
        aka=("process_reinforcement",),
        note="The process reward model learns by implicit_prm. The code scales its rewards by the batch's largest "
        "return instead of beta, and whitens the advantage.",
    ),
    "implicit_prm": Method(
        Term(denominator=Current(), advantage=Verified(beta=0.05), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2412.01981",
        claim="A classifier of outcomes whose logit is a log-ratio of language models is a process reward model for free.",
        aka=("free_process_rewards",),
        note="TRL's bco_pair adds up a pair's two answers, where this is their mean.",
    ),
    "istar": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=ImplicitSteps(beta=0.05, weight=1.0), reduce=PerToken()),
        paper="arXiv:2509.19199",
        claim="A process reward of each turn, learned online from which of two trajectories won, beside the outcome's advantage.",
        aka=("oprl", "implicit_step_rewards"),
        note="The process reward model learns by istar_prm (process.method=istar_prm). The paper's advantage is any of those "
        "without a critic; this is its RLOO. Its code compares a turn with the first turns of the group's trajectories alone, "
        "the paper with all. Clip and mean are those of the library that it runs in.",
    ),
    "istar_prm": Method(
        Term(
            denominator=Current(),
            advantage=Preferred("log_ratio", Logistic(beta=0.05), to="rollout"),
            likelihood=Sequence(),
            reduce=SumPerGroup(),
        ),
        paper="arXiv:2509.19199",
        claim="DPO on the policy's own successes and failures against the policy that acted: a process reward of each turn.",
        aka=("trajectory_dpo",),
        note="The paper pairs each success with one failure; here all pairs of a group with different rewards count alike. Equal "
        "to TRL's DPO with the acting policy for its reference.",
    ),
    "intuitor": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Intrinsic("certainty", _Z_SCORE), reduce=PerSequence()),
        Term(name="kl", coefficient=0.005, denominator=Current(), advantage=StayClose("k3"), reduce=PerSequence()),
        paper="arXiv:2505.19590",
        claim="GRPO with the policy's own certainty in the place of the reward: no labels, no verifier.",
        aka=("rlif", "self_certainty"),
        note="Certainty is that of the policy at the start of the update. The KL coefficient is that of the authors' settings "
        "for MATH; their code leaves out the constant log|V|, which a z-score takes away.",
    ),
    "em_rl": Method(
        Term(
            denominator=Current(),
            advantage=Intrinsic("entropy", Relative(baseline="leave_one_out")),
            likelihood=Sequence(),
            reduce=PerSequence(),
        ),
        paper="arXiv:2505.15134",
        claim="Minus the entropy of its own next-token distributions as the only reward: on par with RL from labels.",
        aka=("entropy_minimization",),
        note="The form by token; method.advantage.by=likelihood is the one by sequence. The rewards are the paper's; that they "
        "go into RLOO, with which it compares, and without a KL penalty, is our choice.",
    ),
    "opd": Method(
        Term(denominator=Rollout(), advantage=TeacherGap(), reduce=PerToken()),
        paper="doi:10.64434/tml.20251026",
        claim="A teacher's verdict on each token of the policy's own answers: as dense as imitation, on-policy as RL.",
        aka=("on_policy_distillation",),
        note="The form of generalized knowledge distillation (arXiv:2306.13649) that is estimated from the token "
        "drawn. verl compares the teacher with π_θ as it is now, under a dual clip of the ratio to π_old.",
    ),
    "kepo": Method(
        Term(denominator=Current(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(
            name="distil",
            denominator=Current(),
            advantage=TowardTeacher(beta=0.5),
            reduce=AmongAccepted(PerToken(), threshold=1.0),
        ),
        paper="arXiv:2602.00400",
        claim="A teacher's word on each token, of good answers alone, beside reinforcement: no advice on flawed reasoning.",
        aka=("knowledge_enhanced",),
        note="Its code takes the divergence over the whole vocabulary; this is its estimate from the token drawn, of the same "
        "expected gradient. beta is the default of its code, which adds 1e-4 to the deviation and whose rewards are at most 2. "
        "That prompts without a right answer are tried again with a hint of the teacher's is not done here.",
    ),
    "luffy": Method(
        Term(
            mask=ByOrigin(policy=Clip(0.2, 0.2), demonstration=Shaped(gamma=0.1)),
            denominator=ByOrigin(policy=Old(), demonstration=Unit()),
            advantage=_Z_SCORE,
            reduce=PerGroup(),
            on=_BOTH,
        ),
        paper="arXiv:2504.14945",
        claim="Demonstrations in the group, with more weight on rare tokens, teach what the policy cannot sample.",
        aka=("mixed_policy_grpo",),
        note="The paper states no ε; 0.2 is PPO's.",
    ),
    "luffy:code": Method(
        Term(
            mask=ByOrigin(policy=Everywhere(), demonstration=Shaped(gamma=0.1)),
            denominator=ByOrigin(policy=Old(), demonstration=Unit()),
            advantage=Relative(),
            reduce=Constant(tokens=8192),
            on=_BOTH,
        ),
        EntropyBonus(coefficient=0.001, reduce=PerToken(), on=_BOTH),
        paper="arXiv:2504.14945",
        claim="What its code computes: no clip, no deviation, over the budget of tokens, and an entropy bonus.",
        note="Its code adds up the answers of each micro-batch; here it is their mean over the minibatch.",
    ),
    "srft": Method(
        Term(
            name="imitate",
            coefficient=0.5,
            denominator=Current(),
            advantage=ByEntropy(sign=-1),
            reduce=Constant(),
            on=_SHOWN,
        ),
        Term(name="demonstrated", denominator=Unit(), advantage=Pooled(_Z_SCORE), reduce=Constant(), on=_SHOWN),
        Term(name="right", coefficient=0.1, denominator=Current(), advantage=ByEntropy(1, Accepted(1.0)), reduce=Constant()),
        Term(name="wrong", denominator=Current(), advantage=Rejected(1.0), reduce=Constant()),
        paper="arXiv:2506.19767",
        claim="Imitation and reinforcement in one stage, weighed by how undecided the policy is.",
        aka=("supervised_reinforcement_fine_tuning",),
        note="The paper does not say whose entropy it is: it is the mean over the answer, as in arXiv:2509.04419's "
        "code. The authors' code is said to have exp(+H) on imitation, too.",
    ),
    "hpt": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Gated(_Z_SCORE, "above"), reduce=PerSequence()),
        Term(name="sft", denominator=Current(), advantage=Gated(One(), "upto"), reduce=PerSequence(), on=_SHOWN),
        paper="arXiv:2509.04419",
        claim="Imitate where the policy fails, reinforce where it succeeds: question by question.",
        aka=("hybrid_post_training", "upge"),
        note="The rate γ stands in both terms: set advantage.rate and sft.advantage.rate alike.",
    ),
    "hpt:code": Method(
        Term(denominator=Old(), advantage=Gated(Relative(), "above"), reduce=Constant(tokens=8192)),
        Term(name="sft", denominator=Current(), advantage=Gated(One(), "upto"), reduce=PerCreditedToken(), on=_SHOWN),
        EntropyBonus(coefficient=0.001, reduce=PerToken(), on=_BOTH),
        paper="arXiv:2509.04419",
        claim="What its code computes: no clip, no deviation, over the budget of tokens, and an entropy bonus.",
        note="Its code adds up the answers of each micro-batch, where here it is their mean over the minibatch, "
        "and drops those to imitated questions, and the demonstrations of the others, before the entropy "
        "bonus.",
    ),
    "hpt:soft": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=SoftlyGated(_Z_SCORE, "above"), reduce=PerSequence()),
        Term(name="sft", denominator=Current(), advantage=SoftlyGated(One(), "upto"), reduce=PerSequence(), on=_SHOWN),
        paper="arXiv:2509.04419",
        claim="Less imitation and more reinforcement with each further answer that is right, in the place of a switch.",
        note="The shares are those of the table in its code, for eight answers to a question.",
    ),
    "a_lol": Method(
        Term(
            mask=Cap(low=0.1, high=1.9),
            denominator=Reference(),
            advantage=AboveValue(),
            likelihood=Sequence(),
            reduce=PerCreditedToken(),
            on=_RATED,
        ),
        ValueLoss(coefficient=1.0, clip=math.inf, advantage=GAE(gamma=1.0, lam=1.0), reduce=PerSequence(), on=_RATED),
        paper="arXiv:2305.14718",
        claim="Learning only from data that is better than expected makes offline RL stable, and noise in rewards harmless.",
        aka=("alol", "advantage_leftover_lunch"),
        note="The paper fits the value of a prompt beforehand, to the reference's own answers; here the critic "
        "learns along. Its code also draws the data by advantage.",
    ),
    "dpo": Method(
        _preference("log_ratio", Logistic(beta=0.1)),
        paper="arXiv:2305.18290",
        claim="The optimum of RL under a KL penalty, reached by classifying pairs: no reward model, no sampling.",
        aka=("direct_preference_optimization",),
        note="Equal to TRL.",
    ),
    "ipo": Method(
        _preference("log_ratio", Squared(tau=0.1)),
        paper="arXiv:2310.12036",
        claim="A target for the margin keeps the pull of the reference where preferences are certain.",
        aka=("identity_preference_optimization", "psi_po"),
        note="TRL's is ipo:mean.",
    ),
    "ipo:mean": Method(
        _preference("mean_log_ratio", Squared(tau=0.1)),
        paper="arXiv:2310.12036",
        claim="With means over the answers in the place of sums, as TRL computes it on the word of the authors.",
        note="Equal to TRL.",
    ),
    "simpo": Method(
        _preference("mean_logp", Logistic(beta=2.0, gap=0.5)),
        paper="arXiv:2405.14734",
        claim="The mean log-probability is the reward that decoding goes by, so no reference is needed.",
        aka=("simple_preference_optimization",),
        note="Equal to TRL without its NLL term.",
    ),
    "orpo": Method(
        Term(denominator=Current(), advantage=Accepted(1.0), reduce=PerCreditedToken(), on=_RATED),
        Term(
            name="odds",
            coefficient=0.1,
            denominator=Current(),
            advantage=Preferred("log_odds", Logistic(beta=1.0)),
            likelihood=Sequence(),
            reduce=SumPerGroup(),
            on=_RATED,
        ),
        paper="arXiv:2403.07691",
        claim="A small penalty by odds beside imitation of the preferred answers aligns in one stage, without a reference.",
        aka=("odds_ratio_preference_optimization",),
        note="Its code imitates the prompt's tokens, too. TRL counts the prompt's tokens, too.",
    ),
    "slic": Method(
        _preference("logp", Hinge(gap=1.0)),
        Term(
            name="nll",
            coefficient=0.1,
            denominator=Current(),
            advantage=Accepted(1.0),
            likelihood=Sequence(),
            reduce=PerCreditedToken(),
            on=_RATED,
        ),
        paper="arXiv:2305.10425",
        claim="A hinge on sequence likelihoods and some imitation match RL from feedback at a fraction of its cost.",
        aka=("slic_hf",),
        note="The target of imitation is the preferred answer, one of the choices in the paper, which does not "
        "state the coefficient; 0.1 is that of the HALOs library. TRL's hinge takes imitation as a mean over "
        "tokens.",
    ),
    "vpo": Method(
        _preference("log_ratio", Logistic(beta=0.1)),
        Term(
            name="calibrate",
            coefficient=0.01,
            denominator=Current(),
            advantage=Accepted(1.0),
            likelihood=Sequence(),
            reduce=PerCreditedToken(),
            on=_RATED,
        ),
        paper="arXiv:2405.19320",
        claim="A reward is fitted with a bias against its own optimal value, so that offline pairs are not over-optimized.",
        aka=("value_incentivized", "pessimistic_vpo"),
        note="The offline, pessimistic form. Its second term is alpha·beta times the log-likelihood of calibration answers; that "
        "these are the preferred ones, and alpha = 0.1, is ours. The online form is vpo:online. TRL adds to dpo the likelihood "
        "per token.",
    ),
    "vpo:online": Method(
        _preference("log_ratio", Logistic(beta=0.1), on=(Origin.POLICY,)),
        Term(
            name="calibrate",
            coefficient=0.01,
            denominator=Current(),
            advantage=Rejected(math.inf),
            likelihood=Sequence(),
            reduce=PerCreditedToken(),
            on=_SHOWN,
        ),
        paper="arXiv:2405.19320",
        claim="The other bias, where the pairs are the policy's own answers: it goes where calibration answers are not.",
        aka=("optimistic_vpo", "online_vpo"),
        note="The online, optimistic form. Its second term is alpha·beta times the log-likelihood of calibration answers; that "
        "these are the demonstrations, whoever wrote them, and alpha = 0.1, is ours. Each two answers to a prompt with different "
        "rewards are a pair, where the paper draws two.",
    ),
    "kto": Method(
        Term(denominator=Current(), advantage=Desirable(beta=0.1), likelihood=Sequence(), reduce=PerSequence(), on=_RATED),
        paper="arXiv:2402.01306",
        claim="Good or bad is all one needs to say of an answer: gains and losses felt as people do, no pairs.",
        aka=("kahneman_tversky_optimization",),
        note="Equal to TRL.",
    ),
}
"""Every method by its id."""


def method(name: str) -> Method:
    """The method whose id or alias is `name`; case, spaces and ``-`` do not matter.

    Raises:
        ConfigError: there is none; the nearest names are listed.
    """
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    for key, row in METHODS.items():
        if wanted == key or wanted in row.aka:
            return row
    known = [*METHODS, *(alias for row in METHODS.values() for alias in row.aka)]
    raise ConfigError(f"there is no method {name!r}: {nearest(wanted, known)}")


def id_of(row: Method) -> str:
    """The id of a row of the catalogue."""
    return next(name for name, other in METHODS.items() if other is row)
