"""Metrics to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from quatrain.config import ConfigError
from quatrain.diagnostics.service import ServiceRun


def open_wandb(folder: Path, config: Mapping[str, Any]) -> ServiceRun:
    """A run in the project $WANDB_PROJECT, else ``quatrain``, named like the folder."""
    try:
        wandb = import_module("wandb")
    except ImportError:
        raise ConfigError("the tracker wandb is not installed: pip install 'quatrain[wandb]'") from None
    service = ServiceRun(folder / "wandb.json")
    project = os.environ.get("WANDB_PROJECT") or "quatrain"
    try:
        run = wandb.init(project=project, id=service.id, name=folder.name, dir=folder, config=dict(config), resume="allow")
    except wandb.errors.Error as error:
        raise ConfigError(f"wandb does not start ({error}): log in with 'wandb login', or set WANDB_MODE=offline") from None
    return service.open(run)
