"""A prediction server with oracle models and its own Redis, a proxy between them, and callers in another process.

Everything is real: processes, sockets, TLS, tokens, signed models, rows in Redis. What a test breaks is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis

from conductor_model_store import ModelNotFound, ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_server.worker import NAME as WORKER_NAME
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.server_process import MAIN, ServerProcess
from conductor_workbench.embedded import EmbeddedRedis
from conductor_workbench.faults import oracle, tests_model
from conductor_workbench.faults.proxy import Proxy
from conductor_workbench.faults.replies import Replies
from conductor_workbench.faults.traffic import Traffic
from conductor_workbench.faults.vitals import Vitals
from conductor_workbench.keys import EmbeddedKeys

TENANTS = 6
WITH_MODEL = 4
"""Tenants with a model of their own; the others are answered by the global one."""
VERSIONS = 4
"""Of each model, known beforehand; the first one serves at first."""
_CALLERS = "conductor_workbench.faults.traffic"
_FOLLOW_SECONDS = 10.0
_START_SECONDS = 60.0
_FULL_SECONDS = 0.3
_LONGEST_SECONDS = 86_400.0
_PATIENCE_SECONDS = 300.0
"""Callers who have not told of their calls so long after the last of them are given up."""


class Stand:
    """Use as ``with Stand(directory) as stand``. What it needs is its own."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        grace_seconds: float = 0.0,
        main: str = MAIN,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``main``: Python source that stands in for ``conductor``; ``environment``: more of it for the server."""
        self.directory = directory
        self.moment = datetime.now(UTC)
        """When every build was queued; rows are of a minute before."""
        self.versions: dict[str, dict[str, int]] = {}
        """By owner, the code of each version by its name."""
        self.test_versions: dict[str, dict[str, int]] = {}
        """The same of models of test failures; none until `with_tests`."""
        self.keys = EmbeddedKeys(directory / "keys")
        self._workers, self._grace_seconds, self._main = workers, grace_seconds, main
        self._more_environment = environment or {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.keys.ensure()
            self.keys.ensure_model_keys()
            self.redis = stack.enter_context(EmbeddedRedis(self.directory / "redis", tcp=True))
            self.plant()
            self.proxy = stack.enter_context(Proxy(f"127.0.0.1:{self.redis.port}"))
            self._publish_first()
            self.server = stack.enter_context(self._make_server())
            self._await_workers()
            self._callers = stack.enter_context(Child(_CALLERS, self._log("callers")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def _progress(self) -> Path:
        return self.directory / "progress"

    @cached_property
    def store(self) -> ModelStore:
        """Its model store, to publish signed models."""
        return ModelStoreSettings(
            model_store=str(self.directory / "models"),
            model_signing_key=self.keys.model_signing_key,
            model_trusted_keys=(self.keys.model_trusted_key,),
        ).open()

    def plant(self) -> None:
        """Fill Redis, as after a restart."""
        before = self.moment - timedelta(minutes=1)
        oracle.plant(self.redis.url, TENANTS, before)
        if self.test_versions:
            tests_model.plant(self.redis.url, before)

    def with_tests(self) -> None:
        """Let it answer about tests as well, from now on, and fill Redis with their rows."""
        if not self.test_versions:
            logged = self.log_bytes
            for number, owner in enumerate(tests_model.OWNERS):
                codes = range(1 + number * VERSIONS, 1 + (number + 1) * VERSIONS)
                models = (tests_model.model(owner, code, self.moment) for code in codes)
                names = (oracle.version_name(manifest) for manifest, _ in models)
                self.test_versions[owner] = dict(zip(names, codes, strict=True))
                self.publish_tests(owner, 0)
            self._await_of_all_tenants(logged)
        self.plant()

    def publish(self, owner: str, number: int) -> None:
        """Publish an owner's version by its number, or let it serve again; the empty owner's is the global model."""
        codes = list(self.versions[owner].values())
        self.store.publish(*oracle.model(owner, codes[number % VERSIONS], TENANTS))

    def publish_tests(self, owner: str, number: int) -> None:
        """The same with models of test failures."""
        codes = list(self.test_versions[owner].values())
        self.store.publish(*tests_model.model(owner, codes[number % VERSIONS], self.moment))

    def roll_back(self, owner: str) -> None:
        """Let what served before serve again."""
        with contextlib.suppress(ModelNotFound):  # there is nothing before
            self.store.rollback(oracle.PREDICTOR, owner or None)

    def start_redis_again(self) -> None:
        """After it was killed: on the same address, and filled."""
        self.redis.start()
        self.plant()

    def fail_over(self, outage_seconds: float = 0.3) -> None:
        """Kill Redis, and let a replica that has followed it take over its address a moment later."""
        replica = self._stack.enter_context(EmbeddedRedis(self.directory / f"redis-{time.monotonic_ns()}", tcp=True))
        with redis.Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(self.redis.port))
            deadline = time.monotonic() + _FOLLOW_SECONDS
            while client.info("replication")["master_link_status"] != "up":
                if time.monotonic() > deadline:
                    raise TimeoutError("the replica does not follow")
                time.sleep(0.02)
            self.redis.kill()
            time.sleep(outage_seconds)
            client.replicaof("NO", "ONE")
        self.redis = replica
        self.proxy.redirect(f"127.0.0.1:{replica.port}")

    async def ask(self, **options: Any) -> Replies:
        """Let the callers ask; the options are those of :class:`Traffic`."""
        return await self._ask(self._callers, options)

    async def ask_beside(self, **options: Any) -> Replies:
        """The same by other callers, in a process of their own, while the first ones ask."""
        # Started by this thread: children end with the one that started them.
        return await self._ask(self._others, options)

    async def _ask(self, callers: Child, options: Mapping[str, Any]) -> Replies:
        traffic = self.traffic(**options)
        found = await asyncio.to_thread(callers.ask, asdict(traffic), traffic.seconds + _PATIENCE_SECONDS)
        return Replies(**found)

    @cached_property
    def _others(self) -> Child:
        return self._stack.enter_context(Child(_CALLERS, self._log("other-callers")))

    @asynccontextmanager
    async def asking(self, **options: Any) -> AsyncIterator[Replies]:
        """Let the callers ask for as long as the block lasts. What came back is there after it."""
        stop = self.directory / "stop"
        replies = Replies()
        asked = asyncio.ensure_future(
            self.ask(seconds=_LONGEST_SECONDS, progress_file=str(self._progress), stop_file=str(stop), **options)
        )
        try:
            while not self._progress.exists() and not asked.done():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.01)
            yield replies
        finally:
            stop.touch()
            found = await asked
            self._progress.unlink()
            stop.unlink()
        vars(replies).update(vars(found))

    async def recovered(self, since: float, within_seconds: float) -> float:
        """Wait, while callers ask, until answers are in full; returns how long after ``since`` the last was not.

        Raises TimeoutError.
        """
        async with asyncio.timeout(within_seconds + _FULL_SECONDS):
            while True:
                last, last_not_full = map(float, self._progress.read_text().split())
                if last - max(since, last_not_full) > _FULL_SECONDS:
                    return max(0.0, last_not_full - since)
                await asyncio.sleep(0.02)

    def traffic(self, **options: Any) -> Traffic:
        """Traffic to its server."""
        tenants = [oracle.tenant_id(number) for number in range(TENANTS)]
        basic = Traffic(
            target=self.server.target,
            root_certificates=self.keys.ca_certificate.read_text(),
            tokens={name: self.keys.token(name) for name in tenants},
            versions=self.versions,
            test_versions=self.test_versions,
            moment=self.moment.isoformat(),
            tenants=TENANTS,
        )
        return replace(basic, **options)

    def vitals(self) -> Vitals:
        """The server's and its workers': what verifies models comes and goes by itself."""
        return Vitals.of({self.server.pid, *self.workers}, self.proxy.port)

    @property
    def workers(self) -> set[int]:
        """Process ids of the server's workers that run."""
        found = set()
        for process in psutil.Process(self.server.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() == WORKER_NAME:
                    found.add(process.pid)
        return found

    def all_serve(self) -> bool:
        """Whether as many workers as there are to be listen."""
        listening = 0
        for worker in self.workers:
            with contextlib.suppress(psutil.Error):
                ways = psutil.Process(worker).net_connections()
                listening += any(way.status == psutil.CONN_LISTEN for way in ways)
        return listening == self._workers

    @property
    def log_bytes(self) -> int:
        """How much the server has logged."""
        return self._log("serve").stat().st_size

    def logs(self, since_byte: int = 0) -> str:
        """What the server has logged."""
        return self._log("serve").read_bytes()[since_byte:].decode(errors="replace")

    def _await_of_all_tenants(self, since_byte: int) -> None:
        """Until each worker has the model of test failures that is of all tenants.

        Before, it knows of none, and answers by history without a reason to tell.
        """
        deadline = time.monotonic() + _START_SECONDS
        told = f"version {next(iter(self.test_versions['']))} serves"
        while self.logs(since_byte).count(told) < self._workers:
            if time.monotonic() > deadline:
                raise TimeoutError("not all workers have the model")
            time.sleep(0.02)

    def _await_workers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._workers > 1 and not self.all_serve():
            if time.monotonic() > deadline:
                raise TimeoutError("not all workers serve")
            time.sleep(0.02)

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _make_server(self) -> ServerProcess:
        environment = os.environ | {
            "CONDUCTOR_REDIS_URL": f"redis://{self.proxy.target}/0",
            "CONDUCTOR_MODEL_STORE": str(self.directory / "models"),
            "CONDUCTOR_MODEL_TRUSTED_KEYS": str(self.keys.model_trusted_key),
            "CONDUCTOR_MODEL_POLL_SECONDS": "0.1",
            **self._more_environment,
        }
        return ServerProcess(
            environment,
            self._log("serve"),
            keys=self.keys,
            workers=self._workers,
            grace_seconds=self._grace_seconds,
            main=self._main,
        )

    def _publish_first(self) -> None:
        code = 0
        for owner in ("", *(oracle.tenant_id(number) for number in range(WITH_MODEL))):
            self.versions[owner] = {}
            for _ in range(VERSIONS):
                code += 1
                name = oracle.version_name(oracle.model(owner, code, TENANTS)[0])
                self.versions[owner][name] = code
            self.publish(owner, 0)
