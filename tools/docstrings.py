"""For the documentation site: cross-reference roles in docstrings become code, as Markdown knows none."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Roles(griffe.Extension):
    """Turns ``:class:`Origin``` into ```Origin```."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each object that it has read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r":\w+:`[.~]?([^`]+)`", r"`\1`", obj.docstring.value)
