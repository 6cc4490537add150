"""Feature views of tests: each test's history, each path's changes, and how tests fail when paths change.

Terms: a result is *executed* unless its outcome is SKIPPED; it *failed* with outcome FAILED or ERROR. A test's results
are ordered by (completed_time of the run, run_id, place in the run). It *flips* where an executed result failed and the
one before did not, or the other way round. An "exponential mean with factor f" starts with the first value and then is
f × itself + (1 − f) × the value. A field is NaN where there is nothing to compute it from; counts are then 0.

Version 2 of ``test_history`` adds what flakiness and a fading memory are told by: ``failure_rate_2`` orders tests as
sorting by their latest results does.

A row follows from the entity's row before it and the results since: a test costs the same whatever its past.
"""

from __future__ import annotations

from datetime import timedelta

from conductor_features.views.base import Field, View

_OWNER = "test-intelligence"

TEST_HISTORY = View(
    name="test_history",
    version=2,
    entity=("tenant_id", "repository", "test_id"),
    fields=(
        Field("run_count", "Executed results", "1"),
        Field("failure_count", "Failed results", "1"),
        Field("skip_count", "Skipped results", "1"),
        Field("flip_count", "Flips", "1"),
        Field("last_failed", "1 if the latest executed result failed, else 0", "1"),
        Field("failure_rate_2", "Exponential mean of failed (1) or not (0) with factor 0.5", "1"),
        Field("failure_rate_10", "Exponential mean of failed (1) or not (0) with factor 0.9", "1"),
        Field("failure_rate_50", "The same with factor 0.98", "1"),
        Field("flip_rate_20", "Exponential mean of flipped (1) or not (0) with factor 0.95", "1"),
        Field("rerun_flip_count", "Flips within one run (one completion): the code was the same", "1"),
        Field("recent_run_weight", "Executed results, each halved every 14 days until last_run_time", "1"),
        Field("recent_failure_weight", "Failed results, each halved every 14 days until last_run_time", "1"),
        Field("runs_since_failure", "Executed results after the latest that failed", "1"),
        Field("last_duration", "Latest known duration of an executed result", "s"),
        Field("mean_duration_10", "Exponential mean of known durations with factor 0.9", "s"),
        Field("first_run_time", "Completion of the first run with a result: the test's age begins here", "epoch s"),
        Field("last_run_time", "Completion of the latest run in which it was executed", "epoch s"),
        Field("last_failure_time", "Completion of the latest run in which it failed", "epoch s"),
        Field("last_flip_time", "Completion of the latest run in which it flipped", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="The past of one test.",
    listed_by=("tenant_id", "repository"),
    lineage=(
        "test.completed.completed_time",
        "test.completed.results.test_id",
        "test.completed.results.outcome",
        "test.completed.results.duration",
    ),
)

PATH_CHANGES = View(
    name="path_changes",
    version=1,
    entity=("tenant_id", "repository", "path"),
    fields=(
        Field("change_count", "Test runs of changes that touch the path", "1"),
        Field("failed_run_count", "Those of them in which a test failed", "1"),
        Field("failed_run_rate_10", "Exponential mean of such a failed run (1) or not (0) with factor 0.9", "1"),
        Field("last_change_time", "Completion of the latest of these runs", "epoch s"),
        Field("last_failed_run_time", "Completion of the latest of them in which a test failed", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="What test runs made of changes of one path.",
    lineage=("test.completed.completed_time", "test.completed.changed_paths", "test.completed.results.outcome"),
)

TEST_PATH_AFFINITY = View(
    name="test_path_affinity",
    version=1,
    entity=("tenant_id", "repository", "test_id", "path"),
    fields=(
        Field("failure_count", "Runs of changes that touch the path in which the test failed", "1"),
        Field("last_failure_time", "Completion of the latest of them", "epoch s"),
    ),
    maximum_age=timedelta(days=365),
    owner=_OWNER,
    description="How often one test failed when one path had changed; only pairs of which that happened have a row.",
    listed_by=("tenant_id", "repository", "path"),
    lineage=(
        "test.completed.completed_time",
        "test.completed.changed_paths",
        "test.completed.results.test_id",
        "test.completed.results.outcome",
    ),
)
