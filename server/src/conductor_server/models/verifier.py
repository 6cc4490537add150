"""Has an unknown model loaded and tried in a child process before this one goes near it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from conductor_model_store import LoadedModel
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.verifier_wire import HEADER, MOST_EXTENSIONS

_START_SECONDS = 30.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


class Verifier:
    """Runs the verifying process while there is something to verify."""

    def __init__(self, timeout_seconds: float, memory_bytes: int, known_directory: Path | None = None) -> None:
        """``known_directory``: where processes that serve together note what one of them found good."""
        self._timeout_seconds, self._memory_bytes = timeout_seconds, memory_bytes
        self._known_directory = known_directory
        self._known: set[str] = set()
        self._process: asyncio.subprocess.Process | None = None

    async def verify(self, model: LoadedModel) -> None:
        """Raises:
        ModelRefused: the model may not serve.
        """
        if self._is_known(model.manifest_digest):
            return
        try:
            refused = await self._ask(model)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            await self.close()
            raise ModelRefused(f"the verifying process failed: {type(error).__name__}") from error
        if refused is not None:
            raise ModelRefused(refused)
        self._remember(model.manifest_digest)

    async def close(self) -> None:
        """End the process; the next model starts another one."""
        process, self._process = self._process, None
        if process is None:
            return
        # With its forks: one that lived on would hold the pipes, and this would wait for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _ask(self, model: LoadedModel) -> str | None:
        process = self._process or await self._start()
        self._process = process
        if process.stdin is None or process.stdout is None:
            raise EOFError
        manifest = model.manifest.SerializeToString()
        header = HEADER.pack(len(manifest), len(model.graph), self._memory_bytes, self._timeout_seconds)
        process.stdin.writelines((header, manifest, model.graph))
        async with asyncio.timeout(_START_SECONDS + (1 + MOST_EXTENSIONS) * self._timeout_seconds):
            await process.stdin.drain()
            line = await process.stdout.readline()
        if not line:
            raise EOFError
        refused: str | None = json.loads(line)["refused"]
        return refused

    async def _start(self) -> asyncio.subprocess.Process:
        # One thread, as it forks; and nothing of our environment that it has no use for.
        environment: Mapping[str, str] = {
            **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "conductor_server.models.verifier_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:  # a process half started would be nobody's
            self._process = await starting
            await self.close()
            raise

    def _is_known(self, digest: str) -> bool:
        return digest in self._known or (
            self._known_directory is not None and (self._known_directory / digest).exists()
        )

    def _remember(self, digest: str) -> None:
        self._known.add(digest)
        if self._known_directory is not None:
            (self._known_directory / digest).touch()
