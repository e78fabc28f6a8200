"""A profile as one HTML page: a timeline of a run, and the tables.

The page has no scripts and loads nothing, and its policy forbids both. All names of the file are
escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from onnxinterp.errors import plain
from onnxinterp.inspection.profile import Bar, By, Profile, StepTimes
from onnxinterp.inspection.table import html

MAX_BARS = 4000
MAX_MODULE_ROWS = 8
MAX_TITLE_BYTES = 400
ZOOMS = (1, 4, 16, 64)
COLOURS = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2"),
    *("#b279a2", "#eeca3b", "#9d755d", "#ff9da6", "#8cb369"),
)  # of the slowest operators
OTHER_COLOUR, MODULE_COLOUR = "#bab0ac", "#dfe6ee"
HEADINGS: dict[By, str] = {"operator": "By operator", "layer": "By module", "node": "By node"}
STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1.5em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 1.5em }
td, th { padding: .1em .7em; border-bottom: 1px solid #ddd; text-align: left }
td:nth-child(n+3), th:nth-child(n+3) { text-align: right !important }
.frame { overflow-x: auto; border: 1px solid #ccc; margin: .5em 0 }
.line { position: relative; margin: 4px }
.bar { position: absolute; height: 18px; overflow: hidden; white-space: nowrap; font-size: 11px;
  line-height: 18px; box-shadow: inset 1px 0 #fff }
.key { display: inline-block; margin-right: 1em }
.key i { display: inline-block; width: 1em; height: 1em; margin-right: .3em; vertical-align: -2px }
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
{totals}
<h2>Timeline of one run</h2>
{timeline}
{tables}
</body></html>
"""


class Box(NamedTuple):
    """A rectangle of the timeline.

    Attributes:
        row: from the top.
        start: seconds.
        seconds: its width.
        label: what is written in it.
        title: what is shown for it.
        colour: in CSS.
    """

    row: int
    start: float
    seconds: float
    label: str
    title: str
    colour: str


def page(profile: Profile) -> str:
    """The page as a string."""
    tables = [
        f"<h2>{heading}</h2>{html('', profile.columns(by), map(profile.cells, rows), '')}"
        for by, heading in HEADINGS.items()
        if (rows := profile.rows(by))
    ]
    return PAGE.format(
        title=escape(plain(profile.name, MAX_TITLE_BYTES)),
        style=STYLE + "".join(_zoom_style(zoom) for zoom in ZOOMS),
        totals="".join(f"<p>{escape(plain(line))}</p>" for line in profile.totals()),
        timeline=_timeline(profile),
        tables="\n".join(tables),
    )


def _zoom_style(zoom: int) -> str:
    return f"#zoom{zoom}:checked ~ .frame .line {{ width: {100 * zoom}% }}\n"


def _timeline(profile: Profile) -> str:
    bars = sorted(profile.timeline, key=lambda bar: -bar.seconds)[:MAX_BARS]
    bars.sort(key=lambda bar: bar.start)
    if not bars:
        return "<p>Nothing ran.</p>"
    colours = _colours(profile)
    boxes = [*_module_boxes(profile.steps, bars)]
    below = 1 + max((box.row for box in boxes), default=-1)
    boxes += [_box(profile.steps[bar.step], bar, below, colours) for bar in bars]
    total = max(bar.start + bar.seconds for bar in bars)
    height = 20 * (1 + max(box.row for box in boxes))
    drawn = "".join(_drawn(box, total) for box in boxes)
    hidden = len(profile.timeline) - len(bars)
    note = f"<p>{hidden:,} shorter calls are not shown.</p>" if hidden else ""
    zooms = "".join(
        f'<input type="radio" name="zoom" id="zoom{zoom}"{" checked" if zoom == 1 else ""}>'
        f'<label for="zoom{zoom}">{zoom}x</label> '
        for zoom in ZOOMS
    )
    frame = f'<div class="frame"><div class="line" style="height: {height}px">{drawn}</div></div>'
    return f"{_legend(colours)}<div>{zooms}{frame}</div>{note}"


def _colours(profile: Profile) -> dict[str, str]:
    """Operator -> colour, of the slowest ones."""
    return dict(zip([row.name for row in profile.rows("operator")], COLOURS, strict=False))


def _legend(colours: dict[str, str]) -> str:
    keys = [*colours.items(), ("others", OTHER_COLOUR)]
    return "".join(
        f'<span class="key"><i style="background: {colour}"></i>{escape(plain(op, 60))}</span>'
        for op, colour in keys
    )


def _module_boxes(steps: Sequence[StepTimes], bars: Sequence[Bar]) -> Iterator[Box]:
    """A box for each uninterrupted run of steps of a module, the outer modules at the top."""
    top = [bar for bar in bars if bar.depth == 0]
    for row in range(min(MAX_MODULE_ROWS, max((len(s.layer) for s in steps), default=0))):
        group: list[Bar] = []
        for bar in [*top, None]:
            chain = steps[bar.step].layer[: row + 1] if bar else ()
            if group and chain != steps[group[0].step].layer[: row + 1]:
                yield _module_box(steps, group, row)
                group = []
            if bar and len(chain) == row + 1:
                group.append(bar)


def _module_box(steps: Sequence[StepTimes], group: Sequence[Bar], row: int) -> Box:
    path, start = steps[group[0].step].layer[row], group[0].start
    seconds = group[-1].start + group[-1].seconds - start
    label = path.rpartition(".")[2]
    return Box(row, start, seconds, label, f"{path}: {1e3 * seconds:.3f} ms", MODULE_COLOUR)


def _box(step: StepTimes, bar: Bar, below: int, colours: dict[str, str]) -> Box:
    title = f"{', '.join(step.nodes)}: {step.op}, {1e3 * bar.seconds:.3f} ms"
    colour = colours.get(step.op, OTHER_COLOUR)
    return Box(below + bar.depth, bar.start, bar.seconds, step.op, title, colour)


def _drawn(box: Box, total: float) -> str:
    place = f"left: {100 * box.start / total:.4f}%; width: {100 * box.seconds / total:.4f}%"
    style = f"{place}; top: {20 * box.row}px; background: {box.colour}"
    title = escape(plain(box.title, MAX_TITLE_BYTES))
    return f'<div class="bar" style="{style}" title="{title}">{escape(plain(box.label, 60))}</div>'
