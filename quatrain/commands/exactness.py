"""The command that holds methods against the exact gradient of an enumerated policy."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table

from quatrain.config import ConfigError
from quatrain.diagnostics.enumeration import ONE_TOKEN, TINY, Fold, NoFixedPoint, World, distance, estimate, fixed_point, unfit
from quatrain.methods import METHODS, id_of, method
from quatrain.objective import (
    Constant,
    Current,
    FlowBalance,
    Method,
    PartitionLoss,
    PerSequence,
    Relative,
    Sequence,
    StayClose,
    Term,
)
from quatrain.types import Origin

GROUP = 4
"""Answers to each prompt of a batch."""
BETA = 0.5
"""Weight of the KL penalty whose fixed points are compared."""
ESTIMATORS: tuple[Literal["k1", "k2", "k3"], ...] = ("k1", "k2", "k3")
_COLUMNS = ("bias", "angle", "scale", "variance", "mse")


def _sum(scale: str, *losses: str) -> Method:
    """The sum over an answer's tokens, so that nothing but `scale` and the `losses` that the penalty is sets two apart."""
    advantage = Relative(baseline="group" if scale == "group" else "leave_one_out", scale=scale)  # type: ignore[arg-type]
    terms = [
        Term(name=k, coefficient=BETA, denominator=Current(), advantage=StayClose(k), reduce=Constant())  # type: ignore[arg-type]
        for k in losses
    ]
    return Method(Term(denominator=Current(), advantage=advantage, reduce=Constant()), *terms)


def _flow(pool: str, scale: str) -> Method:
    """The balance of a flow whose log-ratios are added up or averaged, on-policy; the raw reward, or over the deviation."""
    reward = Relative(baseline="none") if scale == "none" else Relative(scale=scale)  # type: ignore[arg-type]
    balance = FlowBalance(beta=1 / BETA, pool=pool, of=reward)  # type: ignore[arg-type]
    term = Term(denominator=Current(), advantage=balance, likelihood=Sequence(), reduce=PerSequence())
    return Method(term, PartitionLoss(denominator=Current(), advantage=balance))


WAYS: dict[str, tuple[Method, Fold | None]] = {
    **{f"{k} in the reward": (_sum("none"), Fold(BETA, k)) for k in ESTIMATORS},
    **{f"{k} in the reward, then over the deviation": (_sum("group"), Fold(BETA, k)) for k in ESTIMATORS},
    **{f"{k} as a loss": (_sum("none", k), None) for k in ESTIMATORS},
    **{f"{k} as a loss, the reward over the deviation": (_sum("group", k), None) for k in ESTIMATORS},
    "a flow balance": (_flow("sum", "none"), None),
    "a flow balance, the reward over the deviation": (_flow("sum", "group"), None),
    "a flow balance, log-ratios over the length": (_flow("mean", "none"), None),
}
"""How a KL penalty comes in: the method, and the penalty inside of its reward."""


def oracle(given: Namespace) -> None:
    """Print bias, variance and mean squared error of each row, and on demand where training with a KL penalty ends."""
    if re.fullmatch(r"\d+(,\d+)*", given.staleness) is None:
        raise ConfigError(f"--staleness {given.staleness!r} is not a list of numbers of updates: write --staleness 0,1,4")
    if given.json and not Path(given.json).parent.is_dir():
        raise ConfigError(f"--json {given.json}: there is no folder {Path(given.json).parent}: make it, or choose another")
    rows = {id_of(row): row for row in map(method, given.names)} or METHODS
    found = measure(rows, [int(k) for k in given.staleness.split(",")])
    console = Console(highlight=False)
    for updates in found["staleness"]:
        console.print(_rich(f"sampled {updates} updates ago", estimates_table(found, updates)))
    if given.fixed_points:
        found["unfollowed"] = {n: unfollowed(row) for n, row in rows.items() if "logp_ref" in row.needs and unfollowed(row)}
        found["fixed_points"] = measure_fixed_points(rows)
        console.print(_rich("distance of the fixed point from π_ref·exp(r/β)/Z", fixed_points_table(found)))
    for name, reason in found["unfit"].items():
        console.print(f"{name} is not measured: {reason}", markup=False)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def measure(rows: Mapping[str, Method], staleness: list[int]) -> dict[str, Any]:
    """The estimates that `rows` make at each `staleness`, and why some are not measured; as JSON."""
    fit = {name: row for name, row in rows.items() if not unfit(row)}
    return {
        "staleness": list(staleness),
        "unfit": {name: unfit(row) for name, row in rows.items() if name not in fit},
        "rows": {
            name: {
                "lines": dict(row.lines()),
                "estimates": {str(k): measure_row(row, k) for k in staleness},
            }
            for name, row in track(fit.items(), "enumerating", transient=True)
        },
    }


def measure_row(row: Method, staleness: int) -> dict[str, float]:
    """One row's estimate."""
    found = estimate(row, TINY, staleness, GROUP)
    return {name: _rounded(getattr(found, name)) for name in _COLUMNS}


def measure_fixed_points(rows: Mapping[str, Method]) -> dict[str, list[float | None]]:
    """How far from the posterior each way to bring in a KL penalty ends, and each of `rows` that reads a reference.

    In answers of one token, and of up to three; None where it comes to no end.
    """
    read = {name: (_weighted(row), None) for name, row in rows.items() if "logp_ref" in row.needs and not unfollowed(row)}
    return {
        name: [_distance(way, world, folded) for world in _WORLDS]
        for name, (way, folded) in track((WAYS | read).items(), "ascending", transient=True)
    }


_WORLDS = (ONE_TOKEN.flowing(), TINY.of(0).flowing())


def _distance(way: Method, world: World, folded: Fold | None) -> float | None:
    try:
        return _rounded(distance(fixed_point(way, world, GROUP, folded).probability, world.posterior(BETA)))
    except NoFixedPoint:
        return None


def unfollowed(row: Method) -> str:
    """Why the fixed point of `row` is not found; empty where it is. Of rated answers there are pairs, and no critic of them."""
    if row.origins != {Origin.RATED}:
        return unfit(row, _WORLDS[0])
    if row.reads:
        return f"compares with {' and '.join(sorted(origin.value for origin in row.reads))} trajectories"
    return "needs values, which pairs of rated answers do not have" if "values" in row.needs else ""


def _weighted(row: Method) -> Method:
    """`row` with the weight of its KL penalty set to BETA: that of a term, of the reward, of a preference's loss, or the reward's
    against it set to 1/BETA."""
    weights = [name for name, _ in row.numbers() if re.search(r"(^|\.)(kl|kl\.coefficient|beta|tau)$", name)]
    return row.with_settings(dict.fromkeys(weights, 1 / BETA if "log_z" in row.needs else BETA))


def _rounded(value: float) -> float:
    """To 6 digits, and 0 where rounding errors are all that is left."""
    return float(f"{value:.6g}") if abs(value) > 1e-8 else 0.0


def estimates_table(found: Mapping[str, Any], updates: int) -> Iterator[list[str]]:
    """The head and the rows of what was measured at a staleness of `updates`."""
    yield ["method", "bias", "angle", "scale", "variance", "MSE"]
    for name, row in found["rows"].items():
        at = row["estimates"][str(updates)]
        yield [name, *(f"{at[column]:.1f}°" if column == "angle" else f"{at[column]:.3g}" for column in _COLUMNS)]


def fixed_points_table(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The head and the rows of the distances of fixed points."""
    yield ["the KL penalty", "answers of one token", "of up to three"]
    for name, distances in found["fixed_points"].items():
        yield [name, *("none found" if value is None else f"{value:.3g}" for value in distances)]


def _rich(title: str, rows: Iterator[list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(next(rows)):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table
