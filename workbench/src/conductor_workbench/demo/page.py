"""A report page: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

Cell = str | tuple[str, str]
"""A text, or a text with its class: "good" or "bad"."""

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 70, "b": 40},
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.04, "xanchor": "right", "x": 1.0},
}
"""Of every plot."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Conductor: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #24292f; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} .sub {{ color: #57606a; margin-top: 0 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: right; padding: .3rem .6rem }}
th:first-child, td:first-child {{ text-align: left }} tr + tr td {{ border-top: 1px solid #d0d7de }}
th {{ border-bottom: 2px solid #d0d7de; font-weight: 600 }} .good {{ color: #1a7f37 }} .bad {{ color: #9a6700 }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0 }}
.tile {{ flex: 1 1 150px; border: 1px solid #d0d7de; border-radius: 8px; padding: .8rem 1rem }}
.tile b {{ display: block; font-size: 1.5rem }} .tile span {{ color: #57606a }}
</style></head><body>
<h1>{title}</h1>
<p class="sub">{subtitle} Made {finished} UTC.</p>
{head}
{sections}
</body></html>
"""


def page(
    *, title: str, subtitle: str, finished: str, head: str, sections: Sequence[tuple[str, str | go.Figure]]
) -> str:
    """The whole page.

    Args:
        title: in words.
        subtitle: what it is about, in words.
        finished: when it was made, in ISO 8601 and UTC.
        head: HTML below the title.
        sections: by their title in words, HTML or a plot each.
    """
    parts, plots = [], 0
    for name, content in sections:
        body = content
        if isinstance(body, go.Figure):
            body = body.to_html(
                full_html=False,
                include_plotlyjs="inline" if plots == 0 else False,
                config={"displayModeBar": False},  # it hides the legend; dragging zooms without it
            )
            plots += 1
        parts.append(f"<h2>{html.escape(name)}</h2>\n{body}\n")
    return _PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        finished=html.escape(finished[:16].replace("T", " ")),
        head=head,
        sections="".join(parts),
    )


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Figures, each with what it is of."""
    return f'<div class="tiles">{"".join(map(_tile, figures))}</div>'


def _tile(figure: tuple[str, str]) -> str:
    value, label = figure
    return f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table of texts."""
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>\n{chr(10).join(lines)}</table>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        text, kind = cell
        return f'<td><span class="{kind}">{html.escape(text)}</span></td>'
    return f"<td>{html.escape(cell)}</td>"


def write_page(text: str, path: Path) -> None:
    """Write it, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
