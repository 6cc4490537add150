"""From an event to a feature online: what is stored, what is not, and how late?"""

from __future__ import annotations

from conductor_dashboards.panels import CALLS, STAGES, Board, Panel, increase, quantile, rate

EVENTS = Board(
    "events",
    "Conductor: events and features",
    (
        (
            "Events",
            (
                Panel(
                    "Events",
                    "A second, by what became of them.",
                    "reqps",
                    ((rate("conductor_ingest_events_total", "conductor_outcome"), "{{conductor_outcome}}"),),
                ),
                Panel(
                    "Dead letters",
                    "Share of events that can't be taken in.",
                    "percentunit",
                    (
                        (
                            'sum by (job) (conductor:events:rate15m{job=~"$job", conductor_outcome="dead_letters"})'
                            ' / sum by (job) (conductor:events:rate15m{job=~"$job"})',
                            "{{job}}",
                        ),
                    ),
                    "DeadLettersGrow",
                ),
                Panel(
                    "Parked",
                    "Events put aside in an hour, because their batch looks wrong.",
                    "short",
                    (
                        (
                            increase("conductor_ingest_events_total", "job", ', conductor_outcome="parked"'),
                            "{{job}}",
                        ),
                    ),
                    "EventsParked",
                ),
                Panel(
                    "Publications",
                    "Streams of events a second, by outcome.",
                    "reqps",
                    (
                        (
                            rate(
                                f"{CALLS}_count",
                                "rpc_response_status_code",
                                ', rpc_method=~".*EventService/PublishEvents"',
                            ),
                            "{{rpc_response_status_code}}",
                        ),
                    ),
                    "IngestionFails",
                ),
                Panel(
                    "Duration of stages",
                    "95 % of the batches are faster.",
                    "s",
                    (
                        (
                            quantile(0.95, STAGES, "conductor_stage", ', conductor_stage=~"ingest.+"'),
                            "{{conductor_stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Feature rows",
                    "Rows appended to the logs a second.",
                    "reqps",
                    ((rate("conductor_ingest_feature_rows_total", "job"), "{{job}}"),),
                ),
            ),
        ),
        (
            "Online",
            (
                Panel(
                    "From stored to online",
                    "95 % of what is carried is faster. The oldest row of each batch counts.",
                    "s",
                    ((quantile(0.95, "conductor_online_delay_seconds", "job"), "{{job}}"),),
                    "FeaturesLate",
                ),
                Panel(
                    "Incomplete for",
                    "Since all that was committed was online.",
                    "s",
                    (('conductor_online_behind_seconds{job=~"$job"}', "{{instance}}"),),
                    "TailingWriterBehind",
                ),
                Panel(
                    "Rows carried",
                    "A second, by view.",
                    "reqps",
                    ((rate("conductor_online_rows_total", "conductor_view"), "{{conductor_view}}"),),
                ),
            ),
        ),
    ),
)
