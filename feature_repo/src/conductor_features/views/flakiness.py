"""Feature view of flaky tests: what a test's failures, and what people said, made of it.

Terms are those of ``views/tests.py``. A test's *run* is all of its results of one completion; it is *mixed* if one of
them failed and another passed. ``conductor_features.flakiness`` says when a test becomes *active* and ceases to be.

A test has a row as of each run in which it failed, and as of each time that it was quarantined or released: tests that
always pass have none, and a run in which all is well adds none. What is true of the time since is told by
``test_history``.
"""

from __future__ import annotations

from datetime import timedelta

from conductor_features.views.base import Field, View

TEST_FLAKINESS = View(
    name="test_flakiness",
    version=1,
    entity=("tenant_id", "repository", "test_id"),
    fields=(
        Field("results_until_failure", "Executed results up to the latest that failed", "1"),
        Field("failed_runs_in_a_row", "Latest failed run and those before it with nothing passed in between", "1"),
        Field("mixed_run_count", "Mixed runs: flips on equal code", "1"),
        Field("last_mixed_time", "Completion of the latest mixed run", "epoch s"),
        Field("last_failure_time", "Completion of the latest run in which it failed", "epoch s"),
        Field("activation_count", "How often it became active", "1"),
        Field("first_active_time", "When it first became active", "epoch s"),
        Field("active_time", "When it became active last", "epoch s"),
        Field(
            "last_active_failure_time", "Completion of the latest run in which it failed as an active one", "epoch s"
        ),
        Field("quarantined_time", "When it was quarantined last, without having been so already", "epoch s"),
        Field("released_time", "When it was last released from quarantine", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner="test-intelligence",
    description="Whether one test is flaky or quarantined, and since when.",
    listed_by=("tenant_id", "repository"),
    lineage=(
        "test.completed.completed_time",
        "test.completed.results.test_id",
        "test.completed.results.outcome",
        "test.quarantined.quarantined_time",
        "test.released.released_time",
    ),
)
