"""Builds interactive charts as HTML that works offline: fragments, the shared head, full pages.

A fragment contains a figure as JSON. `assets/charts.js` draws the figure, shows thumbnails, and
interpolates the decoded image at a position.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any

from latentforge.findings import Bars, Histogram, Lines, Scatter, Table
from latentforge.io.paths import replace_nonfinite
from latentforge.rendering.html import figures as draw
from latentforge.rendering.html.paths import count_frames, to_array
from latentforge.rendering.html.sprites import sprite

POINTS = 5000  # maximum points of a map
SPRITE_BYTES = 2_000_000  # maximum size of a map's thumbnails
MIN_POINTS = 500

Chart = Scatter | Lines | Bars | Histogram | Table


def chart(item: Chart, *, points: int = POINTS, peers: Sequence[Any] = ()) -> str:
    """Render a finding with its title as an HTML fragment; the page must also contain `head()`.

    The chart shares its y range with `peers`, findings of the same type that are shown beside it.
    """
    notes: list[str] = []
    if isinstance(item, Table):
        body = table(item)
    elif isinstance(item, Histogram):
        panels = [
            plot({"figure": draw.as_dict(figure)}, f"{item.title}: {title}", title)
            for title, figure in draw.histograms(item).items()
        ]
        body = f'<div class="lf-panels">{"".join(panels)}</div>'
        normal = " and the normal density with the same mean and standard deviation"
        notes.append(f"{item.x_title}: density{normal if item.normal else ''}")
    elif isinstance(item, Scatter):
        content, notes = map_content(item, points)
        body = plot(content, item.title)
    else:
        figure = draw.lines(item, peers) if isinstance(item, Lines) else draw.bars(item, peers)
        body = plot({"figure": draw.as_dict(figure)}, item.title)
    notes_html = "".join(f'<p class="lf-note">{escape(note)}</p>' for note in notes)
    caption = f"<figcaption>{escape(item.title)}</figcaption>"
    return f'<figure class="lf-figure">{caption}{body}{notes_html}</figure>'


def map_content(item: Scatter, limit: int) -> tuple[dict[str, Any], list[str]]:
    """The content of a map for `charts.js`, and the notes below it."""
    total, notes = len(item.points), []
    content: dict[str, Any] = {"axes": list(item.axes), "labelled": item.labels is not None}
    by_class = item.labels is not None and item.values is None
    labels = to_array(item.labels) if by_class else None
    if item.values is not None:
        content["values"] = item.values_title
    shown = draw.sample_evenly(labels, total, limit)
    if item.images is not None:
        thumbnails = sprite(item.images[shown], math.ceil(math.sqrt(len(shown))))
        while (size := len(thumbnails["src"]) * 3 // 4) > SPRITE_BYTES and len(shown) > MIN_POINTS:
            fewer = max(MIN_POINTS, int(len(shown) * 0.95 * SPRITE_BYTES / size))
            shown = draw.sample_evenly(labels, total, fewer)
            thumbnails = sprite(item.images[shown], math.ceil(math.sqrt(len(shown))))
        content["thumbnails"] = thumbnails
        notes.append("Hover over a point, or tap it, to see its image.")
    if item.plane is not None:
        rows, columns = item.plane.images.shape[:2]  # (rows, columns, C, H, W)
        plane = sprite(item.plane.images.flatten(0, 1), columns)
        content["plane"] = {**plane, "rows": rows, "x": item.plane.x, "y": item.plane.y}
        notes.append(
            "The image beside the map is the decoded image at the pointer, interpolated between "
            f"the nearest of {rows} x {columns} decoded positions."
        )
    if len(shown) < total:
        method = ", evenly over the classes" if labels is not None else ""
        notes.append(f"{len(shown):,} of {total:,} points are shown, sampled at random{method}.")
    if count := count_frames(item):
        content["frames"] = count
    content["figure"] = draw.as_dict(draw.scatter(item, shown))
    return content, notes


def table(item: Table) -> str:
    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        text = str(value) if isinstance(value, Integral) else f"{value:.4g}"
        return f'<td class="lf-number">{text}</td>'

    head = "".join(f'<th scope="col">{escape(str(title))}</th>' for title in item.columns)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in item.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="lf-scroll" tabindex="0" role="region" aria-label="table">{body}</div>'


def plot(content: dict[str, Any], label: str, heading: str = "") -> str:
    kind = "lf-chart" + " lf-map" * ("axes" in content) + " lf-with-plane" * ("plane" in content)
    title_html = f'<p class="lf-panel-title">{escape(heading)}</p>' if heading else ""
    return (
        f'<div class="{kind}">{title_html}'
        f'<div class="lf-plot" role="img" aria-label="{escape(label)}">'
        f'</div><script type="application/json">{escape_json(content)}</script></div>'
    )


def escape_json(value: Any) -> str:
    """JSON without characters that an HTML parser could read as a tag."""
    text = json.dumps(replace_nonfinite(value), separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def head() -> str:
    """The styles and scripts of the charts, including plotly.js; needed once per page."""
    from plotly.offline import get_plotlyjs

    return (
        f"<style>{asset('charts.css')}</style>"
        f"<script>{get_plotlyjs()}</script><script>{asset('charts.js')}</script>"
    )


def asset(name: str) -> str:
    return (files("latentforge.rendering") / "assets" / name).read_text("utf-8")


def write_page(item: Chart, path: Path, note: str) -> None:
    """Write one finding as a page that opens from disk; `note` states its source. Raises OSError if
    the file cannot be written."""
    page = asset("page.html")
    parts = {"TITLE": escape(item.title), "HEAD": head(), "CHART": chart(item)}
    parts["NOTE"] = escape(note)
    for name, value in parts.items():
        page = page.replace(f"<!--{name}-->", value, 1)
    path.write_text(page, "utf-8")
