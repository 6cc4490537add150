"""F16, O2: whoever brings events in is killed at random moments, PostgreSQL too, and nothing acknowledged is lost.

Half of the events come from a file, by ``conductor ingest``; the other half by gRPC, from a publisher to an event
service. All of them are real processes. In the end the warehouse is as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conductor_warehouse import schema
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded import EmbeddedPostgres, child
from warehouse.catalogue import random_events, state

pytestmark = pytest.mark.long

EVENTS = random_events(41, 900)
FILED, PUBLISHED = EVENTS[::2], EVENTS[1::2]
BATCH = 15
VICTIMS = ("ingest", "ingest", "ingest", "ingest", "serve", "serve", "serve", "publish", "publish", "postgres")
AGAIN_SECONDS = 60.0
"""For what is under way to come to its end."""
WITHIN_A_BATCH_SECONDS = 0.1

# Publishes the events of a file in batches, until each is acknowledged, and writes down which ones are. Begins a batch
# before the last that was acknowledged before: a publisher that dies does not know whether its last words were heard.
_PUBLISH = """
import asyncio, json, os, sys
from pathlib import Path
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import ConductorClient, ConductorError

file, address, acknowledged, size, begin = sys.argv[1:]

def to_event(line):
    told = json.loads(line)
    event = CloudEvent(id=told["id"], source=told["source"], spec_version="1.0", type=told["type"],
                       tenant_id=told["tenantid"], text_data=json.dumps(told["data"]))
    event.time.FromJsonString(told["time"])
    return event

by_tenant = {}
for line in Path(file).read_text().splitlines():
    event = to_event(line)
    by_tenant.setdefault(event.tenant_id, []).append(event)
batches = [(tenant, events[at:at + int(size)]) for tenant, events in sorted(by_tenant.items())
           for at in range(0, len(events), int(size))]

async def publish(tenant, batch):
    while True:
        try:
            async with ConductorClient.connect(Path(address).read_text(), insecure=True) as client:
                told = await client.publish_events(tenant, batch, timeout_seconds=10)
            assert told.stored + told.duplicates == len(batch), told
            return told.stored
        except ConductorError as error:
            print("again:", error, flush=True)
            await asyncio.sleep(0.05)

async def main():
    with open(acknowledged, "a") as log:
        log.write("\\n")  # a line that its predecessor died in ends here
        for number in range(max(int(begin), 0), len(batches)):
            tenant, batch = batches[number]
            stored = await publish(tenant, batch)
            log.write(json.dumps({"batch": number, "stored": stored, "ids": [event.id for event in batch]}) + "\\n")
            log.flush()
            os.fsync(log.fileno())

asyncio.run(main())
"""


class Processes:
    """The processes that bring events into one warehouse."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._environment = os.environ | {
            "CONDUCTOR_DATABASE_URL": database_url,
            # A test does not wait ten seconds to be told that the database is down.
            "CONDUCTOR_PUBLISH_TIMEOUT_SECONDS": "2",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = 0
        for name, events in (("filed", FILED), ("published", PUBLISHED)):
            (folder / name).write_bytes(b"\n".join(events) + b"\n")

    def start(self, name: str) -> Path:
        """Start one of them; returns what it writes to."""
        self._starts += 1
        log = self._folder / f"{name}-{self._starts}.log"
        conductor = [sys.executable, "-m", "conductor_client.command"]
        commands = {
            "ingest": [*conductor, "ingest", str(self._folder / "filed"), "--batch-size", str(BATCH), "-o", "json"],
            "serve": [*conductor, "warehouse", "serve", "--insecure", "--port", "0", "--grace", "0", "-o", "json"],
            "publish": [sys.executable, "-c", _PUBLISH, str(self._folder / "published"), str(self._folder / "address"),
                        str(self._folder / "acknowledged"), str(BATCH), str(self._published_batches() - 1)],
        }  # fmt: skip
        process = self._running[name] = child.spawn(commands[name], log, environment=self._environment)
        if name == "serve":
            child.wait_until(lambda: _address(log) is not None, process, log)
            new = self._folder / "address.new"
            new.write_text(_address(log) or "")
            new.rename(self._folder / "address")
        return log

    def ended(self, name: str) -> int | None:
        """Its exit code; None while it runs."""
        return self._running[name].poll()

    def kill(self, name: str) -> bool:
        """Kill it and start it again; returns whether it was in the middle of its work."""
        process = self._running[name]
        process.kill()
        killed = process.wait(10) == -signal.SIGKILL
        self.start(name)
        return killed

    def finish(self, name: str) -> Path:
        """Have it run once more, from its beginning to its end."""
        log = self.start(name)
        assert self._running[name].wait(AGAIN_SECONDS) == 0, log.read_text()[-2000:]
        return log

    def wait(self, name: str) -> None:
        """Until it has done its work."""
        assert self._running[name].wait(AGAIN_SECONDS) == 0, name

    def acknowledged(self) -> set[str]:
        """Ids of the published events that the publisher was told are stored."""
        return {event_id for told in self._told() for event_id in told["ids"]}

    def forget(self) -> None:
        """Have the next publisher begin at the beginning."""
        (self._folder / "acknowledged").unlink()

    def stored(self) -> int:
        """How many events the publisher was told are stored and new."""
        return sum(told["stored"] for told in self._told())

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait(10)

    def _published_batches(self) -> int:
        return max((told["batch"] + 1 for told in self._told()), default=0)

    def _told(self) -> list[Mapping[str, Any]]:
        file = self._folder / "acknowledged"
        # A line that the publisher died in is no acknowledgement.
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        told = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                told.append(json.loads(line))
        return told


def _address(log: Path) -> str | None:
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("{") and line.endswith("}"):
            return str(json.loads(line)["address"])
    return None


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "postgres", keep=False) as server:
        yield server


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments_nothing_acknowledged_is_lost(
    postgres: EmbeddedPostgres, tmp_path: Path, figure: Any, seed: int
) -> None:
    expected = _undisturbed(postgres)
    url = postgres.create_database("disturbed")
    schema.migrate(url)
    chance = random.Random(seed)
    victims = list(VICTIMS)
    chance.shuffle(victims)
    processes = Processes(tmp_path, url)
    interrupted = 0
    try:
        for name in ("serve", "publish", "ingest"):
            processes.start(name)
        for number, victim in enumerate(victims):
            # A moment that the progress tells, so that a slow machine is hit in the middle too, and a little later.
            left = len(EVENTS) - len(_inbox(url))
            goal = len(EVENTS) - left + chance.randrange(max(2 * left // (len(victims) - number + 1), 1))
            _progress(processes, url, goal)
            time.sleep(chance.random() * WITHIN_A_BATCH_SECONDS)
            stored = len(_inbox(url))
            if victim == "postgres":
                postgres.kill()
                postgres.start()
            else:
                killed = processes.kill(victim)
                interrupted += killed and 0 < stored < len(EVENTS)
            lost = processes.acknowledged() - _inbox(url)
            assert not lost, f"{len(lost)} acknowledged events are lost after {victim} was killed"
        _progress(processes, url, len(EVENTS))
        processes.wait("publish")
        acknowledged = processes.acknowledged()
        lost = acknowledged - _inbox(url)
        figure(kills=len(victims), in_the_middle=interrupted, lost=f"{len(lost)} of {len(acknowledged)}")
        assert not lost
        assert acknowledged == {json.loads(event)["id"] for event in PUBLISHED}
        assert interrupted >= len(victims) // 2

        # The file's events are acknowledged by the command's end: all are known by now, or become so.
        log = processes.finish("ingest")
        assert _result(log)["received"] == len(FILED)
        assert _state(url) == expected
        # Once more, all of it: nothing is new, and nothing changes.
        result = _result(processes.finish("ingest"))
        assert (result["stored"], result["duplicates"]) == (0, len(FILED))
        processes.forget()
        processes.finish("publish")
        assert (processes.stored(), processes.acknowledged()) == (0, acknowledged)
        assert _state(url) == expected
    finally:
        processes.stop()


def _undisturbed(postgres: EmbeddedPostgres) -> dict[str, str]:
    url = postgres.create_database("undisturbed")
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for begin in range(0, len(EVENTS), 100):
            assert ingest(connection, EVENTS[begin : begin + 100]).dead_letter_count == 0
        return state(connection)


def _progress(processes: Processes, url: str, goal: int) -> None:
    """Wait for so many events. Who gave up because the database was down is started again."""
    deadline = time.monotonic() + AGAIN_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:  # one for all: each look costs the others little
        while (count := _count(connection)) < goal:
            assert time.monotonic() < deadline, (count, goal)
            ended = {name: processes.ended(name) for name in ("serve", "publish", "ingest")}
            for name, code in ended.items():
                if code:
                    processes.start(name)
            # Whoever ends well was told that all of theirs is stored.
            done = ended["publish"] == ended["ingest"] == 0
            assert not done or _count(connection) >= goal, (_count(connection), goal)
            time.sleep(0.005)


def _count(connection: psycopg.Connection[Any]) -> int:
    return (connection.execute("SELECT count(*) FROM inbox").fetchone() or [0])[0]


def _inbox(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {event_id for (event_id,) in connection.execute("SELECT event_id FROM inbox")}


def _state(url: str) -> dict[str, str]:
    with psycopg.connect(url) as connection:
        found = state(connection)
        for table in ("dead_letters", "parked_batches"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)  # noqa: S608
        return found


def _result(log: Path) -> dict[str, Any]:
    """What ``conductor ingest -o json`` tells at its end."""
    text = log.read_text()
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found
