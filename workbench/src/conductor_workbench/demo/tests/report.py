"""The page of the tests' demo: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from conductor_training.test_failure.metrics import gain
from conductor_workbench.demo.page import LAYOUT, Cell, page, table, tiles, write_page
from conductor_workbench.demo.tests.histories import Array
from conductor_workbench.demo.tests.judging import Asked

_COLOURS = {"run": "#1f6feb", "saved": "#d0d7de", "missed": "#cf222e", "found": "#1a7f37", "other": "#57606a"}
_GRID = np.linspace(0.0, 1.0, 101)
_SHOWN_TESTS = 15


def write_report(summary: Mapping[str, Any], asked: Mapping[str, Sequence[Asked]], path: Path) -> None:
    """Write the page, whole or not at all."""
    alpha = summary["miss_rate"]
    sections: list[tuple[str, str | go.Figure]] = [
        ("What was promised, and what came of it", _table(summary["tenants"])),
        ("Failures found as time is spent", _gain(asked)),
        ("Time run and time saved, run by run", _timeline(asked)),
        ("One run, test by test", _one_run(asked)),
        ("Flaky tests", _flaky(summary["tenants"])),
    ]
    text = page(
        title="Which tests to run, and in which order?",
        subtitle=f"{summary['source']}. Before each of the last runs began, the server was asked which tests to run so "
        f"that at most {alpha:.0%} of a run's failures are missed in expectation; what came of the run was told when "
        "it had ended, never earlier.",
        finished=summary["finished_time"],
        head=tiles(_tiles(summary)),
        sections=sections,
    )
    write_page(text, path)


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    tenants = summary["tenants"].values()
    saved, total = sum(one["hours_saved"] for one in tenants), sum(one["hours"] for one in tenants)
    failures, missed = sum(one["failures"] for one in tenants), sum(one["failures_missed"] for one in tenants)
    rates = [one["miss_rate"] for one in tenants if "miss_rate" in one]
    return [
        (f"{saved * 60:,.0f} min", f"of {total * 60:,.0f} saved ({saved / total if total else 0:.0%})"),
        (f"{missed:,} of {failures:,}", "failing tests missed"),
        (
            f"{max(rates, default=float('nan')):.1%}",
            f"missed of a run's failures, worst tenant; promised {summary['miss_rate']:.0%}",
        ),
        (f"{max(one['latency_ms']['p95'] for one in tenants):.0f} ms", "p95 of a selection, seen by the client"),
        (f"{sum(one['runs'] for one in tenants):,}", "runs asked for"),
    ]


def _table(tenants: Mapping[str, Any]) -> str:
    head = (
        "project", "runs", "with a failure", "promised", "missed", "time saved", "first failure after", "as it ran",
        "APFDc", "as it ran",
    )  # fmt: skip
    rows: list[list[Cell]] = []
    for name, one in tenants.items():
        ours, theirs = (one.get("orders", {}).get(order, {}) for order in ("ordered", "as it ran"))
        kept = one.get("miss_rate", 0.0) <= one["miss_rate_promised"]
        rows.append(
            [
                name,
                f"{one['runs']:,}",
                f"{one['runs_with_a_failure']:,}",
                f"{one['miss_rate_promised']:.0%}",
                (f"{one.get('miss_rate', float('nan')):.1%}", "good" if kept else "bad"),
                f"{one['time_saved']:.0%}",
                *(f"{figures.get('first_failure_minutes', float('nan')):.1f} min" for figures in (ours, theirs)),
                *(f"{figures.get('apfdc', float('nan')):.3f}" for figures in (ours, theirs)),
            ]
        )
    grounds = "; ".join(
        f"{html.escape(name)}: " + ", ".join(f"{html.escape(basis)} {count}" for basis, count in one["promise"].items())
        for name, one in tenants.items()
    )
    return table(head, rows) + f"<p>What the promises rested on, by runs: {grounds}.</p>"


def _gain(asked: Mapping[str, Sequence[Asked]]) -> go.Figure:
    orders: dict[str, tuple[str, str, Callable[[Asked], Array]]] = {
        "ordered": (_COLOURS["run"], "solid", lambda one: -one.rank),
        "as it ran": (_COLOURS["other"], "dash", lambda one: -np.arange(len(one.run.tests), dtype=np.float64)),
        "best possible": (
            _COLOURS["found"],
            "dot",
            _per_second,
        ),
    }
    figure = go.Figure()
    failing = [one for runs in asked.values() for one in runs if one.failed_count and len(one.run.tests) > 1]
    for name, (colour, dash, scores) in orders.items():
        if failing:
            curves = [gain(scores(one), one.run.failed.astype(np.float64), one.run.seconds, _GRID) for one in failing]
            figure.add_scatter(
                x=_GRID, y=np.mean(curves, axis=0), mode="lines", name=name, line={"color": colour, "dash": dash}
            )
    figure.update_xaxes(title_text="share of the run's time", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title_text="share of the run's failures", tickformat=".0%", range=[0, 1.02])
    figure.update_layout(height=420, **LAYOUT)
    return figure


def _per_second(one: Asked) -> Array:
    worth: Array = one.run.failed / np.maximum(one.run.seconds, 1e-9)
    return worth


def _timeline(asked: Mapping[str, Sequence[Asked]]) -> go.Figure:
    figure = go.Figure()
    runs = sorted((one for of_tenant in asked.values() for one in of_tenant), key=lambda one: one.run.started)
    numbers = np.arange(len(runs))
    totals = np.array([one.total_seconds for one in runs]) / 60
    saved = np.array([one.saved_seconds for one in runs]) / 60
    figure.add_bar(x=numbers, y=totals - saved, name="run", marker_color=_COLOURS["run"])
    figure.add_bar(x=numbers, y=saved, name="saved", marker_color=_COLOURS["saved"])
    for name, colour, which in (
        ("failures, all found", "found", [one.failed_count > 0 and not one.missed.any() for one in runs]),
        ("failures, some missed", "missed", [bool(one.missed.any()) for one in runs]),
    ):
        figure.add_scatter(
            x=numbers[which], y=totals[which], mode="markers", name=name, marker={"color": _COLOURS[colour], "size": 7},
            text=[f"{one.run.data.run_id}: {one.failed_count} failed, {one.missed.sum()} missed"
                  for one, shown in zip(runs, which, strict=True) if shown],
        )  # fmt: skip
    figure.update_xaxes(title_text="run")
    figure.update_yaxes(title_text="minutes")
    figure.update_layout(height=380, barmode="stack", bargap=0, **LAYOUT)
    return figure


def _one_run(asked: Mapping[str, Sequence[Asked]]) -> str:
    """The latest run in which tests were left out and something failed; else the latest with a failure."""
    runs = sorted((one for of_tenant in asked.values() for one in of_tenant), key=lambda one: one.run.started)
    failing = [one for one in runs if one.failed_count]
    if not failing:
        return "<p>No run had a failure.</p>"
    shown = next((one for one in reversed(failing) if not one.selected.all()), failing[-1])
    order = np.argsort(shown.rank, kind="stable")
    rows: list[list[Cell]] = []
    for place, at in enumerate(order[:_SHOWN_TESTS], start=1):
        failed = bool(shown.run.failed[at])
        rows.append(
            [
                shown.run.tests[at],
                str(place),
                f"{shown.probabilities[at]:.1%}",
                f"{shown.run.seconds[at]:.1f} s",
                shown.reasons[at],
                ("failed", "bad") if failed else "passed",
            ]
        )
    places = [int(shown.rank[at]) + 1 for at in np.flatnonzero(shown.run.failed)]
    told = (
        f"{shown.run.data.run_id} of {shown.run.data.repository}: {len(shown.run.tests):,} tests, "
        f"{shown.selected.sum():,} selected ({shown.audited.sum():,} of them drawn for the audit), "
        f"{shown.failed_count} failed, at places {', '.join(map(str, sorted(places)[:20]))} of the order; "
        f"{shown.missed.sum()} missed. The first {min(_SHOWN_TESTS, len(order))} of the order:"
    )
    head = ("test", "place", "probability", "took", "why it is run or left out", "what came of it")
    return f"<p>{html.escape(told)}</p>{table(head, rows)}"


def _flaky(tenants: Mapping[str, Any]) -> str:
    rows: list[list[Cell]] = [
        [
            one["test"], name, one["state"], f"{one['flaky_probability']:.0%}", f"{one['rerun_flips']:,}",
            f"{one['failures']:,} of {one['runs']:,}",
        ]
        for name, tenant in tenants.items()
        for one in tenant["flaky"]
    ]  # fmt: skip
    if not rows:
        return "<p>None is known today: none failed lately and passed in the same run.</p>"
    head = ("test", "project", "state", "next failure is flaky", "flips on equal code", "failed results")
    return table(head, rows[:_SHOWN_TESTS]) + f"<p>{len(rows):,} in all.</p>"
