"""Plots as SVG text that reads on light and on dark pages: panels of points on logarithmic axes, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 250, 190, 46, 26, 34
"""Of a panel, and of what stands around its axes."""
INK, LINE = "#808890", "#c9573d"


@dataclass(frozen=True)
class Panel:
    """Points, what they show, and what it is shown against."""

    title: str
    label: str
    x: Sequence[float]
    y: Sequence[float]


def drawing(panels: Sequence[Panel], columns: int) -> str:
    """Panels in rows of so many."""
    size = columns * WIDTH, math.ceil(len(panels) / columns) * HEIGHT
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}"'
    out = [f'{opening} font-family="system-ui, sans-serif" font-size="11" fill="{INK}">']
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        out.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">{_drawn(panel)}</g>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _drawn(panel: Panel) -> str:
    right, bottom = WIDTH - 14, HEIGHT - BOTTOM
    across, x_ticks = _axis(panel.x, LEFT, right)
    up, y_ticks = _axis(panel.y, bottom, TOP)
    out = [_text(LEFT, 15, panel.title, "start"), _text((LEFT + right) / 2, HEIGHT - 4, panel.label, "middle")]
    out += [_text(across(tick), bottom + 14, f"{tick:,.10g}", "middle") for tick in x_ticks]
    for tick in y_ticks:
        out.append(f'<path d="M{LEFT} {up(tick):.1f}H{right}" stroke="{INK}" stroke-opacity=".25"/>')
        out.append(_text(LEFT - 5, up(tick) + 4, f"{tick:,.10g}", "end"))
    points = [(f"{across(x):.1f}", f"{up(y):.1f}") for x, y in zip(panel.x, panel.y, strict=True)]
    out += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{LINE}"/>' for x, y in points]
    out.append(f'<path d="M{"L".join(map(" ".join, points))}" fill="none" stroke="{LINE}" stroke-width="1.6"/>')
    return "".join(out)


def _axis(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between `start` and `end`, and a few round ones; a factor of 2 at least is shown."""
    centre = math.sqrt(min(values) * max(values))
    low, high = min(*values, centre / math.sqrt(2)), max(*values, centre * math.sqrt(2))
    round_ones = [k * 10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for k in (1, 2, 5)]
    found = [value for value in round_ones if low <= value <= high]
    return lambda value: start + (end - start) * math.log(value / low) / math.log(high / low), found[:: math.ceil(len(found) / 4)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
