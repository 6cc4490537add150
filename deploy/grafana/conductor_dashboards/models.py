"""Models and what they are fed: which answer, how well, and what changed?"""

from __future__ import annotations

from conductor_dashboards.panels import STAGES, Board, Panel, increase, quantile, rate

MODELS = Board(
    "models",
    "Conductor: models",
    (
        (
            "Answers",
            (
                Panel(
                    "Answers by method",
                    "Predictions a second: by a model, by one that lacked features, by history, by default.",
                    "reqps",
                    (
                        (
                            rate("conductor_predictions_total", "conductor_predictor, conductor_prediction_method"),
                            "{{conductor_predictor}} {{conductor_prediction_method}}",
                        ),
                    ),
                ),
                Panel(
                    "Not by a whole model",
                    "Share of answers that are not by a model with all of its features.",
                    "percentunit",
                    (
                        (
                            "sum by (job) (conductor:answers:rate15m{"
                            'job=~"$job", conductor_prediction_method!="model"})'
                            ' / sum by (job) (conductor:answers:rate15m{job=~"$job"})',
                            "{{job}}",
                        ),
                    ),
                    "AnswersFallBack",
                ),
                Panel(
                    "Time of a run",
                    "95 % of the runs of graphs are faster.",
                    "s",
                    ((quantile(0.95, STAGES, "job", ', conductor_stage="model.run"'), "{{job}}"),),
                ),
            ),
        ),
        (
            "Inputs",
            (
                Panel(
                    "Missing inputs",
                    "Share of questions in which a feature was missing, over the last hour.",
                    "percentunit",
                    (
                        (
                            'conductor:input_missing:ratio_rate1h{job=~"$job"}',
                            "{{conductor_predictor}} {{conductor_feature}}",
                        ),
                    ),
                    "InputMissingnessDrifts",
                ),
                Panel(
                    "Missing inputs, the week before",
                    "The same, on average over the seven days before.",
                    "percentunit",
                    (
                        (
                            'avg_over_time(conductor:input_missing:ratio_rate1h{job=~"$job"}[7d] offset 2h)',
                            "{{conductor_predictor}} {{conductor_feature}}",
                        ),
                    ),
                    "InputMissingnessDrifts",
                ),
                Panel(
                    "Input rows",
                    "Rows given to models a second.",
                    "reqps",
                    ((rate("conductor_model_input_rows_total", "conductor_predictor"), "{{conductor_predictor}}"),),
                ),
            ),
        ),
        (
            "Models",
            (
                Panel(
                    "In memory",
                    "Models loaded, and known.",
                    "short",
                    (
                        ('conductor_models_resident{job=~"$job"}', "{{instance}} loaded"),
                        ('conductor_models_known{job=~"$job"}', "{{instance}} known"),
                    ),
                ),
                Panel(
                    "Memory of models",
                    "By reckoning.",
                    "bytes",
                    (('conductor_models_resident_memory_bytes{job=~"$job"}', "{{instance}}"),),
                ),
                Panel(
                    "Looked up",
                    "A second: found in memory, not found (another one answers meanwhile), dropped.",
                    "reqps",
                    (
                        (rate("conductor_model_hits_total", "job"), "found"),
                        (rate("conductor_model_misses_total", "job"), "not found"),
                        (rate("conductor_model_evictions_total", "job"), "dropped"),
                    ),
                ),
                Panel(
                    "Changes",
                    "Models that began to serve, in an hour.",
                    "short",
                    (
                        (
                            increase("conductor_model_swaps_total", "conductor_predictor, conductor_reason"),
                            "{{conductor_predictor}} {{conductor_reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Time to load",
                    "95 % are faster, verification included.",
                    "s",
                    (
                        (
                            quantile(0.95, "conductor_model_load_duration_seconds", "conductor_reason"),
                            "{{conductor_reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Refused",
                    "Models refused in an hour, by reason.",
                    "short",
                    (
                        (
                            increase("conductor_model_refusals_total", "conductor_predictor, conductor_reason"),
                            "{{conductor_predictor}} {{conductor_reason}}",
                        ),
                    ),
                    "ModelRefused",
                ),
                Panel(
                    "Failures",
                    "Runs that failed, or said what can't be an answer, a second.",
                    "reqps",
                    ((rate("conductor_model_failures_total", "conductor_predictor"), "{{conductor_predictor}}"),),
                    "ModelFails",
                ),
            ),
        ),
        (
            "Roll-out",
            (
                Panel(
                    "Disagreement",
                    "Median of |ln(a variant's answer / the champion's)|: 0.1 is about ten per cent.",
                    "short",
                    (
                        (
                            quantile(0.5, "conductor_model_variant_difference", "conductor_variant"),
                            "{{conductor_variant}}",
                        ),
                    ),
                ),
                Panel(
                    "Withdrawn canaries",
                    "In an hour, by the bound that they broke.",
                    "short",
                    (
                        (
                            increase("conductor_model_canary_withdrawals_total", "conductor_reason"),
                            "{{conductor_reason}}",
                        ),
                    ),
                    "CanaryWithdrawn",
                ),
            ),
        ),
    ),
)
