"""Every test runs with shapes and types checked at module boundaries, on one thread, and draws the same examples each time."""

from typing import Any, Self

import torch
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook


def typechecker(function: Any) -> Any:
    """beartype with 1 for 1.0, and without ``Self``, which it knows only where it decorates the whole class."""
    hints = getattr(function, "__annotations__", {})
    for name, hint in hints.items():
        if hint in ("Self", Self):
            hints[name] = Any
    return beartype(function, conf=BeartypeConf(is_pep484_tower=True))


install_import_hook("quatrain", f"{__name__}.typechecker")
torch.set_num_threads(1)
settings.register_profile("quatrain", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("quatrain")
