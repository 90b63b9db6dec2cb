"""Who acts and is trained."""

from quatrain.policies.causal_lm import CausalLM
from quatrain.policies.forest import Forest, partition, plant
from quatrain.policies.loading import Advice, advice, cache, character_tokenizer, check, load_model

__all__ = ["Advice", "CausalLM", "Forest", "advice", "cache", "character_tokenizer", "check", "load_model", "partition", "plant"]
