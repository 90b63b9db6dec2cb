"""What a gradient is said to be made of, against what it is made of."""

import pytest
import torch

from quatrain.objective import Method
from quatrain.update import Reference
from quatrain.update.explain import explain
from tests.update.plain import batch, gradient_of, learner, policy
from tests.update.test_learner import assert_same_bits, weights


@pytest.mark.parametrize("epochs", [1, 2])
def test_terms_add_up_to_the_whole(epochs: int, tmp_path):
    """Σ norm · cosine is the norm of the whole; each norm is that of the term's own gradient."""
    ours = policy(critic=False, dtype=torch.float32)
    learning = learner(ours, "grpo", reference=Reference(ours, keep=True, folder=tmp_path), epochs=epochs, lr=0.02)
    learning.learn(batch(1), 1)
    before, state = weights(ours), learning.state()
    found = explain(learning, batch(), 2, tokens=0).terms
    assert [term.name for term in found] == ["policy", "kl"]
    whole = torch.stack([g.norm() for g in _gradient(learning, learning.method).values()]).norm().item()
    assert sum(term.norm * term.cosine for term in found) == pytest.approx(whole, rel=1e-4)
    for term, about in zip(learning.method.active, found, strict=True):
        own = torch.stack([g.norm() for g in _gradient(learning, Method(term)).values()]).norm().item()
        assert about.norm == pytest.approx(own, rel=1e-4)
        assert about.norm > 0
    assert_same_bits(weights(ours), before)
    assert_same_bits(learning.state()[0], state[0])
    assert learning.state()[1] == state[1]


def _gradient(learning, method):
    whole = learning.prepare(batch())
    if not learning.scores_old:
        whole = whole.replace(logp_old=learning.score(whole, learning.policy).logp)
    config = learning.config.model_copy(update={"epochs": 2})
    return gradient_of(learner(learning.policy, method, **config.model_dump()), whole)


def test_tokens_that_pull_most_come_first_and_their_shares_are_of_the_whole():
    ours = policy(critic=False)
    learning = learner(ours, "dapo")
    whole = batch()
    everything = explain(learning, whole, 1, tokens=10_000).tokens
    pulls = [token.pull for token in everything]
    assert pulls == sorted(pulls, reverse=True)
    assert sum(pulls) == pytest.approx(1.0, rel=1e-4)
    assert len(everything) == int(whole.action.sum())
    assert explain(learning, whole, 1, tokens=3).tokens == everything[:3]
    for token in everything:
        share, mask, advantage, ratio = token.factors
        assert token.weight == pytest.approx(share * mask * advantage * ratio, rel=1e-5, abs=1e-12)
        assert len(token.text) >= 1
        assert token.prompt_id in whole.prompt_id
    scores = learning.score(whole, ours).logp[whole.action]
    assert sorted(token.logp for token in everything) == pytest.approx(scores.sort().values.tolist())
