"""Which experts the layers of a mixture-of-experts policy choose: recorded, and chosen again as they were recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NONE = -1
"""In the place of an expert: nothing was recorded there, as in a layer that has none."""


class Routing:
    """The experts of one forward pass over N tokens.

    A layer's router takes the `each` best of `count` scores. What it finds is recorded; where something is `wanted`, it finds
    that instead, with the scores that it has now, so that gradients flow through them.
    """

    def __init__(self, count: int, each: int, layers: int, wanted: Int[Tensor, "N L K"] | None = None) -> None:
        self.count, self.each, self.layers, self.wanted = count, each, layers, wanted
        self.found: dict[int, Int[Tensor, "N K"]] = {}

    @property
    def chosen(self) -> Int[Tensor, "N L K"]:
        """The experts of each token in each layer."""
        like = next(iter(self.found.values()))
        nothing = torch.full_like(like, NONE)
        return torch.stack([self.found.get(layer, nothing) for layer in range(self.layers)], 1)

    def hooks(self, layer: nn.Module, number: int) -> list[Any]:
        """Handles of what makes `layer` do so, in its forward passes and where checkpointing does one again."""
        mode = _Choosing(self, number)

        def enter(*_: Any) -> None:
            mode.__enter__()

        def leave(*_: Any) -> None:
            mode.__exit__(None, None, None)

        return [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave, always_call=True)]

    def choose(self, layer: int, scores: Tensor, best: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Values and indices of the scores [N, count] that count as the `best` in this layer."""
        values, index = best
        if self.wanted is not None:
            recorded = self.wanted[:, layer].to(index)
            index = torch.where(recorded == NONE, index, recorded)
            values = scores.gather(-1, index)
        self.found[layer] = index.detach()
        return values, index


class _Choosing(TorchFunctionMode):
    """Sees the router of one layer take the best of its scores."""

    def __init__(self, routing: Routing, layer: int) -> None:
        super().__init__()
        self.routing, self.layer = routing, layer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func not in (torch.topk, Tensor.topk):
            return out
        scores, values, routing = args[0], out[0], self.routing
        if scores.ndim != 2 or (scores.shape[-1], values.shape[-1]) != (routing.count, routing.each):
            return out
        return torch.return_types.topk(routing.choose(self.layer, scores, (values, out[1])))
