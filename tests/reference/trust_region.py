"""Published losses: surrogates that bound how far one update goes."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.distributions import Beta

from tests.reference.answers import (
    STD_EPS,
    Answer,
    Answers,
    centred,
    clipped,
    deviation,
    gae,
    group,
    groups,
    mean,
    mean_of_tokens,
    ratio,
    replayed,
    rewards,
    sampled,
    z_score,
)


def _k3(answer: Answer) -> Tensor:
    """π_ref/π_θ − log(π_ref/π_θ) − 1: arXiv:2402.03300, eq. 4."""
    return torch.exp(answer.logp_ref - answer.logp) - (answer.logp_ref - answer.logp) - 1


def grpo(answers: Answers, eps: float = 0.2, beta: float = 0.04) -> Tensor:
    """1/G Σᵢ 1/|oᵢ| Σₜ {min[r Â, clip(r, 1−ε, 1+ε) Â] − β D_KL}: arXiv:2402.03300, eq. 3; D_KL is its eq. 4."""
    answers = sampled(answers)
    return -mean((clipped(ratio(a), z_score(a, answers), eps, eps) - beta * _k3(a)).mean() for a in answers)


def guirlvg(answers: Answers, eps: float = 0.2, beta: float = 1e-4, most: float = 1.0) -> Tensor:
    """Jᵢ = min[r Â, clip(r) Â] − αᵢ β KL(oᵢ‖oᵢʳᵉᶠ), αᵢ = rᵢ/m: arXiv:2508.04389; means and KL as in GRPO."""
    answers = sampled(answers)
    return -mean((clipped(ratio(a), z_score(a, answers), eps, eps) - a.reward / most * beta * _k3(a)).mean() for a in answers)


def rapo(answers: Answers, eps: float = 0.2, alpha: float = 0.01, beta: float = 0.001, least: float = 0.5) -> Tensor:
    """1/G Σᵢ {gᵢ − α (ρ log ρ − ρ + 1) + β H}, ρ = π_ref^φ(R)/π_θ by token and without Z: arXiv:2510.03865; φ is a line."""
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        exponent = least + (1 - least) * answer.reward.clamp(0, 1)
        log_rho = exponent * answer.logp_ref - answer.logp
        forward = torch.exp(log_rho) * (log_rho - 1) + 1
        return clipped(ratio(answer), z_score(answer, answers), eps, eps) - alpha * forward + beta * answer.entropy

    return -mean(objective(a).mean() for a in answers)


def selective(answers: Answers, eps: float = 0.2, beta: float = 0.04, threshold: float = 1.0) -> Tensor:
    """GRPO on the prompts whose greedy answer has not the reward 1: arXiv:2510.02230; others are in 1/G alone. KL as in GRPO."""
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        solved = answer.reward_greedy >= threshold
        learned = clipped(ratio(answer), z_score(answer, answers), eps, eps) - beta * _k3(answer)
        return (learned * 0 if solved else learned).mean()

    return -mean(objective(a) for a in answers)


def intuitor(answers: Answers, eps: float = 0.2, beta: float = 0.005) -> Tensor:
    """GRPO on uᵢ = 1/|oᵢ| Σₜ KL(U‖π_old), Âᵢ = (uᵢ − mean(u)) / std(u): arXiv:2505.19590, section 3.2."""
    return grpo([replace(a, reward=a.certainty.mean()) for a in sampled(answers)], eps, beta)


def dr_grpo(answers: Answers, eps: float = 0.2, tokens: float = 1.0) -> Tensor:
    """GRPO without 1/|oᵢ|, without std and without KL, Âᵢ = Rᵢ − mean(R): arXiv:2503.20783, section 3.2."""
    answers = sampled(answers)
    return -mean(clipped(ratio(a), centred(a, answers), eps, eps).sum() / tokens for a in answers)


def dr_grpo_code(answers: Answers) -> Tensor:
    """The same over the generation budget, 3000 tokens in the authors' scripts."""
    return dr_grpo(answers, tokens=3000)


def lite_ppo(answers: Answers, eps: float = 0.2) -> Tensor:
    """1/Σ|oᵢ| Σᵢ Σₜ min[s A, clip(s) A], A = (R − mean of the group) / std of all rewards: arXiv:2508.08221."""
    answers = sampled(answers)
    spread = deviation(rewards(answers)) + STD_EPS
    return -mean(mean_of_tokens(clipped(ratio(a), centred(a, g) / spread, eps, eps) for a in g) for g in groups(answers))


def qwenlong_l1_5(answers: Answers, std_eps: float = STD_EPS) -> Tensor:
    """1/Σ|yᵢ| Σᵢ Aᵢ Σₜ ρ, Aᵢ = (R − mean of the group) / std of the rewards of all samples of its task: arXiv:2512.12967."""
    answers = sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        alike = [a for a in answers if a.task == answer.task]
        return centred(answer, answers) / (deviation(rewards(alike)) + std_eps)

    return -mean(mean_of_tokens(ratio(a) * advantage(a) for a in g) for g in groups(answers))


def aepo(answers: Answers, low: float = 0.1, high: float = 0.3, std_eps: float = STD_EPS) -> Tensor:
    """The same over Aᵢ > 0 alone if H > high, H the mean of the answers' mean entropies; all answers were learned from before."""
    answers = sampled(answers)
    entropy = float(mean(a.entropy_old.mean() for a in answers))
    assert low <= high
    if entropy <= high:
        return qwenlong_l1_5(answers, std_eps)

    def kept(answer: Answer) -> Tensor:
        alike = [a for a in answers if a.task == answer.task]
        return (centred(answer, answers) / (deviation(rewards(alike)) + std_eps)).clamp(min=0)

    return -mean(mean_of_tokens(ratio(a) * kept(a) for a in g) for g in groups(answers))


def gdpo(answers: Answers, eps: float = 0.2, std_eps: float = STD_EPS) -> Tensor:
    """GRPO's objective with (A_sum − mean A_sum) / std A_sum over the batch: arXiv:2601.05242; A_sum as in `_summed`."""
    answers = sampled(answers)
    summed = torch.stack([_summed(a, answers, std_eps) for a in answers])
    advantages = (summed - summed.mean()) / (deviation(summed) + std_eps)
    return -mean(clipped(ratio(a), advantage, eps, eps).mean() for a, advantage in zip(answers, advantages, strict=True))


def gdpo_code(answers: Answers, eps: float = 0.2, std_eps: float = 1e-8) -> Tensor:
    """The same whitened over tokens, as a mean over tokens."""
    answers = sampled(answers)
    advantages = _whitened([_summed(a, answers, STD_EPS).expand(len(a.logp)) for a in answers], lambda x: x.std() + std_eps)
    return -mean_of_tokens(clipped(ratio(a), advantage, eps, eps) for a, advantage in zip(answers, advantages, strict=True))


def _summed(answer: Answer, answers: Answers, std_eps: float) -> Tensor:
    """A_sum = Σₙ wₙ Aₙ, Aₙ = (rₙ − mean of the group) / std of the group."""
    own = torch.stack([a.parts for a in group(answer, answers)])
    spread = torch.stack([deviation(column) for column in own.T])
    return (answer.part_weights * (answer.parts - own.mean(0)) / (spread + std_eps)).sum()


def grpo_lambda_length(
    answers: Answers, eps: float = 0.2, lam: float = 0.2, alpha: float = 0.6, correct: float = 1.0, std_eps: float = 1e-6
) -> Tensor:
    """GRPO on r = 1 − α σ((L − mean L)/std L) if correct else 0 in the λ groups of most correct answers, else 1 or 0.

    arXiv:2505.18086. The mean and the standard deviation of L are over the correct answers of the group; groups with as many
    correct ones as the last of the λ are among them.
    """
    found = groups(sampled(answers))
    shares = [sum(bool(a.reward >= correct) for a in own) / len(own) for own in found]
    least = sorted(shares, reverse=True)[max(math.ceil(lam * len(found)), 1) - 1]

    def switched(answer: Answer, own: Answers, share: float) -> Answer:
        if answer.reward < correct:
            return replace(answer, reward=torch.zeros_like(answer.reward))
        lengths = torch.tensor([float(len(a.logp)) for a in own if a.reward >= correct], dtype=torch.float64)
        penalty = alpha * torch.sigmoid((len(answer.logp) - lengths.mean()) / (deviation(lengths) + std_eps))
        return replace(answer, reward=1 - penalty * (share >= least and lam > 0))

    return grpo([switched(a, own, share) for own, share in zip(found, shares, strict=True) for a in own], eps, beta=0.0)


def alp(answers: Answers, low: float = 0.5, high: float = 3.0) -> Tensor:
    """min[ρ Â, clip(ρ, 1−low, 1+high) Â], ρ = π_θ,δ/π_infer by token: arXiv:2603.19470; π_θ,δ is the noisy network."""
    answers = sampled(answers)
    return -mean_of_tokens(clipped(_to_engine(a).exp(), z_score(a, answers), low, high) for a in answers)


def alp_sequence(answers: Answers, low: float = 0.5, high: float = 3.0) -> Tensor:
    """The same with the ratio of whole answers, 1/G Σᵢ."""
    answers = sampled(answers)
    return -mean(clipped(_to_engine(a).sum().exp(), z_score(a, answers), low, high) for a in answers)


def _to_engine(answer: Answer) -> Tensor:
    return answer.logp - answer.logp_rollout


def bnpo(answers: Answers, low: float = 0.2, high: float = 0.28) -> Tensor:
    """A = (R − p)/f(p; α, β), f a Beta density fitted to the p of all prompts: arXiv:2506.02864.

    Bounds, clip and sum are those of its code. α = max(1, 1 + a/3) and β = max(1, 1 + b/3), where Beta(a, b) has the mean and the
    (unbiased) variance of the p.
    """
    answers = sampled(answers)
    rates = torch.stack([rewards(g).mean() for g in groups(answers)])
    alpha = beta = torch.ones_like(rates[0])
    if len(rates) > 1 and rates.var() > 0:
        total = rates.mean() * (1 - rates.mean()) / rates.var() - 1
        alpha, beta = (1 + share * total / 3 for share in (rates.mean(), 1 - rates.mean()))
    density = Beta(alpha.clamp(min=1), beta.clamp(min=1))

    def advantage(answer: Answer) -> Tensor:
        own = rewards(group(answer, answers))
        if (own == own[0]).all():
            return torch.zeros_like(own[0])
        return (answer.reward - own.mean()) * (1 / density.log_prob(own.mean()).exp()).clamp(max=1e6)

    return -mean(clipped(ratio(a), advantage(a), low, high).sum() for a in answers)


def dapo(answers: Answers, low: float = 0.2, high: float = 0.28) -> Tensor:
    """Clip-higher and the token-level mean: arXiv:2503.14476, eq. 8: 1/Σ|oᵢ| is of a group, the expectation over prompts."""
    answers = sampled(answers)
    return -mean(mean_of_tokens(clipped(ratio(a), z_score(a, g), low, high) for a in g) for g in groups(answers))


def dapo_code(answers: Answers, low: float = 0.2, high: float = 0.28, bound: float = 10.0) -> Tensor:
    """The same with 1/Σ|oᵢ| of the minibatch and the dual clip of the library that it runs in."""
    answers = sampled(answers)
    return -mean_of_tokens(_dual_clipped(ratio(a), z_score(a, answers), low, high, bound) for a in answers)


def _dual_clipped(ratio: Tensor, advantage: Tensor, low: float, high: float, bound: float) -> Tensor:
    """max(min(r Â, clip(r) Â), c Â) where Â < 0: arXiv:1912.09729, section 3.4."""
    plain = clipped(ratio, advantage, low, high)
    return torch.where(advantage < 0, torch.maximum(plain, bound * advantage), plain)


def gspo(answers: Answers, low: float = 3e-4, high: float = 4e-4) -> Tensor:
    """1/G Σᵢ min(sᵢ Âᵢ, clip(sᵢ) Âᵢ), sᵢ = (π_θ(yᵢ)/π_old(yᵢ))^(1/|yᵢ|): arXiv:2507.18071, eq. 5 and 7; range of section 5.1."""
    answers = sampled(answers)
    return -mean(clipped(_geometric_mean(a), z_score(a, answers), low, high) for a in answers)


def _geometric_mean(answer: Answer) -> Tensor:
    return torch.exp((answer.logp - answer.logp_old).sum() / len(answer.logp))


def rank_grpo(answers: Answers, low: float = 0.06, high: float = 0.08, beta: float = 0.001, std_eps: float = STD_EPS) -> Tensor:
    """1/G Σᵢ 1/N Σₖ min(w Â, clip(w) Â) − β D_KL, w = (π_θ(yₖ)/π_old(yₖ))^(1/|yₖ|), Â by rank: arXiv:2510.20150.

    A rank is a turn. D_KL is GRPO's, a mean over the tokens of each answer.
    """
    answers = sampled(answers)
    objectives = [
        mean(clipped(*_rank(a, k, answers, std_eps), low, high) for k in a.turn.unique()) - beta * _k3(a).mean() for a in answers
    ]
    return -mean(objectives)


def rank_grpo_code(answers: Answers, low: float = 0.06, high: float = 0.08, beta: float = 0.001, std_eps: float = 1e-4) -> Tensor:
    """The same as a mean over tokens, each with the loss of its rank: the authors' trainer."""
    answers = sampled(answers)

    def of_tokens(answer: Answer) -> Tensor:
        ranks = {int(k): clipped(*_rank(answer, k, answers, std_eps), low, high) for k in answer.turn.unique()}
        return torch.stack([ranks[int(k)] for k in answer.turn]) - beta * _k3(answer)

    return -mean_of_tokens(of_tokens(a) for a in answers)


def _rank(answer: Answer, k: Tensor, answers: Answers, std_eps: float) -> tuple[Tensor, Tensor]:
    """w and Â = (r − mean)/std over the group's answers that have this rank; 0 where all are equal."""
    own = answer.turn == k
    weight = torch.exp((answer.logp - answer.logp_old)[own].mean())
    rivals = torch.stack([a.turn_reward[a.turn == k][0] for a in group(answer, answers) if (a.turn == k).any()])
    if (rivals == rivals[0]).all():
        return weight, torch.zeros_like(rivals[0])
    return weight, (answer.turn_reward[own][0] - rivals.mean()) / (deviation(rivals) + std_eps)


def luspo(answers: Answers, low: float = 2e-3, high: float = 2.5e-3) -> Tensor:
    """1/G Σᵢ min(sᵢ Âᵢ, clip(sᵢ) Âᵢ)·|yᵢ|, sᵢ as in GSPO: arXiv:2602.05261; range of section 5.1."""
    answers = sampled(answers)
    return -mean(clipped(_geometric_mean(a), z_score(a, answers), low, high) * len(a.logp) for a in answers)


def gmpo(answers: Answers, low: float = 0.4, high: float = 0.4) -> Tensor:
    """1/G Σᵢ {Πₜ (min[ρˢ, clip(ρˢ, e⁻ˡᵒʷ, eʰⁱᵍʰ)])ˢ}^(1/|oᵢ|) Âᵢ, s = sgn(Âᵢ): arXiv:2507.20673, eq. 4, with e^±0.4.

    For Â < 0, ρˢ = 1/ρ is bounded by the inverse of the lower bound; the paper's two bounds are each other's inverse.
    """
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        advantage = z_score(answer, answers)
        sign = advantage.sign()
        powered = ratio(answer) ** sign
        farthest = high if sign > 0 else low
        bounded = torch.minimum(powered, powered.clamp(max=math.exp(farthest)))
        return (bounded**sign).prod() ** (1 / len(powered)) * advantage

    return -mean(objective(a) for a in answers)


def gfpo(answers: Answers, eps: float = 0.2, beta: float = 0.001, entropy: float = 0.001, share: float = 0.5) -> Tensor:
    """1/Σ|oᵢ| Σᵢ Σₜ min[r Â, clip(r) Â] − β D_KL + γ H, Σ|oᵢ| of a whole group: arXiv:2508.09726, eq. 2 and algorithm 1.

    Â is the z-score, by the biased deviation, among the shortest answers of a group, and 0 for the others; an answer that is as
    short as the last one chosen is chosen, too. D_KL is that to the reference policy.
    """

    def surrogate(answer: Answer, own: Answers) -> Tensor:
        count = math.ceil(share * len(own))
        longest = sorted(len(a.logp) for a in own)[count - 1]
        if len(answer.logp) > longest:
            return torch.zeros_like(answer.logp)
        kept = rewards([a for a in own if len(a.logp) <= longest])
        advantage = (answer.reward - kept.mean()) / (kept.std(correction=0) + STD_EPS)
        return clipped(ratio(answer), advantage, eps, eps)

    return -mean(
        mean_of_tokens(surrogate(a, own) - beta * _k3(a) + entropy * a.entropy for a in own) for own in groups(sampled(answers))
    )


def cispo(answers: Answers, low: float = 0.0, high: float = 5.0) -> Tensor:
    """1/Σ|oᵢ| Σᵢ Σₜ sg(r̂) Â log π_θ with r̂ = clip(r, low, high): arXiv:2506.13585, eq. 4 and 5; 1/Σ|oᵢ| as in `dapo`."""

    def objective(answer: Answer, own: Answers) -> Tensor:
        return ratio(answer).clamp(low, high).detach() * z_score(answer, own) * answer.logp

    return -mean(mean_of_tokens(objective(a, own) for a in own) for own in groups(sampled(answers)))


def sapo(answers: Answers, positive: float = 1.0, negative: float = 1.05) -> Tensor:
    """1/G Σᵢ 1/|yᵢ| Σₜ f(r) Â, f(x) = σ(τ(x − 1))·4/τ, τ by the sign of Â: arXiv:2511.20347, eq. 5."""
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        advantage = z_score(answer, answers)
        tau = positive if advantage > 0 else negative
        x = tau * (ratio(answer) - 1)
        sigmoid = torch.where(x > 0, 1 - torch.sigmoid(-x), torch.sigmoid(x))  # so that autograd loses no digits near 1
        return (sigmoid * 4 / tau * advantage).mean()

    return -mean(objective(a) for a in answers)


def ce_gppo(answers: Answers, low: float = 0.2, high: float = 0.2, below: float = 0.5, above: float = 1.0) -> Tensor:
    """1/Σ|yᵢ| Σᵢ Σₜ ℓ, ℓ = β₁ (1−ε)/sg(δ) δ Â if δ < 1−ε and Â < 0, β₂ (1+ε)/sg(δ) δ Â if δ > 1+ε and Â > 0, else δ Â.

    arXiv:2509.20712, eq. 8; ε is that of section 4.1 on both sides, the β those of its Limitations; 1/Σ|yᵢ| as in `dapo`.
    """

    def objective(answer: Answer, own: Answers) -> Tensor:
        delta, advantage = ratio(answer), z_score(answer, own)
        whole = delta / delta.detach()
        if advantage < 0:
            delta = torch.where(delta < 1 - low, below * (1 - low) * whole, delta)
        if advantage > 0:
            delta = torch.where(delta > 1 + high, above * (1 + high) * whole, delta)
        return delta * advantage

    return -mean(mean_of_tokens(objective(a, own) for a in own) for own in groups(sampled(answers)))


def mhpo(
    answers: Answers,
    bound: float = 1.5,
    rise: tuple[float, float] = (1.5, 1.0),
    fall: tuple[float, float] = (2.0, 0.8),
) -> Tensor:
    """1/K Σᵢ 1/Tᵢ Σₜ exp(ψ(r) − ζ(sg[ψ])) Â, ψ = c tanh(log r / c): arXiv:2603.16929.

    ζ = (softplus(ψ)/λ₊)^k₊ + (softplus(−ψ)/λ₋)^k₋; `rise` is (k₊, λ₊), `fall` (k₋, λ₋).
    """
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        seeming = bound * torch.tanh((answer.logp - answer.logp_old) / bound)
        up, down = (torch.log1p(torch.exp(x)) for x in (seeming.detach(), -seeming.detach()))
        hazard = (up / rise[1]) ** rise[0] + (down / fall[1]) ** fall[0]
        return (torch.exp(seeming - hazard) * z_score(answer, answers)).mean()

    return -mean(objective(a) for a in answers)


def r2vpo(answers: Answers, lam: float = 2.5) -> Tensor:
    """E[ρ Â − λ (ρ − 1)²]: arXiv:2601.03320, λ as it is at this update; the expectation and Â are GRPO's."""
    answers = sampled(answers)
    return -mean((ratio(a) * z_score(a, answers) - lam * (ratio(a) - 1) ** 2).mean() for a in answers)


def r2vpo_price(answers: Answers, lam: float, rate: float, delta: float) -> float:
    """max(0, λ + η (E[(ρ − 1)²] − δ)): arXiv:2601.03320, λ for the next update; the expectation is that of `r2vpo`."""
    return max(0.0, lam + rate * (float(mean(((ratio(a) - 1) ** 2).mean() for a in sampled(answers))) - delta))


def c3po(answers: Answers, budget: float = 409_600.0, eps: float = 0.2, beta: float = 0.001, entropy: float = 0.0005) -> Tensor:
    """1/Φ Σ_{y in Ψ} Σₜ {min[r Â, clip(r) Â] − β D_KL + α H}: arXiv:2506.14731; Ψ is filled, after Â, until Σ|y| reaches Φ.

    In the order of the answers; D_KL is that of `grpo`, and the entropy that of the tokens that take part.
    """
    answers = sampled(answers)
    total, spent = torch.zeros(()), 0
    for answer in answers:
        if spent >= budget:
            break
        spent += len(answer.logp)
        surrogate = clipped(ratio(answer), z_score(answer, answers), eps, eps)
        total = total + (surrogate - beta * _k3(answer) + entropy * answer.entropy).sum()
    return -total / budget


def _covariance(answers: Answers) -> Tensor:
    """(log π_θ(yᵢ) − mean)·(A(yᵢ) − mean) of all tokens: arXiv:2505.22617, eq. 10."""
    logp = torch.cat([a.logp for a in answers]).detach()
    advantage = _of_tokens(z_score, answers)
    return (logp - logp.mean()) * (advantage - advantage.mean())


def _of_tokens(advantage: Callable[[Answer, Answers], Tensor], answers: Answers) -> Tensor:
    return torch.cat([advantage(a, answers).expand(len(a.logp)) for a in answers])


def clip_cov(answers: Answers, share: float = 2e-4, low: float = 1.0, high: float = 5.0, eps: float | None = None) -> Tensor:
    """E[r A], without the tokens drawn among those with low ≤ Cov ≤ high: arXiv:2505.22617, eq. 10 to 12.

    ⌊share·N⌋ are drawn; at least one where there is any, as in the authors' code. With `eps`, beside PPO's clip, as there: what
    that has clipped is not drawn.
    """
    answers = sampled(answers)
    whole, advantage = torch.cat([ratio(a) for a in answers]), _of_tokens(z_score, answers)
    surrogate = whole * advantage if eps is None else clipped(whole, advantage, eps, eps)
    cov = _covariance(answers)
    candidates = ((cov >= low) & (cov <= high) & (surrogate == whole * advantage)).nonzero()[:, 0]
    count = min(len(candidates), max(1, math.floor(share * len(whole))))
    lots = torch.cat([a.lot for a in answers])[candidates]
    drawn = candidates[lots.argsort()[:count]]
    return -surrogate.index_fill(0, drawn, 0.0).mean()


def clip_cov_code(answers: Answers, share: float = 2e-4, low: float = 1.0, high: float = 5.0, eps: float = 1.0) -> Tensor:
    """`clip_cov` beside PPO's clip, with ε = 1 in the authors' scripts."""
    return clip_cov(answers, share, low, high, eps)


def spear(
    answers: Answers,
    low: float = 0.2,
    high: float = 0.28,
    share: float = 0.02,
    cov_low: float = 1.0,
    cov_high: float = 40.0,
    tokens: float = 16_384,
    gamma: float = 1.0,
    ramp: float = 200,
    step: int = 1,
) -> Tensor:
    """L_on-policy + γ (1 − cos(π t/T))/2 L_SIL, both clipped and without tokens drawn by covariance: arXiv:2509.22601, its code.

    On-policy A = R − mean(R). Of replayed answers A = R − P50 of the mean rewards of groups, where that is above 0, and the ratio
    is to the policy that wrote them. Both are Σ over tokens / the budget, with one answer in a micro-batch.
    """

    def loss(own: Answers, log_ratio: Callable[[Answer], Tensor], advantage: Callable[[Answer], Tensor]) -> Tensor:
        if not own:
            return torch.tensor(0.0)
        whole = torch.cat([torch.exp(log_ratio(a)) for a in own])
        worth = torch.cat([advantage(a).expand(len(a.logp)) for a in own])
        surrogate = clipped(whole, worth, low, high)
        logp = torch.cat([a.logp for a in own]).detach()
        cov = (logp - logp.mean()) * (worth - worth.mean())
        candidates = ((cov >= cov_low) & (cov <= cov_high) & (surrogate == whole * worth)).nonzero()[:, 0]
        count = min(len(candidates), max(1, math.floor(share * len(whole))))
        drawn = candidates[torch.cat([a.lot for a in own])[candidates].argsort()[:count]]
        return -surrogate.index_fill(0, drawn, 0.0).sum() / tokens / len(own)

    acted, stored = sampled(answers), replayed(answers)
    median = torch.stack([rewards(own).mean() for own in groups(acted)]).quantile(0.5) if acted else math.inf
    on_policy = loss(acted, lambda a: a.logp - a.logp_old, lambda a: centred(a, acted))
    imitation = loss(stored, lambda a: a.logp - a.logp_rollout, lambda a: (a.reward - median).clamp(min=0))
    return on_policy + gamma * (1 - math.cos(math.pi * min(step / ramp, 1))) / 2 * imitation


def kl_cov(answers: Answers, share: float = 2e-3, beta: float = 1.0) -> Tensor:
    """E[r A − β KL(π_old‖π_θ) on the tokens of the largest Cov]: arXiv:2505.22617, eq. 13 and 14.

    The KL is estimated from the token that π_old drew: r − 1 − log r.
    """
    return _kl_cov(answers, lambda a: ratio(a) - 1 - (a.logp - a.logp_old), share, beta)


def kl_cov_code(answers: Answers, share: float = 2e-3, beta: float = 1.0) -> Tensor:
    """The same with |log r| in the place of the KL."""
    return _kl_cov(answers, lambda a: (a.logp - a.logp_old).abs(), share, beta)


def _kl_cov(answers: Answers, divergence: Callable[[Answer], Tensor], share: float, beta: float) -> Tensor:
    """⌊share·N⌋ tokens are chosen, at least one as in the authors' code; where no Cov is above 0, none, which is our choice."""
    answers = sampled(answers)
    cov = _covariance(answers)
    least = cov.sort(descending=True).values[max(1, math.floor(share * len(cov))) - 1]
    chosen = (cov >= least) & (cov > 0)
    surrogate = torch.cat([ratio(a) for a in answers]) * _of_tokens(z_score, answers)
    return -(surrogate - beta * torch.cat([divergence(a) for a in answers]).where(chosen, 0)).mean()


def tis(answers: Answers, cap: float = 2.0, low: float = 0.2, high: float = 0.28) -> Tensor:
    """E[min(π_learner/π_sampler, C) · ∇min(ρ Â, clip(ρ) Â)], both policies those of the start: https://fengyao.notion.site/off-policy-rl.

    The expectation is over the minibatch's tokens, and the clip that of DAPO, as where it was tried.
    """
    answers = sampled(answers)
    return -mean_of_tokens(
        torch.exp(a.logp_old - a.logp_rollout).clamp(max=cap) * clipped(ratio(a), z_score(a, answers), low, high) for a in answers
    )


def dppo_tv(answers: Answers, bound: float = 0.15, cap: float = math.inf) -> Tensor:
    """E[Σₜ M r Â], r = π/μ, M = 0 if |μ − π| > δ and the step leads farther: arXiv:2602.04879, eq. 12 and 13; Â = R − mean(R).

    With a cap the weight of ∇log π is min(r, cap), its eq. 23.
    """
    answers = sampled(answers)
    return -mean(_bounded_by_variation(a, centred(a, answers), bound, cap).sum() for a in answers)


def dppo_tv_code(answers: Answers, bound: float = 0.15, cap: float = 10.0) -> Tensor:
    """The same with ratios up to 10 and as a mean over the minibatch's tokens."""
    answers = sampled(answers)
    return -mean_of_tokens(_bounded_by_variation(a, centred(a, answers), bound, cap) for a in answers)


def _bounded_by_variation(answer: Answer, advantage: Tensor, bound: float, cap: float) -> Tensor:
    acted, now = answer.logp_rollout.exp(), answer.logp.exp().detach()
    farther = ((advantage > 0) & (now > acted)) | ((advantage < 0) & (now < acted))
    passed = ~(((acted - now).abs() > bound) & farther)
    return passed * (now / acted).clamp(max=cap) * advantage * answer.logp


def reinforce_pp(answers: Answers, eps: float = 0.2, beta: float = 0.01, std_eps: float = 1e-8, correction: int = 1) -> Tensor:
    """Mean of 1/|o| Σₜ min[s A, clip(s) A], A = R − β Σ_{i≥t} log π_old/π_ref, whitened: arXiv:2501.03262, eq. 1, 4 and 5.

    What is whitened are the tokens of the minibatch, as in the authors' code.
    """
    answers = sampled(answers)
    advantages = _whitened([_return_to_go(a, beta) for a in answers], lambda x: x.std(correction=correction) + std_eps)
    return -mean(clipped(ratio(a), advantage, eps, eps).mean() for a, advantage in zip(answers, advantages, strict=True))


def reinforce_pp_code(answers: Answers, eps: float = 0.2, beta: float = 0.01) -> Tensor:
    """OpenRLHF: a mean over the minibatch's tokens, and the biased deviation, which is at least 1e-4."""
    answers = sampled(answers)
    advantages = _whitened([_return_to_go(a, beta) for a in answers], lambda x: x.std(correction=0).clamp(min=1e-4))
    return -mean_of_tokens(clipped(ratio(a), advantage, eps, eps) for a, advantage in zip(answers, advantages, strict=True))


def _return_to_go(answer: Answer, beta: float) -> Tensor:
    kl = answer.logp_old - answer.logp_ref
    return torch.stack([answer.reward - beta * kl[t:].sum() for t in range(len(kl))])


def reinforce_pp_baseline(answers: Answers, eps: float = 0.2, lam: float = 0.01, std_eps: float = 1e-8) -> Tensor:
    """A = R − mean of the group, whitened over the minibatch; + λ ½ (log π_θ/π_ref)²: arXiv:2501.03262, eq. 6 to 8."""
    answers = sampled(answers)
    advantages = _whitened([centred(a, answers).expand(len(a.logp)) for a in answers], lambda x: x.std() + std_eps)

    def objective(answer: Answer, advantage: Tensor) -> Tensor:
        k2 = (answer.logp - answer.logp_ref) ** 2 / 2
        return (clipped(ratio(answer), advantage, eps, eps) - lam * k2).mean()

    return -mean(objective(a, advantage) for a, advantage in zip(answers, advantages, strict=True))


def _whitened(advantages: list[Tensor], scale: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """(A − mean A)/scale(A) over all tokens; 0 where all are equal. The least is subtracted first, or a mean of 0 is rounded."""
    whole = torch.cat(advantages)
    if (whole == whole[0]).all():
        return [torch.zeros_like(a) for a in advantages]
    least = whole.min()
    return [(a - least - (whole - least).mean()) / scale(whole) for a in advantages]


def prime(answers: Answers, eps: float = 0.2, beta: float = 0.05) -> Tensor:
    """E[min(ρ A, clip(ρ) A)]: arXiv:2502.01456, eq. 3, 5 and 6.

    A = Σ_{s≥t} [r_φ(y_s) − mean_{j≠i} r̄_φ(yʲ)] + r_o − mean_{j≠i} r_o(yʲ),
    r_φ = β log π_φ/π_ref, and r̄_φ its mean over an answer. One answer alone has nothing to be compared with, and A = 0.
    """
    answers = sampled(answers)

    def process(answer: Answer) -> Tensor:
        return beta * (answer.logp_process - answer.logp_ref)

    def advantage(answer: Answer) -> Tensor:
        others = [a for a in group(answer, answers) if a is not answer]
        if not others:
            return torch.zeros_like(answer.logp)
        above = process(answer) - mean(process(a).mean() for a in others)
        outcome = answer.reward - rewards(others).mean()
        return torch.stack([above[t:].sum() + outcome for t in range(len(above))])

    return -mean_of_tokens(clipped(ratio(a), advantage(a), eps, eps) for a in answers)


def istar(answers: Answers, eps: float = 0.2, beta: float = 0.05, w: float = 1.0) -> Tensor:
    """E[min(ρ A, clip(ρ) A)], A = A_episode(τ) + w A_step(aₜ), each n/(n−1)·(s − mean of the group): arXiv:2509.19199.

    s is the outcome, or β Σ log π_φ/π_old over the tokens of a step, whose group are all steps of all answers to the prompt.
    """
    answers = sampled(answers)

    def steps(answer: Answer) -> dict[int, Tensor]:
        gain = beta * (answer.logp_process - answer.logp_old)
        return {int(k): gain[answer.turn == k].sum() for k in answer.turn.unique()}

    def against_others(score: Tensor, scores: list[Tensor]) -> Tensor:
        n = len(scores)
        return n / (n - 1) * (score - torch.stack(scores).mean()) if n > 1 else torch.zeros_like(score)

    def advantage(answer: Answer) -> Tensor:
        own = group(answer, answers)
        episode = against_others(answer.reward, [a.reward for a in own])
        every, mine = [s for a in own for s in steps(a).values()], steps(answer)
        return torch.stack([episode + w * against_others(mine[int(k)], every) for k in answer.turn])

    return -mean_of_tokens(clipped(ratio(a), advantage(a), eps, eps) for a in answers)


def ppo(
    answers: Answers,
    eps: float = 0.2,
    value_eps: float = 0.2,
    value_coefficient: float = 0.5,
    entropy_coefficient: float = 0.0,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Tensor:
    """−L_CLIP + c₁ L_VF − c₂ S: arXiv:1707.06347, eq. 7, 9, 11 and 12, the expectation over time steps a mean over tokens.

    The value's loss is ½ max((V − R)², (V_old + clip(V − V_old) − R)²), as in OpenAI Baselines and, but for the ½, in the code of
    arXiv:2005.12729.
    """
    answers = sampled(answers)
    surrogate = -mean_of_tokens(clipped(ratio(a), gae(a, gamma, lam), eps, eps) for a in answers)
    entropy = mean_of_tokens(a.entropy for a in answers)
    return surrogate + value_coefficient * _value_loss(answers, value_eps, gamma, lam) - entropy_coefficient * entropy


def _value_loss(answers: Answers, eps: float, gamma: float, lam: float) -> Tensor:
    def loss(answer: Answer) -> Tensor:
        target = gae(answer, gamma, lam) + answer.value_old
        moved = answer.value_old + (answer.value - answer.value_old).clamp(-eps, eps)
        return 0.5 * torch.maximum((answer.value - target) ** 2, (moved - target) ** 2)

    return mean_of_tokens(loss(a) for a in answers)


def spae(
    answers: Answers, low: float = 0.2, high: float = 0.28, alpha: float = 0.5, xi: float = 0.5, known: float = 0.9
) -> Tensor:
    """DAPO's loss with A = (R − mean(R))·f(Φ) + ξ·g(ΔΦ), standardized over all tokens of the minibatch: arXiv:2601.03823.

    f = 1 − α(1 − exp(−C_sat)), C_sat the number of earlier steps with Φ > ε_sat; g = exp(ΔΦ) − mean exp(ΔΦ), where ΔΦ, 0 for the
    first step, is min-max normalized over the steps of the minibatch, and so is the mean. The loss is a mean over all tokens.
    """
    answers = sampled(answers)

    def potentials(answer: Answer) -> dict[int, float]:
        return {int(k): float(answer.potential[answer.step == k][0]) for k in answer.step.unique()}

    def differences(answer: Answer) -> dict[int, float]:
        steps = potentials(answer)
        return dict(zip(steps, [0.0, *(after - before for before, after in pairwise(steps.values()))], strict=True))

    every = [d for a in answers for d in differences(a).values()]
    span = max(every) - min(every)
    normalized = [{k: (d - min(every)) / span if span else 0.0 for k, d in differences(a).items()} for a in answers]
    average = sum(math.exp(d) for of in normalized for d in of.values()) / len(every)

    def advantage(answer: Answer, of: dict[int, float]) -> Tensor:
        steps = potentials(answer)
        saturated = {k: sum(steps[t] > known for t in steps if t < k) for k in steps}
        f = [1 - alpha * (1 - math.exp(-saturated[int(k)])) for k in answer.step]
        g = [math.exp(of[int(k)]) - average for k in answer.step]
        return centred(answer, answers) * answer.logp.new_tensor(f) + xi * answer.logp.new_tensor(g)

    whole = _whitened([advantage(a, of) for a, of in zip(answers, normalized, strict=True)], lambda x: x.std() + 1e-8)
    return -mean_of_tokens(clipped(ratio(a), adv, low, high) for a, adv in zip(answers, whole, strict=True))


def dual_clip(
    answers: Answers, eps: float = 0.2, bound: float = 3.0, value_coefficient: float = 0.5, value_eps: float = 0.2
) -> Tensor:
    """PPO with max(min(r Â, clip(r) Â), c Â) where Â < 0: arXiv:1912.09729, section 3.4; the critic's loss is that of `ppo`."""
    answers = sampled(answers)
    surrogate = -mean_of_tokens(_dual_clipped(ratio(a), gae(a, 1.0, 0.95), eps, eps, bound) for a in answers)
    return surrogate + value_coefficient * _value_loss(answers, value_eps, 1.0, 0.95)


def decoupled_ppo(answers: Answers, eps: float = 0.2, cap: float = math.inf) -> Tensor:
    """E[π_prox/π_behav · min(u Â, clip(u) Â)], u = π_θ/π_prox: arXiv:2110.00641; the critic's loss is that of `ppo`.

    π_prox is the policy at the start of the update, as in arXiv:2505.24298, π_behav the one that acted.
    """
    answers = sampled(answers)
    surrogate = -mean_of_tokens(
        torch.exp(a.logp_old - a.logp_rollout).clamp(max=cap) * clipped(ratio(a), gae(a, 1.0, 0.95), eps, eps) for a in answers
    )
    return surrogate + 0.5 * _value_loss(answers, 0.2, 1.0, 0.95)


def vapo(
    answers: Answers, low: float = 0.2, high: float = 0.28, alpha: float = 0.05, mu: float = 0.1, value_coefficient: float = 0.5
) -> Tensor:
    """L_PPO + μ L_NLL, the latter over the tokens of correct answers alone: arXiv:2504.05118, eq. 4, 5 and 8 to 10.

    λ = 1 − 1/(α l), which we bound at 0; the critic learns full returns (λ = 1) by ½ (V − R)², PPO's, which is not printed.
    """
    answers = sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        return gae(answer, 1.0, max(0.0, 1 - 1 / (alpha * len(answer.logp))))

    surrogate = -mean_of_tokens(clipped(ratio(a), advantage(a), low, high) for a in answers)
    value_loss = mean_of_tokens((a.value - a.reward) ** 2 / 2 for a in answers)
    nll = -mean_of_tokens(a.logp for a in answers if a.reward >= 1)
    return surrogate + value_coefficient * value_loss + mu * nll


def ui_tars_2(
    answers: Answers, low: float = 0.2, high: float = 0.28, alpha: float = 0.05, value_coefficient: float = 0.5
) -> Tensor:
    """PPO with λ_policy = 1 − 1/(α l), λ_critic = 1 and clip-higher: arXiv:2509.02544; what it does not print is as in `vapo`."""
    return vapo(answers, low, high, alpha, mu=0.0, value_coefficient=value_coefficient)


def flowrl(answers: Answers, eps: float = 0.2, beta: float = 15.0) -> Tensor:
    """w (log Z + 1/|y| log π_θ − β r̂ − 1/|y| log π_ref)², w = clip(π_θ(y)/π_old(y), 1 ± ε)_detach: arXiv:2509.15207, eq. 6."""
    return _balanced(answers, beta, lambda weight: weight.clamp(1 - eps, 1 + eps))


def flowrl_code(answers: Answers, beta: float = 15.0) -> Tensor:
    """The same with w = π_θ(y)/π_old(y), as in the authors' first release."""
    return _balanced(answers, beta, lambda weight: weight)


def _balanced(answers: Answers, beta: float, bounded: Callable[[Tensor], Tensor]) -> Tensor:
    answers = sampled(answers)

    def loss(answer: Answer) -> Tensor:
        weight = torch.exp((answer.logp - answer.logp_old).sum()).detach()
        gap = answer.log_z + answer.logp.mean() - beta * z_score(answer, answers) - answer.logp_ref.mean()
        return bounded(weight) * gap**2

    return mean(loss(a) for a in answers)
