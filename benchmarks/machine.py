"""What the machine can do: matrix products of several shapes, and reading memory that no cache holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.counting import Limit
from benchmarks.results import arguments, machine, place, write

PRODUCTS = {
    "square": (2048, 2048, 2048),
    "a pass of the update through a linear layer": (1024, 576, 1536),
    "a pass of the update through the head": (256, 576, 49152),
    "64 answers' next token through a linear layer": (64, 576, 1536),
    "64 answers' next token through the head": (64, 576, 49152),
}
"""[m, k] · [k, n]; the first is the rate that everything is held against, the others are SmolLM2's own."""
BYTES = 2**30
"""Memory that is read, many times what caches hold."""


class Probe:
    """Measures the machine's limit again and again, so that its drift is known, too."""

    def __init__(self, quick: bool = False, **kind: Any) -> None:
        """`kind` is that of the numbers: a device and a dtype."""
        side, size = (256, 2**24) if quick else (PRODUCTS["square"][0], BYTES)
        if torch.device(kind.get("device", "cpu")).type != "cpu":
            side *= 4
        self._square = torch.ones(side, side, **kind), torch.ones(side, side, **kind)
        self._numbers = torch.ones(size // 4096 // 4, 4096, **kind)
        self._vector = torch.ones(4096, **kind)

    def rate(self) -> float:
        """Operations a second, in the large product."""
        a, b = self._square
        return 2 * len(a) ** 3 / seconds(lambda: a @ b)

    def bandwidth(self) -> float:
        """Bytes read a second, in a sum or in a product with a vector, whichever is faster."""
        ways = (self._numbers.sum, lambda: self._numbers @ self._vector)
        return self._numbers.nbytes / min(seconds(way, 3) for way in ways)


def limit(rounds: list[tuple[float, float]]) -> Limit:
    """Medians of what a probe found, round by round."""
    rates, bandwidths = zip(*rounds, strict=True)
    return Limit(median(rates), median(bandwidths))


def seconds(work: Callable[[], Tensor], times: int = 5) -> float:
    """The median time of a call, after one that is not measured."""
    work()
    return median(timed(work) for _ in range(times))


def timed(work: Callable[[], object]) -> float:
    """The time of a call, to the end of all that it asks of a GPU."""
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """For what a GPU was asked to do, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = arguments("machine", "The machine's matrix products and its memory.")
    parser.add_argument("--rounds", default=7, type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    probe = Probe(given.quick)
    rounds = [(probe.rate(), probe.bandwidth()) for _ in range(2 if given.quick else given.rounds)]
    products = {}
    for name, (m, k, n) in PRODUCTS.items():
        a, b = torch.ones(m, k), torch.ones(n, k).T  # weights lie so
        products[name] = {"shape": [m, k, n], "rate": 2 * m * k * n / seconds(lambda a=a, b=b: a @ b, 3 if given.quick else 15)}
    found = limit(rounds)
    rates, bandwidths = zip(*rounds, strict=True)
    write(
        place(given, "machine"),
        {
            "made_with": machine(given.threads),
            "rate": {"median": found.rate, "least": min(rates), "most": max(rates)},
            "bandwidth": {"median": found.bandwidth, "least": min(bandwidths), "most": max(bandwidths)},
            "products": products,
        },
    )
    Console(highlight=False).print(f"{found.rate / 1e9:.0f}·10⁹ operations/s, {found.bandwidth / 1e9:.1f}·10⁹ bytes/s")


if __name__ == "__main__":
    main()
