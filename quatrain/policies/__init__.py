"""Who acts and is trained."""

from quatrain.policies.causal_lm import CausalLM
from quatrain.policies.forest import Forest, partition, plant
from quatrain.policies.loading import Advice, advice, check, load_model

__all__ = ["Advice", "CausalLM", "Forest", "advice", "check", "load_model", "partition", "plant"]
