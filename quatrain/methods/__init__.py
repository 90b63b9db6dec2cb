"""The catalogue: every method is a row that names its parts."""

from quatrain.methods.catalogue import METHODS, method

__all__ = ["METHODS", "method"]
