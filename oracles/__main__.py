"""What all comparisons come to, as a page: ``python -m oracles --write PAGE``; ``--check PAGE`` fails where it is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oracles.catalogue import COMPARISONS, NO_PEER
from oracles.comparison import SEEDS, TOLERANCE, Comparison
from quatrain.methods import METHODS
from quatrain.objective import difference

NAMES = {"trl": "TRL", "verl": "verl"}
PAGE = """\
<!-- Written by oracles/__main__.py. -->

# Against TRL and verl

Where TRL or verl has a method, the row's weights are compared with the gradient of the peer's own installed function on the same
random numbers: {seeds} minibatches of answers of unequal length, in float64. `make oracles` installs TRL {trl} and verl {verl} in
an environment of their own, makes every comparison and fails where one does not hold.

- **equal**: no weight differs by more than {tolerance:g} of the largest one.
- **differs**: one does, for the reason named; with the row changed as shown, the two are equal in the sense above. So the peer's
  form is a row, too: `METHODS[id].replace(…)`.

Of verl an advantage estimator and a loss are named. Settings are what is set besides the peer's defaults.

## Compared

{compared}

## Not compared

{rest}
"""


def page() -> str:
    """What all comparisons say, as Markdown.

    Raises:
        AssertionError: one does not hold.
    """
    rows = [_row(c) for name in METHODS for c in COMPARISONS if c.row == name]
    reasons = [f"| `{name}` | {reason} |" for name, reason in NO_PEER.items() if name in METHODS]
    return PAGE.format(
        seeds=len(SEEDS),
        tolerance=TOLERANCE,
        compared=_table(("row", "peer", "function", "settings", "found"), rows),
        rest=_table(("row", "why"), reasons),
        **{name: version(name) for name in NAMES},
    )


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(tuple(head)), *rows])


def _row(comparison: Comparison) -> str:
    assert comparison.holds(), f"{comparison} does not hold: run `make oracles`"
    peer = comparison.theirs
    cells = (f"`{comparison.row}`", NAMES[peer.package], f"`{peer.function}`", _settings(peer.settings), _found(comparison))
    return f"| {' | '.join(cells)} |"


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {name: f"{value:g}" if isinstance(value, float) else repr(value) for name, value in settings.items()}
    return ", ".join(f"`{name}={value}`" for name, value in shown.items()) or "—"


def _found(comparison: Comparison) -> str:
    what = "the critic's loss " if comparison.target == "value" else ""
    at = f" (at {_settings(comparison.at)})" if comparison.at else ""
    if not comparison.difference:
        return f"{what}**equal**{at}"
    changes = [f"{line}: `{theirs}`" for line, _, theirs in difference(comparison.ours, comparison.changed)]
    return f"{what}**differs**{at}: {comparison.difference} Equal with {'; '.join(changes)}"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m oracles", description=__doc__)
    arguments.add_argument("--write", type=Path, metavar="PAGE", help="where to write it; without, it is printed")
    arguments.add_argument("--check", type=Path, metavar="PAGE", help="write nothing, and fail where this page is stale")
    given = arguments.parse_args()
    text = page()
    if given.check:
        fresh = given.check.read_text() == text
        print(f"{given.check} is current" if fresh else f"stale: run `python -m oracles --write {given.check}`")
        return not fresh
    if given.write:
        given.write.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
