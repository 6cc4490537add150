"""Small plots as SVG text: what a report shows of one history."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from conductor_training.test_failure.evaluation import CHAMPION, GRID, Evaluation

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 300, 48, 40, 28
_COLOURS = ("#1f6feb", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a")
Line = Sequence[tuple[float, float]]


def write_plots(evaluation: Evaluation, folder: Path, name: str) -> list[Path]:
    """Gain curve, calibration and trade-off of a history, as ``name-….svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    gains = {label: list(zip(GRID, curve, strict=True)) for label, curve in evaluation.gains.items()}
    bins = evaluation.reliability
    top = max(float(bins.probability.max()), float(bins.share.max()), 1e-9)
    points = [(probability / top, share / top) for probability, share in zip(bins.probability, bins.share, strict=True)]
    trade_off = evaluation.trade_off
    plots = {
        "gain": line_plot(
            "Failures found by time spent",
            "share of the time",
            "share of the failures",
            {**gains, "any order": _DIAGONAL},
        ),
        "calibration": line_plot(
            f"Calibration (both axes to {top:.3f})", "said", "happened", {CHAMPION: points, "ideal": _DIAGONAL}
        ),
        "selection": line_plot(
            "Promise: time saved by what may be missed",
            "α, allowed share of failures missed",
            "share",
            {
                "time saved": [(alpha, saved) for alpha, _, saved in trade_off],
                "missed": [(alpha, missed) for alpha, missed, _ in trade_off],
                "allowed": [(alpha, alpha) for alpha, _, _ in trade_off],
            },
        ),
    }
    paths = []
    for kind, text in plots.items():
        path = folder / f"{name}-{kind}.svg"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


_DIAGONAL: Line = ((0.0, 0.0), (1.0, 1.0))


def line_plot(title: str, across: str, up: str, lines: Mapping[str, Line]) -> str:
    """Lines over the unit square."""

    def place(point: tuple[float, float]) -> str:
        x = _LEFT + point[0] * (_WIDTH - _LEFT - 130)
        y = _HEIGHT - _BOTTOM - point[1] * (_HEIGHT - _BOTTOM - _TOP)
        return f"{x:.1f},{y:.1f}"

    parts = []
    for number, tick in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        (x, y0), (_, y) = place((tick, 0)).split(","), place((0, tick)).split(",")
        parts.append(f'<text x="{x}" y="{float(y0) + 14:.1f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_LEFT - 5}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>')
        if number:
            parts.append(f'<polyline class="grid" points="{place((0, tick))} {place((1, tick))}"/>')
    for line, colour in zip(lines.values(), _COLOURS, strict=False):
        points = " ".join(map(place, line))
        parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
    for number, (label, colour) in enumerate(zip(lines, _COLOURS, strict=False)):
        where = f'x="{_WIDTH - 124}" y="{_TOP + 14 + 16 * number}"'
        parts.append(f'<text {where} fill="{colour}">{html.escape(label)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
        "<style>text{font:11px system-ui,sans-serif}polyline{fill:none;stroke-width:1.6}.grid{stroke:#d0d7de;"
        'stroke-width:.6}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_LEFT}" y="16" style="font-weight:600">{html.escape(title)}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{html.escape(across)}</text>'
        f'<text x="12" y="{_HEIGHT - _BOTTOM}" transform="rotate(-90 12 {_HEIGHT - _BOTTOM})">{html.escape(up)}</text>'
        f"{''.join(parts)}</svg>\n"
    )
