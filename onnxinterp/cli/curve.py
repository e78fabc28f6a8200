"""A loss curve as an SVG image, drawn without a plotting package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, TOP, RIGHT, BOTTOM = 64, 36, 16, 44
COLORS = ("#1f77b4", "#d95f02", "#2ca02c", "#7570b3")


def svg(title: str, series: Mapping[str, Sequence[float]]) -> str:
    """Return an SVG plot over epochs 1, 2, ... with one line per series.

    Args:
        title: the title of the plot.
        series: name -> one finite number per epoch.
    """
    numbers = [n for line in series.values() for n in line]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    low, high = min(low, 0.0) if low < high / 2 else low, high if high > low else low + 1
    last = max(map(len, series.values()), default=1)

    def x(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(last - 1, 1)

    def y(number: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - number) / (high - low)

    parts = [_text(LEFT, 20, title, "start", "bold")]
    for number in (low + (high - low) * i / 4 for i in range(5)):
        parts.append(f'<path d="M{LEFT} {y(number):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y(number) + 4, f"{number:.3g}", "end"))
    labels = range(1, last + 1, math.ceil(last / 10))
    parts.extend(_text(x(epoch), HEIGHT - BOTTOM + 18, str(epoch), "middle") for epoch in labels)
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "epoch", "middle"))
    for index, (name, line) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        points = " ".join(f"{x(epoch):.1f},{y(n):.1f}" for epoch, n in enumerate(line, 1))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(_text(WIDTH - RIGHT, TOP + 14 + 16 * index, name, "end", "bold", color))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, background, *parts, "</svg>\n"])


def _text(
    x: float, y: float, text: str, anchor: str, weight: str = "normal", fill: str = "#333"
) -> str:
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {position} font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
