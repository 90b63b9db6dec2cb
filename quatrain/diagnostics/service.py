"""Metrics to a service that only ever appends."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quatrain.diagnostics.records import write_atomic


class ServiceRun:
    """What ties a run folder to a service's run: an id, and the last step that was sent.

    Both are kept in the file `state`, so that a resumed run goes on in the same place and sends no step twice.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        kept = json.loads(state.read_text()) if state.exists() else {"id": secrets.token_hex(4), "step": 0}
        self.id: str = kept["id"]
        self.sent: int = kept["step"]
        self.run: Any = None

    def open(self, run: Any) -> ServiceRun:
        """Log to `run`, whose ``log`` and ``finish`` are those of Weights & Biases."""
        self.run = run
        write_atomic(self.state, json.dumps({"id": self.id, "step": self.sent}))
        return self

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step <= self.sent:
            return
        self.run.log(dict(metrics), step=step)
        self.sent = step
        write_atomic(self.state, json.dumps({"id": self.id, "step": step}))

    def close(self) -> None:
        self.run.finish()
