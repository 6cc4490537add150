"""A prediction server with oracle models and its own Redis, a proxy between them, and callers in another process.

Everything is real: processes, sockets, TLS, tokens, signed models, rows in Redis. What a test breaks is its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conductor_model_store import CHAMPION, ModelStore
from conductor_model_store.settings import ModelStoreSettings
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.server_process import MAIN, ServerProcess
from conductor_workbench.embedded import EmbeddedRedis
from conductor_workbench.faults import oracle
from conductor_workbench.faults.proxy import Proxy
from conductor_workbench.faults.traffic import Replies, Traffic
from conductor_workbench.faults.vitals import Vitals
from conductor_workbench.keys import EmbeddedKeys

TENANTS = 6
WITH_MODEL = 4
"""Tenants with a model of their own; the others are answered by the global one."""
_VERSIONS = 2


class Stand:
    """Use as ``with Stand(directory) as stand``. Models, by owner, have two versions each; the first serves."""

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
        self.keys = EmbeddedKeys(directory / "keys")
        self._workers, self._grace_seconds, self._main = workers, grace_seconds, main
        self._more_environment = environment or {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.keys.ensure()
            self.keys.ensure_model_keys()
            self.redis = stack.enter_context(EmbeddedRedis(self.directory / "redis"))
            self.plant()
            socket_path = self.redis.url.removeprefix("unix://").partition("?")[0]
            self.proxy = stack.enter_context(Proxy(socket_path))
            self._publish()
            self.server = stack.enter_context(self._make_server())
            self._callers = stack.enter_context(Child("conductor_workbench.faults.traffic", self._log("callers")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def store(self) -> ModelStore:
        """Its model store, to publish signed models."""
        return ModelStoreSettings(
            model_store=str(self.directory / "models"),
            model_signing_key=self.keys.model_signing_key,
            model_trusted_keys=(self.keys.model_trusted_key,),
        ).open()

    def plant(self) -> None:
        """Fill Redis, as after a restart."""
        oracle.plant(self.redis.url, TENANTS, self.moment - timedelta(minutes=1))

    def roll(self, owner: str, number: int) -> None:
        """Let another version of an owner's model serve."""
        names = list(self.versions[owner])
        self.store.promote(oracle.PREDICTOR, owner or None, names[number % len(names)])

    async def ask(self, **options: Any) -> Replies:
        """Let the callers ask; the options are those of :class:`Traffic`."""
        return Replies(**await asyncio.to_thread(self._callers.ask, asdict(self.traffic(**options))))

    def traffic(self, **options: Any) -> Traffic:
        """Traffic to its server."""
        tenants = [oracle.tenant_id(number) for number in range(TENANTS)]
        basic = Traffic(
            target=self.server.target,
            root_certificates=self.keys.ca_certificate.read_text(),
            tokens={name: self.keys.token(name) for name in tenants},
            versions=self.versions,
            moment=self.moment.isoformat(),
            tenants=TENANTS,
        )
        return replace(basic, **options)

    def vitals(self) -> Vitals:
        """The server's."""
        return Vitals.of(self.server.pid, self.proxy.open_connections)

    def logs(self) -> str:
        """What the server has logged."""
        return self._log("serve").read_text(errors="replace")

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

    def _publish(self) -> None:
        store = self.store
        code = 0
        for owner in ("", *(oracle.tenant_id(number) for number in range(WITH_MODEL))):
            self.versions[owner] = {}
            for _ in range(_VERSIONS):
                code += 1
                self.versions[owner][oracle.publish(store, owner, code, TENANTS)] = code
            first = next(iter(self.versions[owner]))
            store.promote(oracle.PREDICTOR, owner or None, first, channel=CHAMPION)
