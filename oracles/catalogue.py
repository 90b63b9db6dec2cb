"""Every row with its peers, and the rows that no peer has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from oracles import with_trl as trl
from oracles.case import (
    demonstrated,
    failing_greedily,
    graded,
    graded_twice,
    labelled,
    on_policy,
    own_pairs,
    paired_samples,
    pairs,
    ragged,
    taught,
    with_a_single,
)
from oracles.comparison import Comparison
from oracles.parts import AloneItsReward, CountingPrompts, OverRewarded
from oracles.with_verl import Actor, Critic, Distiller, Imitator
from quatrain.objective import (
    GAE,
    Accepted,
    Agreeing,
    Clip,
    Corrected,
    Current,
    DualClip,
    Old,
    PerCreditedToken,
    PerSequence,
    PerToken,
    Relative,
    StayClose,
    Term,
    Whitened,
)
from quatrain.types import Origin

_EPS = "1e-4 is added to the rewards' deviation, not 1e-6."
_DUAL = "The clip is dual: a bad action whose ratio exceeds 3 has no gradient."
_PER_TOKEN = "The mean is over the minibatch's tokens, not each group's."
_WHITENED = "Advantages are whitened over the minibatch's tokens."
_APART = "A critic that learns apart has a learning rate and no coefficient."
_REWARDED = "What is made up for is answers with a reward of 0, not groups without contrast."

_MEANS: Mapping[str, Any] = {"loss_agg_mode": "seq-mean-token-mean"}
_DAPO: Mapping[str, Any] = {"loss_type": "dapo", "epsilon_high": 0.28}
_SUMS: Mapping[str, Any] = {"loss_agg_mode": "seq-mean-token-sum"}
_ALL_DRAWN: Mapping[str, Any] = {"mask.share": 1.0, "mask.low": 0.3, "mask.high": 1.0}
_NO_DEVIATION: Mapping[str, Any] = {"norm_adv_by_std_in_grpo": False}
_TV: Mapping[str, Any] = {**_NO_DEVIATION, "bypass_mode": True, "clip_ratio_low": 0.15, "clip_ratio_high": 0.15}
_COV: Mapping[str, Any] = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.3, "clip_cov_ub": 1.0}
_GAE: Mapping[str, Any] = {"gamma": 1.0, "lam": 0.95}
_CRITIC = Critic(_GAE | {"cliprange_value": 0.2})
_UNBOUNDED = 1e9
_OPEN_KL = Term(name="kl", coefficient=0.04, denominator=Old(), advantage=StayClose("k2"), reduce=PerSequence())
_NLL = Term(
    name="nll", coefficient=0.1, denominator=Current(), advantage=Accepted(1.0), reduce=PerCreditedToken(), on=(Origin.RATED,)
)

COMPARISONS: tuple[Comparison, ...] = (
    Comparison("sft", trl.sft(), demonstrated),
    Comparison("sft", Imitator(), demonstrated),
    Comparison("dft", trl.sft(loss_type="dft"), demonstrated),
    Comparison("rft", trl.sft_on_accepted(), graded),
    Comparison("reinforce", Actor("remax", "gpg", _SUMS), failing_greedily),
    Comparison(
        "reinforce_is",
        Actor(
            "remax",
            "bypass_mode",
            {
                **_SUMS,
                "bypass_mode": True,
                "loss_type": "reinforce",
                "rollout_is": "sequence",
                "rollout_is_threshold": _UNBOUNDED,
            },
        ),
        failing_greedily,
    ),
    Comparison(
        "reinforce_pp",
        Actor("reinforce_plus_plus", settings={**_MEANS, "kl_coef": 0.01}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": DualClip()},
    ),
    Comparison(
        "reinforce_pp:code",
        Actor("reinforce_plus_plus", settings={"kl_coef": 0.01}),
        ragged,
        difference=f"{_DUAL} The deviation that whitens is the unbiased one.",
        as_theirs={"mask": DualClip(), "advantage.correction": 1},
    ),
    Comparison(
        "reinforce_pp:baseline",
        Actor(
            "reinforce_plus_plus_baseline",
            settings={**_MEANS, "use_kl_loss": True, "kl_loss_type": "k2", "kl_loss_coef": 0.01},
        ),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": DualClip()},
    ),
    Comparison(
        "rloo",
        trl.rloo(beta=0.0),
        difference="The ratio of whole sequences to π_old is clipped as PPO's.",
        as_theirs={"mask": Clip(0.2, 0.2), "denominator": Old()},
    ),
    Comparison("rloo", trl.rloo(beta=0.0), on_policy),
    Comparison("rloo", Actor("rloo", "gpg", _SUMS), ragged),
    Comparison("remax", Actor("remax", "gpg", _SUMS), ragged),
    Comparison("opo", Actor("opo", "gpg", _SUMS), ragged),
    Comparison("opo:code", Actor("opo", "gpg"), ragged),
    Comparison(
        "gpg",
        Actor("gpg", "gpg"),
        graded,
        difference=f"{_PER_TOKEN} {_REWARDED}",
        as_theirs={"reduce": OverRewarded(PerToken())},
    ),
    Comparison("gpg:code", Actor("gpg", "gpg"), graded, difference=_REWARDED, as_theirs={"reduce": OverRewarded(PerToken())}),
    Comparison(
        "grpo",
        trl.grpo(loss_type="grpo", beta=0.04),
        difference=f"{_EPS} The KL is multiplied by the ratio, which makes its gradient that of KL(π_θ‖π_ref); "
        "use_bias_correction_kl=False leaves it.",
        as_theirs={"advantage.eps": 1e-4, "kl": _OPEN_KL},
    ),
    Comparison(
        "grpo",
        trl.grpo(loss_type="grpo", beta=0.04, use_bias_correction_kl=False),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "grpo",
        Actor("grpo", settings={**_MEANS, "use_kl_loss": True, "kl_loss_coef": 0.04}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": DualClip()},
    ),
    Comparison(
        "grpo",
        Actor("grpo", settings={**_MEANS, "use_kl_loss": True, "kl_loss_coef": 0.04, "clip_ratio_c": _UNBOUNDED}),
        with_a_single,
        difference="A prompt's only answer has its reward for an advantage, and not 0.",
        as_theirs={"advantage": AloneItsReward()},
    ),
    Comparison(
        "dr_grpo",
        trl.grpo(loss_type="dr_grpo", scale_rewards="none", max_completion_length=256),
        difference="The sum over an answer is divided by max_completion_length.",
        as_theirs={"reduce.tokens": 256},
    ),
    Comparison(
        "dr_grpo",
        Actor("grpo", settings=_SUMS | _NO_DEVIATION),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": DualClip()},
    ),
    Comparison("dr_grpo:code", trl.grpo(loss_type="dr_grpo", scale_rewards="none", max_completion_length=3000)),
    Comparison(
        "dr_grpo:code",
        Actor("grpo", settings=_NO_DEVIATION | {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": 3000}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": DualClip()},
    ),
    Comparison(
        "bnpo",
        trl.grpo(loss_type="bnpo", epsilon_high=0.28),
        graded,
        difference="What bears the name is a mean over the tokens of a device's batch; the advantage is GRPO's.",
        as_theirs={"advantage": Relative(scale="group", eps=1e-4), "reduce": PerToken()},
    ),
    Comparison(
        "lite_ppo",
        trl.grpo(loss_type="dapo", scale_rewards="batch"),
        difference=f"{_PER_TOKEN} {_EPS}",
        as_theirs={"advantage.eps": 1e-4, "reduce": PerToken()},
    ),
    Comparison(
        "gdpo",
        trl.grpo(loss_type="dapo", multi_objective_aggregation="normalize_then_sum", reward_weights=[1.0, 0.5]),
        graded_twice,
        difference="The mean is over the minibatch's tokens. 1e-4 is added to the deviations, not 1e-6.",
        as_theirs={"advantage.of.eps": 1e-4, "advantage.whole.eps": 1e-4, "reduce": PerToken()},
    ),
    Comparison("gdpo:code", Actor("gdpo"), graded_twice, difference=_DUAL, as_theirs={"mask": DualClip()}),
    Comparison(
        "dapo",
        trl.grpo(loss_type="dapo", epsilon_high=0.28),
        difference=f"{_PER_TOKEN} {_EPS}",
        as_theirs={"advantage.eps": 1e-4, "reduce": PerToken()},
    ),
    Comparison(
        "dapo",
        Actor("grpo", settings={"clip_ratio_high": 0.28}),
        ragged,
        difference=f"{_PER_TOKEN} {_DUAL}",
        as_theirs={"mask": DualClip(0.2, 0.28), "reduce": PerToken()},
    ),
    Comparison(
        "dapo:code",
        trl.grpo(loss_type="dapo", epsilon_high=0.28, delta=10.0),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison("dapo:code", Actor("grpo", settings={"clip_ratio_high": 0.28, "clip_ratio_c": 10.0}), ragged),
    Comparison("dual_clip", Actor("gae", settings=_GAE), ragged, difference=_WHITENED, as_theirs={"advantage": Whitened(GAE())}),
    Comparison("dual_clip", _CRITIC, ragged, difference=_APART, as_theirs={"value.coefficient": 1.0}, target="value"),
    Comparison(
        "gspo",
        trl.grpo(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison("gspo", Actor("grpo", "gspo", {**_MEANS, "clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}), ragged),
    Comparison(
        "luspo",
        trl.grpo(loss_type="luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison("luspo", Actor("grpo", "gspo", {**_SUMS, "clip_ratio_low": 2e-3, "clip_ratio_high": 2.5e-3}), ragged),
    Comparison("gmpo", trl.gmpo(), difference=_EPS, as_theirs={"advantage.eps": 1e-4}),
    Comparison("gmpo", Actor("grpo", "geo_mean", {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}), ragged),
    Comparison(
        "cispo",
        trl.grpo(loss_type="cispo", epsilon_high=5.0),
        difference=f"{_PER_TOKEN} {_EPS}",
        as_theirs={"advantage.eps": 1e-4, "reduce": PerToken()},
    ),
    Comparison(
        "cispo",
        Actor("grpo", "cispo", {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0}),
        ragged,
        difference=_PER_TOKEN,
        as_theirs={"reduce": PerToken()},
    ),
    Comparison("sapo", trl.grpo(loss_type="sapo"), difference=_EPS, as_theirs={"advantage.eps": 1e-4}),
    Comparison("sapo", Actor("grpo", "sapo"), ragged),
    Comparison(
        "clip_cov",
        Actor(
            "grpo",
            "clip_cov",
            {**_COV, "clip_ratio_low": 1.0, "clip_ratio_high": _UNBOUNDED},
        ),
        ragged,
        at=_ALL_DRAWN,
    ),
    Comparison(
        "clip_cov:code",
        Actor(
            "grpo",
            "clip_cov",
            {**_COV, "clip_ratio_low": 1.0, "clip_ratio_high": 1.0},
        ),
        ragged,
        at=_ALL_DRAWN,
    ),
    Comparison(
        "kl_cov",
        Actor("grpo", "kl_cov", {"kl_cov_ratio": 0.2, "ppo_kl_coef": 1.0}),
        ragged,
        at={"kl.mask.share": 0.2},
        difference="The penalty is the size of the log-ratio, as in the authors' code.",
        as_theirs={"kl.advantage.estimator": "abs"},
    ),
    Comparison(
        "kl_cov:code",
        Actor("grpo", "kl_cov", {"kl_cov_ratio": 0.2, "ppo_kl_coef": 1.0}),
        ragged,
        at={"kl.mask.share": 0.2},
    ),
    Comparison(
        "tis",
        trl.grpo_with_vllm(
            loss_type="dapo",
            epsilon_high=0.28,
            vllm_importance_sampling_mode="token_truncate",
            vllm_importance_sampling_clip_max=2.0,
        ),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "tis",
        Actor("grpo", settings={"clip_ratio_high": 0.28, "rollout_is": "token", "rollout_is_threshold": 2.0}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Corrected(2.0, of=DualClip(0.2, 0.28))},
    ),
    Comparison(
        "seq_tis",
        trl.grpo_with_vllm(**_DAPO, vllm_importance_sampling_mode="sequence_truncate", vllm_importance_sampling_clip_max=2.0),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "seq_tis",
        Actor("grpo", settings={"clip_ratio_high": 0.28, "rollout_is": "sequence", "rollout_is_threshold": 2.0}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Corrected(2.0, "sequence", DualClip(0.2, 0.28))},
    ),
    Comparison(
        "mis",
        trl.grpo_with_vllm(**_DAPO, vllm_importance_sampling_mode="token_mask", vllm_importance_sampling_clip_max=2.0),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "mis",
        Actor("grpo", settings={"clip_ratio_high": 0.28, "rollout_is": "token", "rollout_is_threshold": "1e-9_2.0"}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Agreeing(0.0, 2.0, of=Corrected(math.inf, of=DualClip(0.2, 0.28)))},
    ),
    Comparison(
        "mis:sequence",
        trl.grpo_with_vllm(**_DAPO, vllm_importance_sampling_mode="sequence_mask", vllm_importance_sampling_clip_max=2.0),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "mis:sequence",
        Actor("grpo", settings={"clip_ratio_high": 0.28, "rollout_is": "sequence", "rollout_is_threshold": "1e-9_2.0"}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Agreeing(0.0, 2.0, "sequence", Corrected(math.inf, "sequence", DualClip(0.2, 0.28)))},
    ),
    Comparison(
        "icepop",
        trl.grpo_with_vllm(
            loss_type="grpo",
            vllm_importance_sampling_mode="token_mask",
            vllm_importance_sampling_clip_min=0.5,
            vllm_importance_sampling_clip_max=5.0,
        ),
        difference=_EPS,
        as_theirs={"advantage.eps": 1e-4},
    ),
    Comparison(
        "icepop",
        Actor("grpo", settings={**_MEANS, "rollout_is": "token", "rollout_is_threshold": "0.5_5.0"}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Agreeing(of=Corrected(math.inf, of=DualClip()))},
    ),
    Comparison(
        "decoupled_ppo",
        Actor("gae", settings={**_GAE, "rollout_is": "token", "rollout_is_threshold": _UNBOUNDED}),
        ragged,
        difference=f"{_WHITENED} {_DUAL}",
        as_theirs={"mask": Corrected(math.inf, of=DualClip()), "advantage": Whitened(GAE())},
    ),
    Comparison("decoupled_ppo", _CRITIC, ragged, difference=_APART, as_theirs={"value.coefficient": 1.0}, target="value"),
    Comparison(
        "areal",
        Actor("reinforce_plus_plus", settings={"rollout_is": "token", "rollout_is_threshold": _UNBOUNDED}),
        ragged,
        difference=_DUAL,
        as_theirs={"mask": Corrected(math.inf, of=DualClip())},
    ),
    Comparison(
        "dppo_tv",
        Actor("grpo", "dppo_tv", {**_TV, **_SUMS, "clip_ratio_c": _UNBOUNDED}),
        ragged,
    ),
    Comparison(
        "dppo_tv:code",
        Actor("grpo", "dppo_tv", {**_TV, "clip_ratio_c": 10.0}),
        ragged,
    ),
    Comparison(
        "ppo",
        Actor("gae", settings=_GAE),
        ragged,
        difference=f"{_WHITENED} {_DUAL}",
        as_theirs={"mask": DualClip(), "advantage": Whitened(GAE())},
    ),
    Comparison("ppo", _CRITIC, ragged, difference=_APART, as_theirs={"value.coefficient": 1.0}, target="value"),
    Comparison(
        "implicit_prm",
        trl.dpo(loss_type=["bco_pair"], beta=0.05),
        paired_samples,
        difference="The two answers of a pair are added up; the row takes their mean.",
        as_theirs={"coefficient": 2.0},
    ),
    Comparison("istar_prm", trl.dpo(beta=0.05), own_pairs),
    Comparison(
        "opd",
        Distiller({"loss_mode": "k1", "use_task_rewards": False}),
        taught,
        difference="The teacher is compared with π_θ as it is now, under a dual clip of the ratio to π_old.",
        as_theirs={"mask": DualClip(), "denominator": Old(), "advantage": StayClose("k2")},
    ),
    Comparison("dpo", trl.dpo(), pairs),
    Comparison(
        "ipo",
        trl.dpo(loss_type=["ipo"]),
        pairs,
        difference="Log-ratios are means over an answer, not sums.",
        as_theirs={"advantage.score": "mean_log_ratio"},
    ),
    Comparison("ipo:mean", trl.dpo(loss_type=["ipo"]), pairs),
    Comparison("simpo", trl.cpo(loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0), pairs),
    Comparison(
        "orpo",
        trl.orpo(),
        pairs,
        difference=f"The imitation counts the tokens of prompts, too; here {trl.PROMPT - 1} of each are predicted.",
        as_theirs={"reduce": CountingPrompts(trl.PROMPT - 1)},
    ),
    Comparison(
        "slic",
        trl.cpo(loss_type="hinge", beta=1.0, cpo_alpha=0.1),
        pairs,
        difference="The imitation is a mean over the preferred answers' tokens.",
        as_theirs={"nll": _NLL},
    ),
    Comparison(
        "vpo",
        trl.dpo(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.01]),
        pairs,
        difference="The likelihood of the preferred answers is a mean over their tokens.",
        as_theirs={"calibrate": replace(_NLL, name="calibrate", coefficient=0.01)},
    ),
    Comparison("kto", trl.kto(), labelled),
)
"""In the order of the catalogue."""

NO_PEER: Mapping[str, str] = MappingProxyType(
    {
        "spae": "Neither asks for the answer after each step.",
        "spear": "Neither replays a run's own answers.",
        "kepo": "TRL's divergence with a teacher is one over the whole vocabulary, and neither has a gate.",
        "oblr_po": "verl weighs rewards by gradients for a baseline of each token, up to it; neither for one of the answer.",
        "max_rl": "Neither divides by a group's mean reward.",
        "qwenlong_l1_5": "Neither has a deviation of each task.",
        "aepo": "Neither has a deviation of each task, nor a switch by entropy.",
        "grpo_lambda_length": "Neither switches a reward by how well a group does.",
        "guirlvg": "Neither weighs a KL penalty by the reward.",
        "rapo": "Neither flattens the reference policy by the reward.",
        "selective": "Neither drops prompts by their greedy answer.",
        "gfpo": "Neither filters a group before its statistics.",
        "mhpo": "Neither damps a ratio by a hazard.",
        "r2vpo": "Neither penalizes the variance of the ratio.",
        "r2vpo:fixed": "Neither penalizes the variance of the ratio.",
        "c3po": "Neither fills a budget of tokens.",
        "ce_gppo": "Neither keeps a gradient of what its clip would block and scales it.",
        "intuitor": "Neither has a reward that the policy's own distributions give.",
        "em_rl": "Neither has a reward that the policy's own distributions give.",
        "mini_rl": "Neither has two ratios, one to weigh by and one to clip.",
        "hispo": "TRL has one gate, and those of verl are a step of its trainer and not of a loss.",
        "p1_vl": "TRL's gate goes by the product, and verl's by the mean is a step of its trainer and not of a loss.",
        "minpro": "Neither reads the ratios of a token's prefix.",
        "bapo": "Neither searches for the bounds of its clip.",
        "bapo:code": "Neither searches for the bounds of its clip; the authors' code is a recipe beside a copy of verl.",
        "topr": "Neither tapers good and bad answers apart.",
        "alp": "Neither has noise in the network.",
        "alp:sequence": "Neither has noise in the network.",
        "vapo": "verl's GAE has one λ for all answers, and neither adds the likelihood of correct ones.",
        "ui_tars_2": "verl's GAE has one λ for all answers.",
        "flowrl": "TRL has no learned log Z, and verl none in its package.",
        "flowrl:code": "TRL has no learned log Z, and verl none in its package.",
        "prime": "verl's package has its verifiers, and neither has its process reward.",
        "rank_grpo": "Neither has a ratio or a reward of a part of an answer.",
        "rank_grpo:code": "Neither has a ratio or a reward of a part of an answer.",
        "istar": "Neither has a process reward that learns.",
        "luffy": "Neither mixes demonstrations into a group.",
        "luffy:code": "Neither mixes demonstrations into a group.",
        "srft": "Neither weighs by entropy.",
        "hpt": "Neither chooses between imitation and reinforcement by the prompt.",
        "hpt:soft": "Neither chooses between imitation and reinforcement by the prompt.",
        "hpt:code": "Neither chooses between imitation and reinforcement by the prompt.",
        "vpo:online": "TRL's online DPO has no calibration answers.",
        "a_lol": "Neither learns offline from advantages over the reference policy.",
    }
)
"""Rows that neither peer has, and why."""
