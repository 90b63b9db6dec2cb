"""What the library is checked against: published losses, transcribed plainly, and random batches to compare on."""

from tests.reference.answers import Answer
from tests.reference.batches import Case, Shape, draw, shapes
from tests.reference.losses import LOSSES

__all__ = ["LOSSES", "Answer", "Case", "Shape", "draw", "shapes"]
