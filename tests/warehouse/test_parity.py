"""M1: what training reads of a moment is what was served at that moment, and what the facts say, bit for bit.

The pairs of entity and time are random. Three ways of computing each are compared: the row that the online reader gave
then, the row that training's point-in-time join gives in the end, and a computation from scratch in the end.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql

from conductor_features import feast_store
from conductor_features.reader import OnlineReader
from conductor_features.rows import from_microseconds, to_microseconds
from conductor_features.views import QUALITY_METRIC, TENANT_LOAD, VIEWS, View
from conductor_warehouse.features import log
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.tailing_writer import TailingWriter
from warehouse.catalogue import random_events

pytestmark = pytest.mark.long

PAIRS = int(os.environ.get("CONDUCTOR_TEST_PARITY_PAIRS", "100000"))
"""How many pairs of entity and time are compared at least, over all views."""
STEP_PAIRS = 1_200
EVENTS_PER_STEP = 60
TENANTS = ("busy",) * 8 + tuple(f"tenant-{number}" for number in range(16))
"""One of them has a third of the events, so that long windows fill up too."""
GAPS = (0, 0, 7, 60, 1200)
"""Seconds between events: about as dense as the builds among them, so that all kinds go on until the end."""
OF_THEIR_MOMENT = {TENANT_LOAD, QUALITY_METRIC}
"""Views with fields that change as time passes: their rows say what was so at the row's own time, not at the asked."""
PATIENCE_SECONDS = 10.0
"""For the online reader: how long it takes is measured elsewhere, and this machine may be busy."""

Entity = tuple[str, ...]
Values = NDArray[np.float64]


@dataclass
class Asked:
    """Pairs of one view, with what was served."""

    entities: list[Entity] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    event_times: list[NDArray[np.int64]] = field(default_factory=list)
    served: list[Values] = field(default_factory=list)


class Known:
    """The entities that a log has rows of; looks only at what was appended since."""

    def __init__(self, view: View) -> None:
        self.entities: list[Entity] = []
        self._seen: set[Entity] = set()
        self._view, self._position = view, ("0", 0)

    def update(self, connection: psycopg.Connection[Any]) -> list[Entity]:
        """Returns the entities of the rows that are new."""
        statement = sql.SQL(
            "SELECT {keys}, xid::text, log_id FROM {log} WHERE (xid, log_id) > (%s::xid8, %s) ORDER BY xid, log_id"
        ).format(
            keys=sql.SQL(", ").join(map(sql.Identifier, self._view.entity)), log=sql.Identifier(self._view.log_table)
        )
        rows = connection.execute(statement, self._position).fetchall()
        if rows:
            self._position = rows[-1][-2:]
        touched = list(dict.fromkeys(tuple(row[:-2]) for row in rows))
        for entity in touched:
            if entity not in self._seen:
                self._seen.add(entity)
                self.entities.append(entity)
        return touched


async def test_training_reads_what_was_served_and_what_the_facts_say(
    warehouse: psycopg.Connection, warehouse_url: str, redis_url: str, tmp_path: Path, record_property: Any
) -> None:
    chance = random.Random(7)
    known = {view: Known(view) for view in VIEWS.values()}
    asked = {view: Asked() for view in VIEWS.values()}
    writer = TailingWriter(warehouse_url, redis_url)
    async with OnlineReader(redis_url, PATIENCE_SECONDS) as reader:
        for batch, begin, end in _steps(_told_once(PAIRS), chance):
            result = ingest(warehouse, batch)
            assert (result.stored, result.parked, result.dead_letter_count) == (len(batch), 0, 0)
            writer.catch_up()
            candidates = []
            for view, seen in known.items():
                seen.update(warehouse)
                candidates += [(view, entity) for entity in seen.entities]
            chosen: dict[View, list[Entity]] = {}
            for view, entity in chance.sample(candidates, min(STEP_PAIRS, len(candidates))):
                chosen.setdefault(view, []).append(entity)
            for view, entities in chosen.items():
                values, event_times, ok = await reader.read_block(view, entities)
                assert ok.all(), view.key
                pairs = asked[view]
                pairs.entities += entities
                # Any moment until the next event would have been answered like this, the first and the last one too.
                pairs.at += [chance.choice([begin, end - 1, chance.randrange(begin, end)]) for _ in entities]
                pairs.event_times.append(event_times)
                pairs.served.append(values)

    count = rows = 0
    for view, pairs in asked.items():
        at, event_times, served = np.array(pairs.at), np.concatenate(pairs.event_times), np.concatenate(pairs.served)
        # As the server does, training takes no row that is older than the view allows.
        young = at - event_times <= view.maximum_age // timedelta(microseconds=1)
        joined = _point_in_time(warehouse_url, tmp_path, view, pairs)
        _assert_same(view, pairs, joined, np.where(young[:, None], served, np.nan), "training, served")
        moments = event_times if view in OF_THEIR_MOMENT else at
        _assert_same(view, pairs, _from_scratch(warehouse, view, pairs.entities, moments), served, "facts, served")
        # It says something: no field is empty throughout, and rows change as time passes.
        assert (~np.isnan(served)).any(axis=0).all(), view.key
        assert (~np.isnan(joined)).any(axis=0).all(), view.key
        rows += len({*zip(pairs.entities, event_times.tolist(), strict=True)})
        count += len(at)
    record_property("pairs", count)
    record_property("different_rows", rows)
    print(f"\n    0 of {count} pairs differ ({rows} different rows, {len(VIEWS)} views)")
    assert count >= PAIRS
    assert rows >= PAIRS // 20


async def test_late_and_corrected_and_repeated_events_keep_them_equal(
    warehouse: psycopg.Connection, warehouse_url: str, redis_url: str
) -> None:
    """Subjects are told of again, events come late and twice: after each batch, what is online is the latest row of the
    log and what the facts say."""
    chance = random.Random(8)
    told = random_events(8, 1_000, TENANTS[-4:], GAPS)
    places = sorted(range(len(told)), key=lambda place: place + chance.choice([0, 0, 0, 5, 300]))
    events = [told[place] for place in places]
    writer = TailingWriter(warehouse_url, redis_url)
    known = {view: Known(view) for view in VIEWS.values()}
    count = 0
    async with OnlineReader(redis_url, PATIENCE_SECONDS) as reader:
        for begin in range(0, len(events), 100):
            repeated = chance.sample(events[: begin + 1], min(begin, 10))
            ingest(warehouse, events[begin : begin + 100] + repeated)
            writer.catch_up()
            for view, entities in known.items():
                touched = entities.update(warehouse)
                if not touched:
                    continue
                values, event_times, ok = await reader.read_block(view, touched)
                assert ok.all(), view.key
                latest = _latest(warehouse, view)
                pairs = Asked(entities=touched, at=event_times.tolist())
                assert pairs.at == [latest[entity][0] for entity in touched], view.key
                of_log = np.array([latest[entity][1] for entity in touched], dtype=np.float64)
                _assert_same(view, pairs, of_log, values, "log, served")
                _assert_same(view, pairs, _from_scratch(warehouse, view, touched, event_times), values, "facts, served")
                count += len(touched)
    assert count > 800


def _told_once(pairs: int) -> list[bytes]:
    """Events by their time, enough for so many pairs. No subject is told of again: that would correct rows which were
    served before, and training reads the corrected ones."""
    count = max(pairs // STEP_PAIRS, 30) * EVENTS_PER_STEP
    seen, events = set(), []
    for event in random_events(6, count + count // 2, TENANTS, GAPS):
        told = json.loads(event)
        data = told["data"]
        subject = data.get("runId") or data.get("evaluationId") or told["id"]
        identity = (told["type"], told["tenantid"], subject)
        if identity not in seen:
            seen.add(identity)
            events.append(event)
    return events


def _steps(events: Sequence[bytes], chance: random.Random) -> Iterator[tuple[list[bytes], int, int]]:
    """Batches in the order of time, with the first and behind the last moment at which just they are known."""
    times = [to_microseconds(datetime.fromisoformat(json.loads(event)["time"])) for event in events]
    begin = 0
    while begin < len(events):
        end = min(begin + chance.randint(1, 2 * EVENTS_PER_STEP), len(events))
        while end < len(events) and times[end] == times[end - 1]:  # what happened at once is known at once
            end += 1
        behind = times[end] if end < len(events) else times[-1] + 3_600_000_000
        yield list(events[begin:end]), times[end - 1], behind
        begin = end


def _point_in_time(database_url: str, folder: Path, view: View, pairs: Asked) -> Values:
    """As training reads them."""
    store = feast_store.open_store(database_url, "redis://127.0.0.1:1/0", folder / "registry.db")
    feast_store.apply(store)
    frame = pd.DataFrame(pairs.entities, columns=list(view.entity))
    frame["event_timestamp"] = pd.to_datetime(pd.Series(pairs.at), unit="us", utc=True)
    references = [f"{view.key}:{name}" for name in view.field_names]
    joined = store.get_historical_features(frame, references, full_feature_names=True).to_df()
    assert joined[list(view.entity)].equals(frame[list(view.entity)])
    return joined[[f"{view.key}__{name}" for name in view.field_names]].to_numpy(dtype=np.float64)


def _from_scratch(
    connection: psycopg.Connection[Any], view: View, entities: Sequence[Entity], at: Sequence[int] | NDArray[np.int64]
) -> Values:
    """As the facts say, without the log."""
    moments = [(entity, from_microseconds(int(moment))) for entity, moment in zip(entities, at, strict=True)]
    return np.array(log.compute(connection, view, moments), dtype=np.float64)


def _latest(connection: psycopg.Connection[Any], view: View) -> dict[Entity, tuple[int, list[float | None]]]:
    """Each entity's latest row of the log, with its time."""
    statement = sql.SQL(
        "SELECT DISTINCT ON ({keys}) {keys}, event_timestamp, {fields} FROM {log}"
        " ORDER BY {keys}, event_timestamp DESC, created DESC, log_id DESC"
    ).format(
        keys=sql.SQL(", ").join(map(sql.Identifier, view.entity)),
        fields=sql.SQL(", ").join(map(sql.Identifier, view.field_names)),
        log=sql.Identifier(view.log_table),
    )
    size = len(view.entity)
    return {
        tuple(row[:size]): (to_microseconds(row[size]), list(row[size + 1 :])) for row in connection.execute(statement)
    }


def _assert_same(view: View, pairs: Asked, one: Values, other: Values, what: str) -> None:
    """Bit for bit; every NaN is the same."""
    assert one.shape == other.shape == (len(pairs.entities), len(view.fields))
    differs = _bits(one) != _bits(other)
    places = np.argwhere(differs)
    shown = [
        (pairs.entities[row], from_microseconds(int(pairs.at[row])), view.field_names[column], one[row, column],
         other[row, column])
        for row, column in places[:3]
    ]  # fmt: skip
    assert not len(places), f"{view.key}: {int(differs.any(axis=1).sum())} of {len(differs)} differ ({what}): {shown}"


def _bits(values: Values) -> NDArray[np.int64]:
    return np.where(np.isnan(values), np.nan, values).view(np.int64)
