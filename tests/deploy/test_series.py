"""No alert and no panel asks for what the processes do not export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conductor_dashboards.build import BOARDS, built
from deploy.exported import Exported
from deploy.queries import DEPLOY, Query, problems, queries

CALLS = "rpc_server_call_duration_seconds_count"


def test_every_query_finds_its_series(exported: Exported) -> None:
    found = {f"{query.place}: {query.text}": problems(query, exported.series) for query in queries()}
    assert len(found) > 80
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("query", [
    Query("a series that is not there", "rate(rpc_server_call_durations_seconds_count[5m])"),
    Query("a label that is not there", f'rate({CALLS}{{method="OK"}}[5m])'),
    Query("a value that no series has", f'rate({CALLS}{{rpc_response_status_code="ok"}}[5m])'),
    Query("a pattern that no series has", f'rate({CALLS}{{rpc_method=~"Predict.*"}}[5m])'),
    Query("an edge that no bucket has", 'rate(rpc_server_call_duration_seconds_bucket{le="0.2"}[5m])'),
    Query("a sum by a label that is not there", f"sum by (method) (rate({CALLS}[5m]))"),
    Query("a match by a label that is not there", f"sum by (job) (rate({CALLS}[5m])) / on (jobs) up"),
    Query("a recorded series that is not there", "conductor:predictions:rate7m"),
    Query("a label that was summed away", 'conductor:predictions:rate5m{rpc_method="a"}'),
    Query("a legend of a label that was summed away", f"sum by (job) (rate({CALLS}[5m]))", "{{rpc_method}}"),
    Query("a summary of a label that is not there", "up == 0", "{{ $labels.host }}"),
    Query("deep within", f"histogram_quantile(0.9, sum by (le) (rate({CALLS}[5m]))) and on () (1 - upp)"),
], ids=lambda query: query.place)  # fmt: skip
def test_a_planted_mistake_is_found(exported: Exported, query: Query) -> None:
    assert problems(query, exported.series)


def test_the_files_are_those_that_the_code_makes() -> None:
    assert {board.name: (DEPLOY / "grafana" / f"{board.name}.json").read_text() for board in BOARDS} == {
        board.name: built(board) for board in BOARDS
    }, "run `make dashboards`"


def test_every_panel_says_what_it_shows() -> None:
    for board in BOARDS:
        made = json.loads(built(board))
        panels = [panel for panel in made["panels"] if panel["type"] != "row"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "$datasource"


def test_no_metric_tells_of_a_tenant(exported: Exported) -> None:
    values = {value for of_name in exported.series.values() for labels in of_name for value in labels.values()}
    assert not {value for value in values if "acme" in value or "shop" in value}


def test_what_must_not_be_committed_is_not(tmp_path: Path) -> None:
    """Dashboards name no data source of ours."""
    for file in (DEPLOY / "grafana").glob("*.json"):
        assert "http://" not in file.read_text()
