"""Plots of figures with their intervals, as SVG that stands in a page: no library, so that servers draw them too."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

WIDTH: Final = 640
LABEL_WIDTH: Final = 250
VALUE_WIDTH: Final = 70
ROW_HEIGHT: Final = 22
MARGIN: Final = 14
COLOURS: Final = ("#1f6feb", "#bc4c00", "#2da44e", "#8250df")
# Bounds of units that have some; other scales end with the largest value.
BOUNDS: Final[Mapping[str, tuple[float, float]]] = {"share": (0.0, 1.0)}


def interval_plot(figures: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Return a plot with a line for each figure: its interval, and a dot for its value.

    Args:
        figures: Figures of one unit as a report's JSON has them, with intervals; `column` tells models apart by colour.
        unit: Their unit.
    """
    low = float(min(figure["low"] for figure in figures))
    high = float(max(figure["high"] for figure in figures))
    low, high = BOUNDS.get(unit, (min(low, 0.0), high))
    span = (high - low) or 1.0
    plot_width = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    height = MARGIN * 2 + ROW_HEIGHT * len(figures)

    def x(value: float) -> float:
        return LABEL_WIDTH + plot_width * (float(min(max(value, low), high)) - low) / span

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{html.escape(unit or 'figures')} with 95% intervals</title>",
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{height - MARGIN}" y2="{height - MARGIN}" stroke="#d0d7de"/>',
        f'<text x="{x(low):.1f}" y="{height - 2}" fill="#57606a" font-size="10">{low:g}</text>',
        f'<text x="{x(high):.1f}" y="{height - 2}" fill="#57606a" font-size="10" text-anchor="end">{high:.3g}</text>',
    ]
    for row, figure in enumerate(figures):
        y = MARGIN + ROW_HEIGHT * row + ROW_HEIGHT / 2 - 4
        colour = COLOURS[int(figure.get("column", 0)) % len(COLOURS)]
        parts += [
            f'<text x="0" y="{y + 4:.1f}" fill="#1f2328">{html.escape(_short(figure["name"]))}</text>',
            f'<line x1="{x(figure["low"]):.1f}" x2="{x(figure["high"]):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(figure["value"]):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
            f'<text x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end" fill="#1f2328">{figure["value"]:.3f}</text>',
        ]
    return "".join([*parts, "</svg>"])


def _short(name: str) -> str:
    """Return as much of a name as stands beside a plot."""
    longest = LABEL_WIDTH // 6
    return name if len(name) <= longest else name[: longest - 1] + "…"
