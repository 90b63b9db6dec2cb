"""The rules of composition: each in both directions, and what they claim of bias against the exact gradient."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from torch import Tensor

from quatrain.diagnostics.enumeration import ONE_TOKEN, TINY, World, estimate, estimates, unfit
from quatrain.methods import METHODS
from quatrain.objective import RULES, Method, Rule, check
from quatrain.objective.composition import findings

ERRORS = [rule for rule in RULES if rule.severity == "error"]
CLAIMS = [rule for rule in RULES if rule.biased]


def named(rules: list[Rule]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in rules])


@dataclass(frozen=True)
class Doubtful(World):
    """A world whose critic errs."""

    @cached_property
    def values(self) -> Tensor:
        return torch.cos(1.0 + self.state.double()).expand(self.logp.shape)


@dataclass(frozen=True)
class Otherwise(World):
    """A world whose engine computes as an earlier policy did: what it was at the start of the update, only the learner knows."""

    def fields(self, current: World) -> dict[str, Tensor]:
        return {**super().fields(current), "logp_old": current.logp}


def of(kind: type[World], world: World) -> World:
    return kind(world.logits, world.reference, world.reward, world.longest)


WORLDS = {
    "on-policy": (of(Doubtful, TINY), 0),
    "stale": (of(Doubtful, TINY), 2),
    "engine": (of(Otherwise, ONE_TOKEN), 2),
}


def turn(method: Method, claim: str) -> float:
    """How much of the expected gradient is no multiple of the exact one, as a share of the exact one."""
    world, staleness = WORLDS[claim]
    found = estimate(method, world, staleness, group=3)
    return found.scale * math.tan(math.radians(found.angle))


@named(list(RULES))
def test_a_rule_holds_where_it_should_and_not_where_it_should_not(rule: Rule):
    there = {finding.rule for finding in findings(rule.example)}
    assert rule.id in there
    assert rule.id not in {finding.rule for finding in findings(rule.counterexample)}


@named(CLAIMS)
def test_a_claim_of_bias_is_measured(rule: Rule):
    assert rule.biased
    assert abs(turn(Method(*rule.example), rule.biased)) > 1e-3
    assert abs(turn(Method(*rule.counterexample), rule.biased)) < 1e-9
