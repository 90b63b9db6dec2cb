"""From rollouts to new weights."""

from quatrain.update.learner import PROCESS, Learner
from quatrain.update.pairs import margins, ranking
from quatrain.update.reference import Reference, check_vocabulary

__all__ = ["PROCESS", "Learner", "Reference", "check_vocabulary", "margins", "ranking"]
