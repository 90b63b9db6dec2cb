"""The four lines of a policy gradient, and how they make a method."""

from quatrain.objective.advantages import GAE, Accepted, One, Relative, StayClose
from quatrain.objective.bound import Bound, Weights
from quatrain.objective.denominators import Current, GeometricMean, Old
from quatrain.objective.likelihoods import Sequence, Token
from quatrain.objective.masks import Cap, Clip, Everywhere
from quatrain.objective.method import Method, difference
from quatrain.objective.part import Part, View, describe, signature
from quatrain.objective.reductions import Constant, PerCreditedToken, PerGroup, PerSequence, PerToken
from quatrain.objective.terms import EntropyBonus, Factors, Term, ValueLoss

__all__ = [
    "GAE",
    "Accepted",
    "Bound",
    "Cap",
    "Clip",
    "Constant",
    "Current",
    "EntropyBonus",
    "Everywhere",
    "Factors",
    "GeometricMean",
    "Method",
    "Old",
    "One",
    "Part",
    "PerCreditedToken",
    "PerGroup",
    "PerSequence",
    "PerToken",
    "Relative",
    "Sequence",
    "StayClose",
    "Term",
    "Token",
    "ValueLoss",
    "View",
    "Weights",
    "describe",
    "difference",
    "signature",
]
