"""The report of data quality as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape

from conductor_warehouse.data_quality.report import FieldReport, QualityReport, TypeReport

STABLE, MAJOR = 0.1, 0.25
"""Population stability index: the usual bounds of no change and of a major one."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data quality of {tenant}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #24292f; max-width: 1300px; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} .sub {{ color: #57606a; margin-top: 0 }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 2rem }}
th, td {{ text-align: right; padding: .25rem .6rem; vertical-align: top }}
th:first-child, td:first-child, .text {{ text-align: left }}
td:not(.text) {{ white-space: nowrap }} tr + tr td {{ border-top: 1px solid #d0d7de }}
th {{ border-bottom: 2px solid #d0d7de; font-weight: 600 }}
.bad {{ color: #cf222e; font-weight: 600 }} .warn {{ color: #9a6700; font-weight: 600 }} .none {{ color: #8c959f }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0 }}
.tile {{ flex: 1 1 150px; border: 1px solid #d0d7de; border-radius: 8px; padding: .8rem 1rem }}
.tile b {{ display: block; font-size: 1.5rem }} .tile span {{ color: #57606a }}
</style></head><body>
<h1>Data quality of {tenant}</h1>
<p class="sub">What came in from {first} to {last} (UTC), beside the {days} days before. Made {made} UTC.</p>
<div class="tiles">{tiles}</div>
<h2>Parked batches</h2>{parked}
<h2>Findings</h2>{findings}
{types}
<p class="sub">Percentiles are exact to within 9 %. Change is the population stability index against the period before:
below {stable} stable, above {major} a major change. Outliers lie beyond three interquartile ranges of the logarithms.
</p></body></html>
"""


def to_html(report: QualityReport) -> str:
    """The page."""
    tiles = [
        (f"{sum(one.received for one in report.types):,}", "events received"),
        (f"{sum(one.stored for one in report.types):,}", "stored"),
        (f"{sum(one.duplicates for one in report.types):,}", "had been stored before"),
        (f"{report.dead_letters:,}", "dead letters"),
        (f"{sum(batch['events'] for batch in report.parked if batch['status'] == 'parked'):,}", "events parked"),
    ]
    return _PAGE.format(
        tenant=escape(report.tenant_id),
        first=report.first_day,
        last=report.last_day,
        days=(report.last_day - report.first_day).days + 1,
        made=report.made_time.strftime("%Y-%m-%d %H:%M"),
        tiles="".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles),
        parked=_table(
            ["Number", "State", "Events", "Parked", "Reason"],
            [
                [
                    batch["id"],
                    batch["status"],
                    batch["events"],
                    f"{batch['parked_time']:%Y-%m-%d %H:%M}",
                    _Text(batch["reason"]),
                ]
                for batch in report.parked
            ],
            "No batch was parked.",
        ),
        findings=_table(
            ["Day", "Severity", "Type", "Field", "Check", "Batches", "What"],
            [
                [
                    one["date"],
                    _severity(one["severity"]),
                    _Text(one["event_type"]),
                    _Text(one["field"]),
                    _Text(one["check"]),
                    one["batches"],
                    _Text(one["message"]),
                ]
                for one in report.findings
            ],
            "Every batch passed every check.",
        ),
        types="".join(map(_type, report.types)) or "<p>No events came in.</p>",
        stable=STABLE,
        major=MAJOR,
    )


class _Text(str):
    """Left-aligned in a table."""

    __slots__ = ()


class _Html(str):
    """Needs no escaping."""

    __slots__ = ()


def _type(one: TypeReport) -> str:
    times = f"{one.first_time:%Y-%m-%d %H:%M} to {one.last_time:%Y-%m-%d %H:%M}" if one.first_time else "nothing new"
    late = "" if one.median_lateness_seconds is None else f"; median lateness {_number(one.median_lateness_seconds)} s"
    return (
        f"<h2>{escape(one.event_type)}</h2>"
        f'<p class="sub">{one.received:,} received in {one.batches:,} batches, {one.stored:,} stored,'
        f" {one.duplicates:,} stored before; of {times}{late}</p>"
        + _table(
            [
                "Field",
                "Unit",
                "Told by",
                "Before",
                "5 %",
                "25 %",
                "Median",
                "75 %",
                "95 %",
                "Least",
                "Greatest",
                "Implausible",
                "Outliers",
                "Change",
                "KS",
            ],
            [_field(field) for field in one.fields],
            "No fields are looked at.",
        )
    )


def _field(one: FieldReport) -> list[object]:
    quantiles = [_number(value) for value in one.quantiles] or [_Html("")] * 5
    return [
        one.name,
        one.unit,
        _share(one.completeness),
        _share(one.completeness_before),
        *quantiles,
        _number(one.minimum),
        _number(one.maximum),
        one.implausible or "",
        one.outliers or "",
        _change(one.stability_index),
        _number(one.ks_distance),
    ]


def _table(head: list[str], rows: list[list[object]], empty: str) -> str:
    if not rows:
        return f"<p>{escape(empty)}</p>"
    cells = "".join(
        "<tr>"
        + "".join(f"<td{' class=text' if isinstance(cell, _Text) else ''}>{_cell(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{cells}</table>"


def _cell(value: object) -> str:
    return value if isinstance(value, _Html) else escape(str(value))


def _number(value: float | None) -> str:
    if value is None:
        return _Html('<span class="none">–</span>')
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return _Html('<span class="none">–</span>') if value is None else f"{value:.1%}"


def _change(value: float | None) -> str:
    if value is None or value < STABLE:
        return _number(value)
    return _Html(f'<span class="{"bad" if value > MAJOR else "warn"}">{value:.3g}</span>')


def _severity(name: str) -> str:
    return _Html(f'<span class="{"bad" if name == "error" else "warn"}">{escape(name)}</span>')
