"""The report of the replayed builds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from conductor_workbench.demo.page import LAYOUT, Cell, page, table, tiles, write_page
from conductor_workbench.replay.naive import RULES
from conductor_workbench.replay.scores import Answer

_COLOURS = {"model": "#1f6feb", "band": "rgba(31,111,235,0.18)", "actual": "#24292f", "miss": "#cf222e"}
_ROLLING = 50


def write_report(summary: dict[str, Any], answers: Sequence[Answer], path: Path) -> None:
    """Write the page to ``path``, whole or not at all."""
    sections: list[tuple[str, str | go.Figure]] = [
        ("Error beside the naive rules", _errors(summary["replay"]["projects"])),
        ("Predictions with their intervals over time", _predictions(answers)),
        ("Errors: share of builds within a relative error", _error_curves(answers)),
        (f"Coverage of the interval over time (share of the latest {_ROLLING})", _coverage(answers)),
        ("Where the milliseconds went", _milliseconds(summary["load"])),
    ]
    text = page(
        title="How long will the build take?",
        subtitle=f"{summary['data']['source']}. The last fifth of each tenant's builds was asked for when it was "
        "queued, through the generated client; its outcome was told when it ended, never earlier.",
        finished=summary["finished_time"],
        head=tiles(_tiles(summary)),
        sections=sections,
    )
    write_page(text, path)


def _tiles(summary: dict[str, Any]) -> list[tuple[str, str]]:
    overall, load = summary["replay"]["overall"], summary["load"]
    lowest, highest = overall.get("coverage_range", (float("nan"), float("nan")))
    compared = f"{overall.get('projects_better_than_best_naive', 0)} of {overall.get('projects_compared', 0)}"
    return [
        (f"{overall.get('median_mape', float('nan')):.1%}", "MAPE, median over projects"),
        (compared, "projects better than the best naive rule"),
        (f"{lowest:.0%}–{highest:.0%}", "covered by the 90 % interval"),
        (f"{load['latency_seconds']['p95'] * 1e3:.1f} ms", f"p95 at {load['rate']:g} requests a second"),
        (f"{overall['answered']:,} / {overall['asked']:,}", "answered"),
    ]


def _errors(projects: dict[str, Any]) -> str:
    head = ("project", "builds", "MAPE", "MdAPE", "model", *RULES, "model / best rule", "in 90 %", "width")
    rows: list[list[Cell]] = []
    for name, project in projects.items():
        if "model" not in project:
            continue
        model, naive, interval = project["model"], project.get("naive", {}), project["interval"]
        ratio = project.get("mae_over_best_naive", float("nan"))
        rows.append(
            [
                name,
                f"{project['passed']:,}",
                f"{model['mape']:.1%}",
                f"{model['mdape']:.1%}",
                f"{model['mae_seconds']:.1f}",
                *(f"{naive[rule]['mae_seconds']:.1f}" if rule in naive else "–" for rule in RULES),
                (f"{ratio:.3f}", "good" if ratio <= 1 else "bad"),
                f"{interval['coverage']:.1%}",
                f"{interval['mean_relative_width']:.0%}",
            ]
        )
    return (
        "<p>Builds that passed; mean absolute error in seconds. The naive rules know the same past.</p>"
        f"{table(head, rows)}<p>{_others(projects)}</p>"
    )


def _others(projects: dict[str, Any]) -> str:
    builds = sum(project.get("ended_without_passing", {}).get("builds", 0) for project in projects.values())
    return (
        f"Another {builds:,} of the builds asked for ended without passing. What is predicted is the duration of a "
        "build that passes; one that fails stops somewhere before, and no figure above counts it."
        if builds
        else ""
    )


def _judged(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    projects: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.actual_seconds is not None and not answer.error:
            projects.setdefault(answer.project, []).append(answer)
    return projects


def _predictions(answers: Sequence[Answer]) -> go.Figure:
    projects = _judged(answers)
    figure = make_subplots(rows=max(len(projects), 1), cols=1, subplot_titles=list(projects), vertical_spacing=0.06)
    for row, judged in enumerate(projects.values(), start=1):
        times = [answer.queued_time for answer in judged]
        first = row == 1
        upper, lower = [answer.upper_seconds for answer in judged], [answer.lower_seconds for answer in judged]
        figure.add_scatter(
            x=times, y=upper, mode="lines", line_width=0, showlegend=False, hoverinfo="skip", row=row, col=1
        )
        figure.add_scatter(
            x=times, y=lower, mode="lines", line_width=0, fill="tonexty", fillcolor=_COLOURS["band"],
            name="90 % interval", showlegend=first, hoverinfo="skip", row=row, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=times, y=[answer.median_seconds for answer in judged], mode="lines", line_color=_COLOURS["model"],
            name="predicted median", showlegend=first, row=row, col=1,
        )  # fmt: skip
        for within, label, colour in ((True, "actual", "actual"), (False, "actual, outside the interval", "miss")):
            points = [answer for answer in judged if _within(answer) == within]
            figure.add_scatter(
                x=[answer.queued_time for answer in points], y=[answer.actual_seconds for answer in points],
                mode="markers", marker={"size": 4, "color": _COLOURS[colour]}, name=label, showlegend=first,
                text=[answer.build_id for answer in points], row=row, col=1,
            )  # fmt: skip
        shown = np.percentile([answer.actual_seconds or 0.0 for answer in judged] + upper, 99)
        figure.update_yaxes(title_text="seconds", range=[0, float(shown) * 1.15], row=row, col=1)
    figure.update_layout(height=300 * max(len(projects), 1) + 60, **LAYOUT)
    return figure


def _within(answer: Answer) -> bool:
    return answer.lower_seconds <= (answer.actual_seconds or 0.0) <= answer.upper_seconds


def _error_curves(answers: Sequence[Answer]) -> go.Figure:
    projects = _judged(answers)
    figure = make_subplots(rows=1, cols=max(len(projects), 1), subplot_titles=list(projects), shared_yaxes=True)
    dashes = dict(zip(RULES, ("dot", "dash", "dashdot", "longdash"), strict=True))
    for column, judged in enumerate(projects.values(), start=1):
        comparable = [answer for answer in judged if answer.naive]
        curves = {"model": [_relative(answer, answer.median_seconds) for answer in comparable]}
        curves |= {rule: [_relative(answer, answer.naive[rule]) for answer in comparable] for rule in RULES}
        for name, relative in curves.items():
            line = {"color": _COLOURS["model"], "width": 3} if name == "model" else {"dash": dashes[name], "width": 1.5}
            figure.add_scatter(
                x=np.sort(relative), y=np.arange(1, len(relative) + 1) / max(len(relative), 1), mode="lines",
                line=line, name=name, legendgroup=name, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(range=[0, 0.5], tickformat=".0%", row=1, col=column)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    figure.update_layout(height=380, **LAYOUT)
    return figure


def _relative(answer: Answer, predicted: float) -> float:
    actual = answer.actual_seconds or 1.0
    return abs(predicted - actual) / max(actual, 1e-3)


def _coverage(answers: Sequence[Answer]) -> go.Figure:
    figure = go.Figure()
    for project, judged in _judged(answers).items():
        within = np.array([_within(answer) for answer in judged], dtype=float)
        window = min(_ROLLING, len(within))
        rolling = np.convolve(within, np.ones(window) / window, mode="valid")
        share = np.arange(window, len(within) + 1) / len(within)
        figure.add_scatter(x=share, y=rolling, mode="lines", name=project)
    figure.add_hrect(y0=0.85, y1=0.95, fillcolor="#1a7f37", opacity=0.08, line_width=0)
    figure.add_hline(y=0.9, line_dash="dot")
    figure.update_xaxes(title_text="share of the replayed builds", tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", range=[0.5, 1.02])
    figure.update_layout(height=380, **LAYOUT)
    return figure


def _milliseconds(load: dict[str, Any]) -> go.Figure:
    # The method's span holds the others; what its name says before the last slash is the same for all.
    stages = {
        name.rpartition("/")[2]: figures
        for name, figures in sorted(load["stages"].items(), key=lambda item: item[1]["p50"])
        if figures["count"] >= load["requests"] / 2
    }
    names = [*stages, "end to end, seen by the client"]
    total = load["latency_seconds"]
    figure = go.Figure()
    for label, colour in (("p50", _COLOURS["model"]), ("p95", "#8ab4f8")):
        values = [*(figures[label] for figures in stages.values()), total[label]]
        figure.add_bar(
            y=names, x=[value * 1e3 for value in values], orientation="h", name=label, marker_color=colour,
            text=[f"{value * 1e3:.2f}" for value in values],
        )  # fmt: skip
    figure.update_xaxes(title_text="milliseconds")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=120 + 60 * len(names), barmode="group", **LAYOUT)
    return figure
