"""The figures as a person would read them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from conductor_workbench.bench.figures import Figures
from conductor_workbench.bench.many_tests_table import many_tests_table
from conductor_workbench.bench.overload_table import overload_table
from conductor_workbench.bench.stages import STAGES
from conductor_workbench.bench.thirty_fields import ENTITY_COUNTS

_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


def print_figures(figures: Figures, console: Console) -> None:
    """Print what was measured, and every target."""
    if "ingestion" in figures:
        console.print(_ingestion(figures["ingestion"]))
        console.print()
    if "curve" in figures:
        console.print(_curve(figures["curve"]))
        console.print()
    if "models" in figures:
        console.print(_models(figures["models"]))
        console.print()
    if "overload" in figures:
        console.print(overload_table(figures["overload"]))
        console.print()
    if "many_tests" in figures:
        console.print(many_tests_table(figures["many_tests"]))
        console.print()
    if "stages" in figures:
        console.print(_stages(figures["stages"]))
        console.print()
    if "endurance" in figures:
        found = figures["endurance"]
        begin, end = found["memory"][0], found["memory"][-1]
        console.print(
            f"{found['requests']:,} requests, {found['errors']} errors: {begin['rss_mb']:.0f} MB resident before, "
            f"{end['rss_mb']:.0f} after; {found['growth_mb_per_million']} MB a million once warm.\n"
        )
    if "unary" in figures:
        _print_serving(figures, console)
    if figures["targets"]:
        console.print(_targets(figures))


def _print_serving(figures: Figures, console: Console) -> None:
    for table in (_latencies(figures), _throughputs(figures), _feature_reads(figures), _model(figures)):
        console.print(table)
        console.print()
    cost = figures["unary_traced"]["cpu_over_untraced"]
    usual, every = cost["by_default"], cost["every_call"]
    console.print(
        f"CPU of a prediction with tracing over that without: {usual['median']:.3f} "
        f"(half of the turns {usual['lower_quartile']:.3f} to {usual['upper_quartile']:.3f}); "
        f"with a trace of every call {every['median']:.2f}."
    )
    start_up, memory = figures["start_up"], figures["memory"]
    console.print(
        f"Start-up to SERVING: {start_up['median_seconds']:.1f} s (median of {start_up['runs']}; "
        f"{start_up['least_seconds']:.1f} to {start_up['most_seconds']:.1f}). "
        f"Memory of the server: {memory['idle']['rss_mb']:.0f} MB resident when idle, "
        f"{memory['after_load']['rss_mb']:.0f} after load ({memory['after_load']['uss_mb']:.0f} its own)."
    )
    console.print()


def _stages(figures: Figures) -> Table:
    found = {
        f"{name.split('_')[0]}, {size.removeprefix('together_').replace('_', ' ')}": of_size
        for name, sizes in figures.items()
        for size, of_size in sizes.items()
    }
    table = _table("Processor time of a prediction by stage, µs: contributions, how many together", "", *found)
    for stage in (*STAGES, "sum"):
        table.add_row(stage.replace("_", " "), *(f"{of_size[f'{stage}_us']:.1f}" for of_size in found.values()))
    return table


def _ingestion(figures: Figures) -> Table:
    columns = ("1 worker", "2 workers", "raw COPY", "share of it", "first tenth", "last tenth", "bytes each")
    table = _table("Ingestion with all features, a second", "", *columns, "compressed")
    for name, key in {"build events": "builds", "test results": "tests"}.items():
        found = figures[key]
        curve = found["workers_1"]["worker_items_per_s_by_tenth"]
        compressed = found["compressed_bytes_per_item"]
        table.add_row(
            name,
            *(f"{found[f'workers_{workers}']['items_per_s']:,.0f}" for workers in (1, 2)),
            f"{found['floor']['items_per_s']:,.0f}",
            f"{found['share_of_floor']:.2f}",
            *(f"{curve[end]:,.0f}" for end in (0, -1)),
            f"{found['bytes_per_item']:,.0f}",
            "–" if compressed is None else f"{compressed:,.0f}",
        )
    fresh = figures["freshness"]
    table.caption = (
        f"Acknowledged to online, beside {fresh['other_events_per_s']} events a second: "
        f"p50 {fresh['p50_ms']:.0f} ms, p95 {fresh['p95_ms']:.0f} ms."
    )
    return table


def _models(figures: Figures) -> Table:
    columns = ("p50", "p95", "p99", "server CPU", "errors", "by the tenant's own")
    table = _table(f"{figures['models']:,} tenants' models beside one, ms", "", *columns)
    for number, turn in enumerate(figures["turns"], 1):
        for name, key in {f"one model, turn {number}": "one", "  all of them": "many"}.items():
            found = turn[key]
            table.add_row(
                name,
                *(f"{found['latency'][percentile]:.2f}" for percentile in _PERCENTILES),
                f"{found['server_cpu_ms_per_request']:.2f}",
                str(sum(found["errors"].values())),
                f"{turn['answers']['hit_rate']:.0%}" if key == "many" else "",
            )
    load, poll, start_up, memory = (figures[key] for key in ("load", "poll", "start_up_seconds", "memory"))
    table.caption = (
        f"A model: {load['memory_kb_each']:.0f} kB resident ({figures['graph_bytes'] / 1e3:.0f} kB graph), "
        f"{load['read_and_load']['p50_ms']:.0f} ms to load, {load['verify']['p50_ms']:.0f} ms to verify. "
        f"Start-up {start_up['one']:.1f} s with one, {start_up['many']:.1f} s with all. "
        f"Memory {memory['one']['rss_mb']:.0f} MB with one, {memory['many']['rss_mb']:.0f} MB with all. "
        f"A poll: {poll['quiet_ms']:.1f} ms, {poll['one_change_ms']:.1f} ms after a change. "
        f"A change serves after {figures['change']['median_s']:.2f} s."
    )
    return table


def _curve(figures: Figures) -> Table:
    table = _table(
        "Build events as they become more", "so far", "CPU µs each", "with the first only", "ratio", "bytes each"
    )
    for point in figures["points"]:
        table.add_row(
            f"{point['events']:,}",
            f"{point['cpu_us_per_item']:,.0f}",
            f"{point['cpu_us_per_item_at_first']:,.0f}",
            f"{point['ratio']:.2f}",
            f"{point['bytes_per_item']:,.0f}",
        )
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _latencies(figures: Figures) -> Table:
    table = _table("Latency at fixed rates, ms", "", "a second", "p50", "p95", "p99", "server CPU", "errors")
    unary, streamed = figures["unary"], figures["streamed"]
    rows = {
        "prediction": unary["rate_100"],
        "prediction, half of saturation": unary["saturation_50_percent"],
        "prediction, 0.7 of saturation": unary["saturation_70_percent"],
        "  without contributions": unary["without_contributions"]["rate_100"],
        "streamed": streamed["rate_100"],
        "streamed, half of saturation": streamed["saturation_50_percent"],
        "streamed, 0.7 of saturation": streamed["saturation_70_percent"],
        "  without TLS and tokens": figures["unary_insecure"]["rate_100"],
        "  with tracing": figures["unary_traced"]["rate_100"],
        "empty echo, TLS": figures["echo"]["rate_100"],
        "empty echo, no TLS": figures["echo_insecure"]["rate_100"],
        "health check": figures["health"],
    }
    for name, found in rows.items():
        latency = found["latency"]
        table.add_row(
            name,
            f"{found['rate_per_s']:.0f}",
            *(f"{latency[key]:.2f}" for key in _PERCENTILES),
            f"{found['server_cpu_ms_per_request']:.2f}",
            str(sum(found["errors"].values())),
        )
    larger = {
        f"batch of {figures['batch']['size']}, {name.replace('_', ' ')}": found
        for name, found in figures["batch"].items()
        if isinstance(found, dict)
    }
    larger |= {f"raw tensors, {name.replace('_', ' ')}": found for name, found in figures["tensors"].items()}
    for name, found in larger.items():
        table.add_row(
            f"{name}, saturated",
            f"{found['throughput']['median_per_s']:.0f}",
            *(f"{found['latency'][key]:.1f}" for key in _PERCENTILES),
            f"{found['server_cpu_ms_per_request']:.1f}",
            str(sum(found["errors"].values())),
        )
        for share in ("50", "70"):
            part = found[f"saturation_{share}_percent"]
            table.add_row(
                f"  at 0.{share[0]} of that",
                f"{part['rate_per_s']:.0f}",
                *(f"{part['latency'][key]:.1f}" for key in _PERCENTILES),
                f"{part['server_cpu_ms_per_request']:.1f}",
                str(sum(part["errors"].values())),
            )
    return table


def _throughputs(figures: Figures) -> Table:
    table = _table("Saturation, answers a second", "", "median", "least", "most", "server CPU ms", "floor / this")
    echo, echo_insecure = figures["echo"]["saturation"], figures["echo_insecure"]["saturation"]
    rows = {
        "prediction": (figures["unary"]["saturation"], echo),
        "  without contributions": (figures["unary"]["without_contributions"]["saturation"], echo),
        "  without TLS and tokens": (figures["unary_insecure"]["saturation"], echo_insecure),
        "  with tracing": (figures["unary_traced"]["saturation"], echo),
        "  by two workers": (figures["two_workers"]["saturation"], echo),
        "streamed": (figures["streamed"]["saturation"], echo),
        f"  with {figures['streamed']['most_items']['in_flight']} under way": (figures["streamed"]["most_items"], echo),
        "  by two workers, streamed": (figures["two_workers"]["streamed"], echo),
        "raw tensors, a row": (figures["tensors"]["rows_1"], echo),
        "  by two workers, a row": (figures["two_workers"]["tensors_rows_1"], echo),
        "raw tensors, 2,000 rows": (figures["tensors"]["rows_2000"], echo),
        "  by two workers, 2,000 rows": (figures["two_workers"]["tensors_rows_2000"], echo),
        "batch of 256 with contributions": (figures["batch"]["with_contributions"], echo),
        "  by two workers, batch": (figures["two_workers"]["batch"], echo),
        "empty echo, TLS": (echo, echo),
        "empty echo, no TLS": (echo_insecure, echo_insecure),
    }
    for name, (found, floor) in rows.items():
        throughput = found["throughput"]
        table.add_row(
            name,
            *(f"{throughput[f'{which}_per_s']:,.0f}" for which in ("median", "least", "most")),
            f"{found['server_cpu_ms_per_request']:.2f}",
            f"{floor['throughput']['median_per_s'] / throughput['median_per_s']:.1f}",
        )
    for name, found in figures["batch"].items():
        if isinstance(found, dict):
            table.add_row(f"rows in batches, {name.replace('_', ' ')}", f"{found['rows_per_s']:,.0f}")
    return table


def _feature_reads(figures: Figures) -> Table:
    reads = figures["feature_read"]
    columns = [f"{count} {'entity' if count == 1 else 'entities'}" for count in ENTITY_COUNTS]
    table = _table(f"Reading {reads['fields']} features, p50 / p95 ms", "", *columns)
    rows = {
        "reader: read": "read",
        "reader: read_block": "read_block",
        "raw MGET of redis-py": "redis_mget",
        "Feast on our store": "feast_packed",
        "Feast on its Redis store": "feast_redis",
        "  with to_dict()": "feast_redis_values",
    }
    found = [reads[f"entities_{count}"] for count in ENTITY_COUNTS]
    for name, key in rows.items():
        table.add_row(name, *(f"{beside[key]['p50_ms']:.2f} / {beside[key]['p95_ms']:.2f}" for beside in found))
    table.add_row("Feast's Redis store / read", *(f"{beside['feast_redis_over_read']:.0f} ×" for beside in found))
    return table


def _model(figures: Figures) -> Table:
    runs = figures["model_run"]
    title = f"ONNX Runtime alone, µs ({runs['algorithm']}, {runs['graph_bytes'] / 1e3:.0f} kB)"
    table = _table(title, "rows", "p50", "p95", "p99")
    for name, found in runs.items():
        if isinstance(found, dict):
            table.add_row(name.removeprefix("rows_"), *(f"{found[key]:.0f}" for key in ("p50_us", "p95_us", "p99_us")))
    return table


def _targets(figures: Figures) -> Table:
    table = _table("Targets", "", "bound", "measured", "")
    for target in figures["targets"]:
        bound = f"≥ {target['at_least']:g}" if "at_least" in target else f"≤ {target['at_most']:g}"
        measured = "–" if target["measured"] is None else f"{target['measured']:g}"
        table.add_row(target["what"], bound, measured, "[green]met" if target["met"] else "[red]missed")
    return table
