"""From rollouts to new weights."""

from quatrain.update.learner import Learner
from quatrain.update.reference import Reference

__all__ = ["Learner", "Reference"]
