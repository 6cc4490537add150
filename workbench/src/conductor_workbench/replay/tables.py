"""Figures of a replay as a person would read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from conductor_workbench.replay.naive import RULES

_LEAST_WIDTH = 118


def wide_console() -> Console:
    """Standard output, wide enough for the table even where it is no terminal."""
    console = Console()
    return Console(width=max(console.width, _LEAST_WIDTH)) if not console.is_terminal else console


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print accuracy beside the naive rules, coverage, and latency."""
    console = wide_console()
    console.print(accuracy_table(summary))
    overall, latency = summary["overall"], summary["latency_seconds"]
    if "median_mape" in overall:
        console.print(f"MAPE, median over projects: {overall['median_mape']:.1%}")
    if latency:
        console.print(
            f"Latency of {overall['asked']:,} requests: p50 {latency['p50'] * 1e3:.1f} ms, "
            f"p95 {latency['p95'] * 1e3:.1f} ms, p99 {latency['p99'] * 1e3:.1f} ms, max {latency['max'] * 1e3:.1f} ms"
        )
    methods: dict[str, int] = {}
    for project in summary["projects"].values():
        for method, count in project["methods"].items():
            methods[method] = methods.get(method, 0) + count
    console.print("Answered by " + ", ".join(f"{method} {count:,}" for method, count in sorted(methods.items())))
    if overall["errors"]:
        console.print(f"[red]Errors: {overall['errors']}")


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """A row per project: errors in seconds over the builds that passed, beside the naive rules'."""
    table = Table(
        title="Builds that passed: mean absolute error in seconds beside the naive rules, and the 90 % interval",
        box=None,
        pad_edge=False,
    )
    table.add_column("project", overflow="fold")
    for column in ("builds", "MAPE", "MAE", *RULES, "/ best", "in 90 %", "width"):
        table.add_column(column, justify="right")
    for name, project in summary["projects"].items():
        if "model" not in project:
            table.add_row(name, str(project["passed"]))
            continue
        naive = project.get("naive", {})
        ratio = project.get("mae_over_best_naive")
        table.add_row(
            name,
            f"{project['passed']:,}",
            f"{project['model']['mape']:.1%}",
            f"{project['model']['mae_seconds']:.1f}",
            *(f"{naive[rule]['mae_seconds']:.1f}" if rule in naive else "–" for rule in RULES),
            "–" if ratio is None else f"[{'green' if ratio <= 1 else 'yellow'}]{ratio:.3f}",
            f"{project['interval']['coverage']:.1%}",
            f"{project['interval']['mean_relative_width']:.0%}",
        )
    return table
