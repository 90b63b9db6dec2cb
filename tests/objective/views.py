"""Views written by hand, for numbers worked by hand."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quatrain.objective import View
from quatrain.types import Batch


def view(action: Sequence[Sequence[int]], logp: Tensor | None = None, **batch: Tensor) -> View:
    """What a part reads where `action` is 1."""
    acts = torch.tensor(action, dtype=torch.bool)
    return View(Batch(action=acts, **batch), acts, logp)


def floats(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
