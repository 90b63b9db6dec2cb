"""The catalogue: every method is a row that names its parts."""

from quatrain.methods.catalogue import METHODS, id_of, method

__all__ = ["METHODS", "id_of", "method"]
