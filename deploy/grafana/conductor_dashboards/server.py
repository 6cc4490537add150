"""Calls, features and processes: is it serving, how well, and where does the time go?"""

from __future__ import annotations

from conductor_dashboards.panels import CALLS, RATE, STAGES, TEST_METHODS, Board, Panel, quantile, rate

SERVER = Board(
    "server",
    "Conductor: prediction server",
    (
        (
            "Service level",
            (
                Panel(
                    "Bad predictions",
                    "Share of predictions that were not answered OK within 100 ms, by window. The lines to watch are "
                    "0.1 % (the objective), 0.6 % over 6 h and 1.44 % over 1 h.",
                    "percentunit",
                    tuple(
                        (f'conductor:predictions_bad:ratio_rate{window}{{job=~"$job"}}', f"{{{{job}}}} {window}")
                        for window in ("5m", "30m", "1h", "6h", "3d")
                    ),
                    "PredictionBudgetBurnsFast",
                ),
                Panel(
                    "Budget left of 30 days",
                    "What is left of the error budget if the last three days are like the rest.",
                    "percentunit",
                    (('1 - conductor:predictions_bad:ratio_rate3d{job=~"$job"} / 0.001', "{{job}}"),),
                    "PredictionBudgetBurns",
                ),
                Panel(
                    "Predictions",
                    "A second: all that count, and the good ones.",
                    "reqps",
                    (
                        ('conductor:predictions:rate5m{job=~"$job"}', "{{job}} all"),
                        ('conductor:predictions_good:rate5m{job=~"$job"}', "{{job}} good"),
                    ),
                ),
            ),
        ),
        (
            "Service level of answers about tests",
            (
                Panel(
                    "Bad answers about tests",
                    "Share of answers that were not OK within 250 ms, by window. The lines to watch are "
                    "1 % (the objective), 6 % over 6 h and 14.4 % over 1 h.",
                    "percentunit",
                    tuple(
                        (f'conductor:test_answers_bad:ratio_rate{window}{{job=~"$job"}}', f"{{{{job}}}} {window}")
                        for window in ("5m", "30m", "1h", "6h", "3d")
                    ),
                    "TestAnswerBudgetBurnsFast",
                ),
                Panel(
                    "Answers about tests",
                    "A second: all that count, and the good ones.",
                    "reqps",
                    (
                        ('conductor:test_answers:rate5m{job=~"$job"}', "{{job}} all"),
                        ('conductor:test_answers_good:rate5m{job=~"$job"}', "{{job}} good"),
                    ),
                    "TestAnswerBudgetBurns",
                ),
                Panel(
                    "Duration of answers about tests",
                    "95 % are faster, by method. The aim is 100 ms for 2,000 tests, 150 ms for 10,000.",
                    "s",
                    ((quantile(0.95, CALLS, "rpc_method", TEST_METHODS), "{{rpc_method}}"),),
                    "TestAnswerBudgetBurnsVeryFast",
                    exemplars=True,
                ),
            ),
        ),
        (
            "Calls",
            (
                Panel(
                    "Calls",
                    "A second, by method and outcome.",
                    "reqps",
                    (
                        (
                            rate(f"{CALLS}_count", "rpc_method, rpc_response_status_code"),
                            "{{rpc_method}} {{rpc_response_status_code}}",
                        ),
                    ),
                ),
                Panel(
                    "Duration of calls",
                    "95 % are faster. Dots are traces: of slow, failed and fallen-back calls, and some others.",
                    "s",
                    ((quantile(0.95, CALLS, "rpc_method"), "{{rpc_method}}"),),
                    "PredictionBudgetBurnsVeryFast",
                    exemplars=True,
                ),
                Panel(
                    "Duration of stages",
                    "95 % are faster: where the time of a call goes.",
                    "s",
                    ((quantile(0.95, STAGES, "conductor_stage"), "{{conductor_stage}}"),),
                ),
                Panel(
                    "Refused",
                    "Share of calls that were refused because there was too much to do.",
                    "percentunit",
                    (
                        (
                            rate(f"{CALLS}_count", "job", ', rpc_response_status_code="RESOURCE_EXHAUSTED"')
                            + " / "
                            + rate(f"{CALLS}_count", "job"),
                            "{{job}}",
                        ),
                    ),
                    "CallsRefused",
                ),
                Panel(
                    "Dropped",
                    "Calls a second that gRPC refused, or let expire, before the server had looked at them.",
                    "reqps",
                    ((rate("conductor_admission_dropped_total", "job"), "{{job}}"),),
                    "CallsDropped",
                ),
            ),
        ),
        (
            "Features",
            (
                Panel(
                    "Reads",
                    "Reads of features a second, one for all that is answered together.",
                    "reqps",
                    ((rate("conductor_feature_read_reads_total", "job"), "{{job}}"),),
                ),
                Panel(
                    "Failed reads",
                    "Reads given up, refused, timed out, and connections lost, a second.",
                    "reqps",
                    (
                        (rate("conductor_feature_read_failures_total", "job"), "failed"),
                        (rate("conductor_feature_read_timeouts_total", "job"), "timed out"),
                        (rate("conductor_feature_read_disconnects_total", "job"), "connections lost"),
                    ),
                    "FeatureReadsFail",
                ),
                Panel(
                    "Redis connected",
                    "1 for each process that reaches it.",
                    "short",
                    (('conductor_online_store_connected{job=~"$job"}', "{{instance}}"),),
                    "OnlineStoreDisconnected",
                ),
                Panel(
                    "Unusable values",
                    "Values a second that were absent or corrupt.",
                    "reqps",
                    ((rate("conductor_feature_read_bad_values_total", "conductor_reason"), "{{conductor_reason}}"),),
                    "FeatureValuesCorrupt",
                ),
            ),
        ),
        (
            "Process",
            (
                Panel(
                    "Up",
                    "Processes that answer.",
                    "short",
                    (('sum by (job) (up{job=~"$job"})', "{{job}}"),),
                    "ProcessDown",
                ),
                Panel(
                    "Processor",
                    "Seconds of processor time a second.",
                    "short",
                    (('rate(process_cpu_seconds_total{job=~"$job"}[' + RATE + "])", "{{job}} {{instance}}"),),
                ),
                Panel(
                    "Memory",
                    "Resident.",
                    "bytes",
                    (('process_resident_memory_bytes{job=~"$job"}', "{{job}} {{instance}}"),),
                ),
                Panel(
                    "Held up",
                    "Share of time in which the event loop was held up, or garbage was collected.",
                    "percentunit",
                    (
                        (
                            'rate(conductor_event_loop_stalled_seconds_total{job=~"$job"}[' + RATE + "])",
                            "{{instance}} event loop",
                        ),
                        ('rate(conductor_gc_paused_seconds_total{job=~"$job"}[' + RATE + "])", "{{instance}} garbage"),
                    ),
                    "EventLoopStalls",
                ),
                Panel(
                    "Open files", "And sockets.", "short", (('process_open_fds{job=~"$job"}', "{{job}} {{instance}}"),)
                ),
                Panel(
                    "Certificate expires in",
                    "Of each process that serves TLS.",
                    "s",
                    (('conductor_tls_certificate_expiry_seconds{job=~"$job"} - time()', "{{job}} {{instance}}"),),
                    "CertificateExpires",
                ),
                Panel(
                    "Age of the token keys",
                    "Since they were fetched; they are refused after an hour.",
                    "s",
                    (('conductor_jwks_age_seconds{job=~"$job"}', "{{job}} {{instance}}"),),
                    "TokenKeysOld",
                ),
                Panel(
                    "Spans",
                    "Exported and lost, a second.",
                    "short",
                    (
                        (rate("conductor_telemetry_spans_exported_total", "job"), "{{job}} exported"),
                        (rate("conductor_telemetry_spans_lost_total", "job"), "{{job}} lost"),
                    ),
                    "TelemetryLost",
                ),
            ),
        ),
    ),
)
