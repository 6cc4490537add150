"""Frames of test runs are computed in memory, and have the rows of the feature log."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import psycopg

from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY
from conductor_training.test_failure.frame import Run, _Past
from conductor_warehouse.events import Event, parse
from conductor_warehouse.ingestion import ingest
from warehouse.catalogue import random_events
from warehouse.histories import latest_rows


def test_histories_in_memory_are_the_rows_of_the_log(warehouse: psycopg.Connection) -> None:
    events = random_events(21, 300)
    ingest(warehouse, events)
    logged = {view.key: latest_rows(warehouse, view) for view in (TEST_HISTORY, PATH_CHANGES, TEST_PATH_AFFINITY)}
    told = [event for event in map(parse, events) if isinstance(event, Event) and event.type == "test.completed"]
    counting = {}
    for event in sorted(told, key=lambda one: one.rank):
        counting[event.tenant_id, event.data.run_id] = Run.of(event.tenant_id, event.data)
    pasts: dict[tuple[str, str], _Past] = defaultdict(_Past)
    moments = {at.timestamp() for rows in logged.values() for _, at in rows} | {
        run.completed for run in counting.values()
    }
    compared = 0
    for end in sorted(moments):
        ended = sorted((run for run in counting.values() if run.completed == end), key=lambda one: one.run_id)
        for run in ended:
            pasts[run.tenant_id, run.repository].add(run)
        for key, histories in ((TEST_HISTORY.key, "tests"), (PATH_CHANGES.key, "paths")):
            for (entity, at), row in logged[key].items():
                if at.timestamp() == end:
                    own = getattr(pasts[entity[0], entity[1]], histories)
                    (ours,) = own.rows(own.find([entity[2]]), end)
                    if np.isnan(ours).all():  # a run that was told of and then told otherwise leaves a row of nothing
                        ours = own._fresh
                    expected = [np.nan if value is None else value for value in row.values()]
                    np.testing.assert_array_equal(ours, expected, err_msg=f"{key} {entity} {at}")
                    compared += 1
        for (entity, at), row in logged[TEST_PATH_AFFINITY.key].items():
            if at.timestamp() == end:
                assert pasts[entity[0], entity[1]].failures[entity[3]][entity[2]] == row["failure_count"]
                compared += 1
    assert compared == sum(map(len, logged.values())) > 100
