"""The figures of overload as a person would read them."""

from __future__ import annotations

from rich.table import Table

from conductor_workbench.bench.figures import Figures

_LOADS = {
    "below": "L1",
    "above": "L3",
    "after": "after L3",
    "saturation_at_end": "saturated again",
}
_COLUMNS = ("sent", "answered / s", "within 0.1 s / s", "p50 ms", "p95 ms", "refused", "its p95 ms", "CPU ms an answer")


def overload_table(figures: Figures) -> Table:
    """A line for each load."""
    fairness, rated = figures["fairness"], figures["fairness_with_rates"]
    above, after = figures["goodput_share"], figures["after"]["last_over_budget_s"]
    lines = (
        f"C, the highest rate of which all but a hundredth are answered within 0.1 s: {figures['capacity_per_s']:,.0f} "
        f"a second; the most that are at any rate: {figures['most_in_budget_per_s']:,.0f}.",
        f"L3: {above:.2f} of C is answered, {figures['goodput_in_budget_share']:.2f} within 0.1 s; the last call over "
        f"0.1 s {after:.1f} s after.",
        f"L5: others' p95 {fairness['p95_beside_over_calm']:.2f} times that without; {fairness['others_failed']} of "
        f"their calls failed. With rates {rated['p95_beside_over_calm']:.2f} times; {rated['others_failed']} failed.",
    )
    table = Table("", title="More than a server can take", caption="\n".join(lines), title_justify="left")
    table.caption_justify = "left"
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    _line(table, "saturated", figures["saturation"])
    for rate in figures["rates"]:
        _line(table, f"at {rate['rate_per_s']:,.0f} / s", rate)
    for name, title in _LOADS.items():
        _line(table, title, figures[name])
    for title, turns in (("L5", fairness["turns"]), ("L5 with rates", rated["turns"])):
        for number, turn in enumerate(turns, 1):
            for name in ("calm", "beside", "loud"):
                _line(table, f"{title}, {name} {number}", turn[name])
    return table


def _line(table: Table, title: str, found: Figures) -> None:
    answered, refused = found["answered"], found["refused"]
    values = (
        found["sent"], found["answered_per_s"], found["answered_in_budget_per_s"], answered.get("p50_ms"),
        answered.get("p95_ms"), refused["count"], refused.get("p95_ms"), found.get("server_cpu_ms_per_answer"),
    )  # fmt: skip
    table.add_row(title, *("" if value is None else f"{value:,.4g}" for value in values))
