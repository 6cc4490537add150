"""What a dashboard is made of."""

from __future__ import annotations

from dataclasses import dataclass

RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """PromQL, and the legend of its lines."""
    alert: str = ""
    """The alert that the graph explains."""
    exemplars: bool = False
    """Show the traces that stand for a histogram's buckets."""


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of graphs."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def quantile(share: float, metric: str, by: str, matchers: str = "") -> str:
    """Of a histogram."""
    selected = f'{metric}_bucket{{job=~"$job"{matchers}}}'
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({selected}[{RATE}])))"


def rate(metric: str, by: str, matchers: str = "") -> str:
    """Of a counter, a second."""
    return f'sum by ({by}) (rate({metric}{{job=~"$job"{matchers}}}[{RATE}]))'


CALLS, STAGES = "rpc_server_call_duration_seconds", "conductor_stage_duration_seconds"
TEST_METHODS = ', rpc_method=~"conductor.testing.v1.TestIntelligenceService/.+"'


def increase(metric: str, by: str, matchers: str = "") -> str:
    """Of a counter, in an hour."""
    return f'sum by ({by}) (increase({metric}{{job=~"$job"{matchers}}}[1h]))'
