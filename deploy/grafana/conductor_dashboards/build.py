"""Dashboards as Grafana imports them."""

from __future__ import annotations

from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, VariableRefresh

from conductor_dashboards.events import EVENTS
from conductor_dashboards.models import MODELS
from conductor_dashboards.panels import Board, Panel
from conductor_dashboards.server import SERVER

_RUNBOOK = "docs/runbook.md"
_LEGEND = (
    common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
)
_SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")

BOARDS = (SERVER, MODELS, EVENTS)


def built(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"conductor-{board.name}")
        .tags(["conductor"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Job")
            .datasource(_SOURCE)
            .query('label_values(up{job=~"conductor.*"}, job)')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
        .link(dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(_RUNBOOK))
    )
    numbers = count(1)
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_graph(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .legend(_LEGEND)
        .span(8)
    )
    for letter, (query, legend) in zip(ascii_uppercase, panel.queries, strict=False):
        asked = prometheus.Dataquery().ref_id(letter).expr(query).legend_format(legend)
        graph = graph.with_target(asked.exemplar(True) if panel.exemplars else asked)
    if panel.alert:
        link = dashboard.DashboardLink(panel.alert).type(DashboardLinkType.LINK)
        graph = graph.links([link.url(f"{_RUNBOOK}#{panel.alert.lower()}")])
    return graph
