"""Methods with everything around them: a command, and the figure to expect of it."""

from quatrain.recipes.recipe import Recipe
from quatrain.recipes.smollm2_chain_sum import RECIPE as SMOLLM2_CHAIN_SUM
from quatrain.recipes.ttrl import RECIPE as TTRL

RECIPES: dict[str, Recipe] = {
    "smollm2-chain-sum": SMOLLM2_CHAIN_SUM,
    "ttrl": TTRL,
}
"""Every recipe by its name."""

__all__ = ["RECIPES", "Recipe"]
