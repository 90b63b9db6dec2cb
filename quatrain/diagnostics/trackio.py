"""Metrics to Trackio, which keeps them on this computer: ``trackio show --project quatrain``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from quatrain.config import ConfigError
from quatrain.diagnostics.service import ServiceRun


def open_trackio(folder: Path, config: Mapping[str, Any]) -> ServiceRun:
    """A run in the project ``quatrain``, named like the folder."""
    try:
        trackio = import_module("trackio")
    except ImportError:
        raise ConfigError("the tracker trackio is not installed: pip install 'quatrain[trackio]'") from None
    service = ServiceRun(folder / "trackio.json")
    name = f"{folder.name}-{service.id}"  # a run is known by its name there
    return service.open(trackio.init(project="quatrain", name=name, config=dict(config), resume="allow", embed=False))
