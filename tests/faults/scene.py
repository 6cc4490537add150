"""The whole embedded platform, trained on simulated builds, with services of the test's own to break.

PostgreSQL and Redis are the test's own rather than the platform's, so that an outage lasts exactly as long as the test
says; everything else is what ``conductor up`` starts, TLS and tokens included.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

import ending
import machine
from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_client import BuildDurationPrediction, ConductorClient, ConductorError, PredictionMethod
from conductor_model_store import ModelStore
from conductor_training.jobs import train_build_duration, warehouse_frames
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from conductor_workbench.embedded.platform import DATABASE, Platform, PlatformSettings
from conductor_workbench.events_file import write_events
from conductor_workbench.keys import AUDIENCE, ISSUER
from conductor_workbench.replay.history import History, read_history
from conductor_workbench.replay.operations import Settle
from conductor_workbench.simulate.builds import Simulation, simulate

SIMULATION = Simulation(tenants=3, builds=160, days=20, seed=21)
ASKED_PER_TENANT = 20
LATENCY_SECONDS = 0.1
"""What 95 of a hundred answers may take at most, whatever is broken (`F1`)."""

LONGEST_RECOVERY_SECONDS = 60.0
"""After which nobody waits any more. Whether it was soon enough, the tests judge."""

AROUND_SECONDS = 0.25
"""Who keeps a machine busy does so for longer than a read takes."""

_TRAINED = tempfile.TemporaryDirectory(prefix="conductor-trained-")


@dataclass(frozen=True)
class Question:
    """A build to ask for. Its queued time is named, so the same rows give the same answer, ages included."""

    tenant_id: str
    build: BuildContext


@dataclass(frozen=True)
class Reply:
    """What came back."""

    question: int
    """Number of the question."""
    sent: float
    seconds: float
    """From the moment at which it was due to be sent."""
    answer: BuildDurationPrediction | None = None
    error: ConductorError | None = None

    @property
    def full(self) -> bool:
        """Whether it claims to be a full model answer."""
        return self.answer is not None and self.answer.method is PredictionMethod.MODEL


class Scene:
    """A platform that serves, and what is right to answer."""

    def __init__(self, directory: Path, *, database_password: str = "", redis_password: str = "") -> None:
        self.directory = directory
        self.history = _history(directory)
        self.questions = _questions(self.history)
        self.expected: list[BuildDurationPrediction] = []
        """The answer to each question when nothing is broken."""
        self._database_password, self._redis_password = database_password, redis_password
        self._stack = ExitStack()
        # Linux ends an embedded service with the thread that started it, so not a thread of a test's event loop.
        self._starter = ThreadPoolExecutor(1)

    def start(self) -> Self:
        with ExitStack() as stack:
            self.postgres = stack.enter_context(EmbeddedPostgres(self.directory / "own-postgres", keep=False))
            self.redis = stack.enter_context(EmbeddedRedis(self.directory / "own-redis"))
            settings = PlatformSettings(
                directory=self.directory, database_url=self._database_url(), redis_url=self._redis_url()
            )
            trained = Path(_TRAINED.name) / "models"
            if trained.exists():
                shutil.copytree(trained, self.directory / "models")
            # A test does not wait ten seconds to be told that the database is down, nor for callers to go elsewhere.
            environment = {"CONDUCTOR_PUBLISH_TIMEOUT_SECONDS": "1", "CONDUCTOR_GRACE_SECONDS": "0"}
            self.platform = stack.enter_context(Platform(settings, environment=environment))
            asyncio.run(self._fill())
            if not trained.exists():
                frames = warehouse_frames(self.platform.database_url, _moment(self))
                list(train_build_duration(read_frame=frames, store=self.store))
                shutil.copytree(self.directory / "models", trained)
            asyncio.run(self._expect())
            self._stack = stack.pop_all()
        return self

    @property
    def store(self) -> ModelStore:
        return self.platform.open_models()

    @property
    def models(self) -> Path:
        return Path(self.platform.model_store)

    async def start_again(self, service: EmbeddedRedis | EmbeddedPostgres) -> None:
        """Start a service that was killed."""
        await asyncio.get_running_loop().run_in_executor(self._starter, service.start)

    def logs(self) -> str:
        """Everything that the platform's processes have logged."""
        return "".join(file.read_text(errors="replace") for file in sorted((self.directory / "logs").glob("*.log")))

    def connect(self, tenant_id: str, target: str | None = None, timeout_seconds: float = 30.0) -> ConductorClient:
        """A client with the tenant's token."""
        return ConductorClient.connect(
            target or self.platform.prediction_target,
            token=self.platform.keys.token(tenant_id),
            root_certificates=self.platform.keys.ca_certificate,
            timeout_seconds=timeout_seconds,
        )

    @asynccontextmanager
    async def serving(self, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """One more ``conductor serve`` on the same models and features. Its ``address`` tells where."""
        keys = self.platform.keys
        log = (self.directory / "logs" / "another-serve.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "conductor_client.command", "serve", "-o", "json", "--port", "0"),
            *("--tls-cert", str(keys.server_certificate), "--tls-key", str(keys.server_key)),
            *("--jwks", str(keys.jwks), "--audience", AUDIENCE, "--issuer", ISSUER, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**self.platform.environment, **environment},
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                line = await process.stdout.readline()
            process.address = json.loads(line)["address"]  # type: ignore[attr-defined]
            yield process
        finally:
            await ending.kill(process)
            log.close()

    @asynccontextmanager
    async def asking(self, target: str | None = None, timeout_seconds: float = 30.0) -> AsyncIterator[Asking]:
        """Someone who asks on behalf of every tenant."""
        clients = {tenant: self.connect(tenant, target, timeout_seconds) for tenant in self.history.tenants}
        try:
            yield Asking(self, clients)
        finally:
            await asyncio.gather(*(client.close() for client in clients.values()))

    async def publish(self, events: Sequence[Any], timeout_seconds: float = 60.0) -> int:
        """Publish events through the event service; returns how many were stored."""
        by_tenant: dict[str, list[Any]] = {}
        for event in events:
            by_tenant.setdefault(event.tenant_id, []).append(event)
        stored = 0
        for tenant, batch in by_tenant.items():
            async with self.connect(tenant, self.platform.events_target) as client:
                stored += (await client.publish_events(tenant, batch, timeout_seconds=timeout_seconds)).stored
        return stored

    async def settled(self) -> None:
        """Wait until everything committed is online."""
        settle = Settle(self.platform.database_url)
        await settle()
        settle.close()

    def _database_url(self) -> str:
        url = self.postgres.create_database(DATABASE)
        return url.replace("@", f":{self._database_password}@", 1) if self._database_password else url

    def _redis_url(self) -> str:
        if not self._redis_password:
            return self.redis.url
        with redis.Redis.from_url(self.redis.url) as client:
            client.config_set("requirepass", self._redis_password)
        return f"{self.redis.url}&password={self._redis_password}"

    async def _fill(self) -> None:
        await self.publish([event for _, event in self.history.events])
        await self.settled()

    async def _expect(self) -> None:
        """Ask until every tenant's own model serves, where it has one, and every answer is in full."""
        versions = {scope.tenant_id: pointer.version for scope, pointer in self.store.pointers().items()}
        async with self.asking() as asking:
            deadline = time.monotonic() + 60
            for number, question in enumerate(self.questions):
                version = versions.get(question.tenant_id, versions[""])
                while True:
                    reply = await asking.ask(number)
                    if reply.answer is not None and reply.full and reply.answer.model_version == version:
                        self.expected.append(timeless(reply.answer))
                        break
                    assert time.monotonic() < deadline, labels([reply])
                    await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._stack.close()
        self._starter.shutdown()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Asking:
    """Asks, and judges what comes back."""

    def __init__(self, scene: Scene, clients: Mapping[str, ConductorClient]) -> None:
        self._scene, self._clients = scene, clients

    async def ask(self, number: int, due: float | None = None, **options: Any) -> Reply:
        """Ask one question; an error is a reply too."""
        question = self._scene.questions[number]
        sent = time.monotonic()
        due = sent if due is None else due
        try:
            answer = await self._clients[question.tenant_id].predict_build_duration(
                question.tenant_id, question.build, **options
            )
        except ConductorError as error:
            return Reply(number, sent, time.monotonic() - due, error=error)
        return Reply(number, sent, time.monotonic() - due, answer)

    async def load(self, rate: float, during: Callable[[list[Reply]], Awaitable[object]]) -> list[Reply]:
        """Ask at a fixed rate, answered or not, for as long as ``during(replies so far)`` takes."""
        replies: list[Reply] = []

        async def one(number: int, due: float) -> None:
            replies.append(await self.ask(number, due))

        begun = asyncio.ensure_future(during(replies))
        start, asked = time.monotonic(), []
        while not begun.done():
            due = start + len(asked) / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asked.append(asyncio.ensure_future(one(len(asked) % len(self._scene.questions), due)))
        await asyncio.gather(*asked)
        await begun
        return replies

    async def recovered(self, replies: list[Reply], since: float) -> float:
        """Wait, under load, until every question was answered in full; returns after how long the last one that was not
        had been asked."""
        count = len(self._scene.questions)
        while True:
            latest = [reply for reply in replies[-count:] if reply.sent > since]
            if len(latest) == count and not lacking(latest):
                return max((reply.sent - since for reply in lacking(replies)), default=0.0)
            assert time.monotonic() - since < LONGEST_RECOVERY_SECONDS, labels(latest)
            await asyncio.sleep(0.02)


def lacking(replies: Sequence[Reply]) -> list[Reply]:
    """Those that are not in full, but for reads that were given up, and labelled so, while the machine was disturbed.

    A read is given up after 20 ms. On a busy machine it may take longer than that.
    """
    found = [reply for reply in replies if not reply.full]
    if not any(reply.answer and reply.answer.missing_features for reply in found):
        return found
    evidence = machine.evidence(min(reply.sent for reply in found) - AROUND_SECONDS)
    return [
        reply
        for reply in found
        if not reply.answer
        or not reply.answer.missing_features
        or not evidence.disturbed(reply.sent - AROUND_SECONDS, reply.sent + reply.seconds + AROUND_SECONDS)
    ]


def labels(replies: Sequence[Reply]) -> dict[str, int]:
    """How many replies of which label or error."""
    return dict(Counter(reply.answer.method.name if reply.answer else str(reply.error) for reply in replies))


def explain(found: Sequence[tuple[Reply, str]]) -> str:
    """The first few of what is wrong, in short."""
    return f"{len(found)}: " + "; ".join(f"question {reply.question} {reason}" for reply, reason in found[:3])


def wrong(scene: Scene, replies: Sequence[Reply]) -> list[tuple[Reply, str]]:
    """Replies that must not be, each with the reason (`O1`, `O3`).

    An answer that claims to be a full one must be the one given when nothing was broken, bit for bit, contributions,
    ages and missing features included. Any other must say what it lacks, be of the asked tenant, and be a duration. An
    error must be UNAVAILABLE.
    """
    found = []
    for reply in replies:
        reason = _wrong(scene.expected[reply.question], scene.questions[reply.question].tenant_id, reply)
        if reason:
            found.append((reply, reason))
    return found


def _wrong(expected: BuildDurationPrediction, tenant_id: str, reply: Reply) -> str:
    answer = reply.answer
    if answer is None:
        return "" if reply.error and reply.error.code.name == "UNAVAILABLE" else f"error {reply.error}"
    if reply.full:
        return "" if timeless(answer) == expected else "claims to be a full answer, and differs"
    models = {"", "models/build-duration/global", f"models/build-duration/tenants/{tenant_id}"}
    rules = {
        "has no label": answer.method is not PredictionMethod.UNSPECIFIED,
        "is a fallback, and lacks nothing": bool(answer.missing_features),
        "is by another tenant's model": answer.model_name in models,
        "is no interval": timedelta(0) <= answer.lower <= answer.median <= answer.upper,
        # The tenants' levels lie far apart: a fallback of another tenant's builds is not near.
        f"is far from {expected.median}": expected.median / 3 < answer.median < expected.median * 3,
    }
    return "; ".join(reason for reason, holds in rules.items() if not holds)


def timeless(answer: BuildDurationPrediction) -> BuildDurationPrediction:
    """All of an answer that the same question always gets the same of."""
    return replace(answer, prediction_id="", prediction_time=datetime.min.replace(tzinfo=UTC))


def percentile(replies: Sequence[Reply], share: float = 0.95) -> float:
    """Seconds within which that share of the replies came."""
    seconds = sorted(reply.seconds for reply in replies)
    return seconds[min(len(seconds) - 1, int(len(seconds) * share))]


async def until(condition: Callable[[], bool], seconds: float, what: str = "") -> float:
    """Poll until it holds; returns after how long."""
    began = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _history(directory: Path) -> History:
    events = [event for queued, completed, _ in simulate(SIMULATION) for event in (queued, completed)]
    write_events(events, directory / "events.ndjson")
    return read_history([directory / "events.ndjson"])


def _moment(scene: Scene) -> datetime:
    return scene.history.events[-1][0] + timedelta(seconds=1)


def _questions(history: History) -> list[Question]:
    """Each tenant's last builds, as if queued again just after all that is known; and one of a branch never seen."""
    end = history.events[-1][0] + timedelta(minutes=1)
    questions: dict[str, list[Question]] = {tenant: [] for tenant in history.tenants}
    for build in reversed(history.builds):
        if len(questions[build.tenant_id]) < ASKED_PER_TENANT:
            context = BuildContext.FromString(build.context.SerializeToString())
            context.queued_time.FromDatetime(end)
            if not questions[build.tenant_id]:
                context.branch = "feature/never-seen"
            questions[build.tenant_id].append(Question(build.tenant_id, context))
    # By turns, so that neighbours are of different tenants.
    longest = max(map(len, questions.values()))
    return [found[at] for at in range(longest) for found in questions.values() if at < len(found)]
