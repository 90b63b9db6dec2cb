"""Published losses: preferences between answers of a data set.

What papers print for a pair is here the mean over all pairs of a prompt's answers with different rewards, of which the one with
the larger reward is preferred, and then the mean over prompts.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from quatrain.types import Origin
from tests.reference.answers import Answer, Answers, groups, mean, mean_of_tokens, of, rated, sampled, shown


def _pairs(answers: Answers, loss: Callable[[Answer, Answer], Tensor], among: Callable[[Answers], Answers] = rated) -> Tensor:
    """`loss`(preferred, other)."""
    return mean(
        mean(loss(winner, loser) for winner in own for loser in own if winner.reward > loser.reward)
        for own in groups(among(answers))
    )


def _gain(answer: Answer) -> Tensor:
    """log π_θ(y)/π_ref(y)."""
    return (answer.logp - answer.logp_ref).sum()


def dpo(answers: Answers, beta: float = 0.1) -> Tensor:
    """−log σ(β log π_θ(y_w)/π_ref(y_w) − β log π_θ(y_l)/π_ref(y_l)): arXiv:2305.18290, eq. 7."""
    return _pairs(answers, lambda w, o: -logsigmoid(beta * _gain(w) - beta * _gain(o)))


def istar_prm(answers: Answers, beta: float = 0.05) -> Tensor:
    """−log σ(Q(τ⁺) − Q(τ⁻)), Q = Σ β log π_φ/π of the policy that acted: arXiv:2509.19199; π_φ is what is trained."""

    def q(answer: Answer) -> Tensor:
        return beta * (answer.logp - answer.logp_rollout).sum()

    return _pairs(answers, lambda won, lost: -logsigmoid(q(won) - q(lost)), among=sampled)


def ipo(answers: Answers, tau: float = 0.1) -> Tensor:
    """(h − 1/(2τ))², h = log π_θ(y_w) π_ref(y_l) / (π_θ(y_l) π_ref(y_w)): arXiv:2310.12036, eq. 17."""
    return _pairs(answers, lambda w, o: (_gain(w) - _gain(o) - 1 / (2 * tau)) ** 2)


def ipo_mean(answers: Answers, tau: float = 0.1) -> Tensor:
    """The same with log-ratios divided by the lengths of the answers."""
    return _pairs(answers, lambda w, o: (_gain(w) / len(w.logp) - _gain(o) / len(o.logp) - 1 / (2 * tau)) ** 2)


def simpo(answers: Answers, beta: float = 2.0, gamma: float = 0.5) -> Tensor:
    """−log σ(β/|y_w| log π_θ(y_w) − β/|y_l| log π_θ(y_l) − γ): arXiv:2405.14734, eq. 6."""
    return _pairs(answers, lambda w, o: -logsigmoid(beta * w.logp.mean() - beta * o.logp.mean() - gamma))


def orpo(answers: Answers, lam: float = 0.1) -> Tensor:
    """L_SFT − λ log σ(log odds(y_w)/odds(y_l)), odds = P/(1 − P), P = exp(mean log π): arXiv:2403.07691, eq. 3, 4, 6 and 7.

    L_SFT is the mean over the tokens of the preferred answers, which are those with a reward of at least 1.
    """

    def log_odds(answer: Answer) -> Tensor:
        probability = answer.logp.mean().exp()
        return torch.log(probability / (1 - probability))

    nll = -mean_of_tokens(a.logp for a in rated(answers) if a.reward >= 1)
    return nll + lam * _pairs(answers, lambda w, o: -logsigmoid(log_odds(w) - log_odds(o)))


def slic(answers: Answers, delta: float = 1.0, lam: float = 0.1) -> Tensor:
    """max(0, δ − log π(y⁺) + log π(y⁻)) − λ log π(y_ref): arXiv:2305.10425, eq. 4, with the preferred answers as y_ref.

    Those are the answers with a reward of at least 1.
    """
    nll = mean(-a.logp.sum() for a in rated(answers) if a.reward >= 1)
    return _pairs(answers, lambda w, o: relu(delta - w.logp.sum() + o.logp.sum())) + lam * nll


def vpo(answers: Answers, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """DPO's loss − α β E[log π_θ(y) − log π_ref(y)] over calibration answers: arXiv:2405.19320, the offline form.

    Calibration answers are the preferred ones, those with a reward of at least 1.
    """
    return dpo(answers, beta) - alpha * beta * mean(_gain(a) for a in rated(answers) if a.reward >= 1)


def vpo_online(answers: Answers, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """DPO's loss of the policy's own pairs + α β E[log π_θ(y) − log π_ref(y)] over calibration answers: arXiv:2405.19320, online.

    Calibration answers are the demonstrations.
    """
    own = _pairs(answers, lambda w, o: -logsigmoid(beta * _gain(w) - beta * _gain(o)), among=sampled)
    return own + alpha * beta * mean(_gain(a) for a in shown(answers))


def kto(answers: Answers, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0) -> Tensor:
    """λ_y − v(x, y), v = λ_D σ(β(r − z)) or λ_U σ(β(z − r)), r = log π_θ/π_ref: arXiv:2402.01306, eq. 7 and 8.

    z = max(0, mean r(y′)) over mismatched answers, a constant, and 0 without any; desirable are rewards of at least 1.
    """
    level = mean(_gain(a) for a in of(answers, Origin.MISMATCHED)).detach().clamp(min=0)

    def loss(answer: Answer) -> Tensor:
        if answer.reward >= 1:
            return desirable * (1 - torch.sigmoid(beta * (_gain(answer) - level)))
        return undesirable * (1 - torch.sigmoid(beta * (level - _gain(answer))))

    return mean(loss(a) for a in rated(answers))
