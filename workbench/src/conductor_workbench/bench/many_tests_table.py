"""The figures of calls about many tests as a person would read them."""

from __future__ import annotations

from rich.table import Table

from conductor_workbench.bench.figures import Figures

_CALLS = {"predict": "predict", "predict_known": "predict all known", "select": "select"}
_COLUMNS = ("tests", "call", "p50 ms", "p95 ms", "one after the other / s", "server's CPU ms", "errors")


def many_tests_table(figures: Figures) -> Table:
    """A line for each size and call, and the floors."""
    table = Table(title="Calls about many tests", title_justify="left")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "call" else "right")
    for of_size, found in figures.items():
        count = f"{int(of_size.removeprefix('tests_')):,}"
        for name, label in _CALLS.items():
            rate, most = found[name]["at_rate"], found[name]["saturation"]
            table.add_row(
                count,
                label,
                f"{rate['latency']['p50_ms']:.1f}",
                f"{rate['latency']['p95_ms']:.1f}",
                f"{most['throughput']['median_per_s']:.1f}",
                f"{most['server_cpu_ms_per_request']:.1f}",
                f"{sum(rate['errors'].values()) + sum(most['errors'].values())}",
            )
        for floor, label in (("redis_mget", "one MGET, undecoded"), ("onnx_runtime", "ONNX Runtime alone")):
            table.add_row(count, label, *(f"{found['floors'][floor][which]:.1f}" for which in ("p50_ms", "p95_ms")))
    return table
