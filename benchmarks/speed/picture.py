"""The results as a picture: bars of ratios to onnxruntime on a logarithmic scale, in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.speed.engines import (
    ONNXRUNTIME,
    OPENVINO,
    OPTIMIZED,
    OPTIMIZED_TORCH,
    PLAIN,
    TORCH,
)
from benchmarks.speed.results import Result, engines_of, geometric_mean, number_of

COLOURS = {
    TORCH: "#b9c4d0",
    PLAIN: "#4c78a8",
    OPTIMIZED_TORCH: "#8ccf9f",
    OPTIMIZED: "#1f9e57",
    OPENVINO: "#f2a541",
}
OTHER_COLOURS = ("#b279a2", "#9d755d", "#72b7b2")
LABEL_WIDTH, PLOT_WIDTH, RIGHT = 200, 600, 70
BAR, GAP, TOP = 9, 9, 60
TICKS = (0.5, 1, 2, 4, 8, 16, 32)
FONT = 'font-family="sans-serif" font-size="11" fill="#222"'


def _x(ratio: float) -> float:
    """Return the place of a ratio; those outside of the scale are at its ends."""
    low, high = math.log(TICKS[0]), math.log(TICKS[-1])
    share = (math.log(ratio) - low) / (high - low)
    return LABEL_WIDTH + PLOT_WIDTH * min(1.0, max(0.0, share))


def _text(x: float, y: float, content: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {FONT} {extra}>{escape(content)}</text>'


def _groups(results: Sequence[Result], engines: Sequence[str]) -> Iterator[tuple[str, list[float]]]:
    """Yield name and ratios of each model, and of the geometric mean of its class."""
    for kind in dict.fromkeys(r.kind for r in results):
        own = [r for r in results if r.kind == kind]
        for r in own:
            yield r.model, [r.ratio(name) or math.nan for name in engines]
        means = [geometric_mean(r.ratio(name) for r in own) for name in engines]
        yield f"{kind}: geometric mean", [mean or math.nan for mean in means]


def _bars(name: str, ratios: Sequence[float], colours: Sequence[str], y: float) -> Iterator[str]:
    weight = 'font-weight="bold"' if ":" in name else ""
    middle = y + BAR * len(ratios) / 2 + 4
    yield _text(LABEL_WIDTH - 8, middle, name, f'text-anchor="end" {weight}')
    for place, (ratio, colour) in enumerate(zip(ratios, colours, strict=True)):
        if math.isnan(ratio):
            continue
        begin, end = sorted((_x(1), _x(ratio)))
        top = y + BAR * place
        yield (
            f'<rect x="{begin:.1f}" y="{top:.1f}" width="{max(1.0, end - begin):.1f}" '
            f'height="{BAR - 1}" fill="{colour}"/>'
        )
        edge = end + 3 if ratio >= 1 else begin - 3
        anchor = "start" if ratio >= 1 else "end"
        yield _text(edge, top + BAR - 1.5, f"{ratio:.2f}", f'text-anchor="{anchor}" opacity=".7"')


def picture(results: Sequence[Result], threads: int) -> str:
    """Return an SVG image of the results with one number of threads."""
    results = [result for result in results if result.threads == threads]
    engines = [name for name in engines_of(results) if name != ONNXRUNTIME]
    spare = iter(OTHER_COLOURS * len(engines))
    colours = [COLOURS.get(name) or next(spare) for name in engines]
    groups = list(_groups(results, engines))
    step = BAR * len(engines) + GAP
    width, height = LABEL_WIDTH + PLOT_WIDTH + RIGHT, TOP + step * len(groups) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">',
        "<title>Time of a call as a multiple of onnxruntime's</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(8, 18, f"Time of a call / onnxruntime's, {number_of(threads)}"),
    ]
    for place, (name, colour) in enumerate(zip(engines, colours, strict=True)):
        x = LABEL_WIDTH + 110 * place
        parts.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, 35, name))
    for tick in TICKS:
        colour = "#222" if tick == 1 else "#ddd"
        line = f'x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{TOP - 6}" y2="{height - 8}"'
        parts.append(f'<line {line} stroke="{colour}"/>')
        parts.append(_text(_x(tick), TOP - 9, f"{tick:g}", 'text-anchor="middle"'))
    for place, (name, ratios) in enumerate(groups):
        parts += _bars(name, ratios, colours, TOP + step * place)
    return "\n".join([*parts, "</svg>", ""])
