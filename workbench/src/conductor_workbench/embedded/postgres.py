"""A real PostgreSQL as a child process."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from conductor_workbench.embedded import child
from conductor_workbench.embedded.startable import Startable
from conductor_workbench.embedded.wheels import wheel_folder

_SUPERUSER = "conductor"
_NOT_DURABLE = ("-c", "fsync=off", "-c", "full_page_writes=off")
_TIMESCALE = ("-c", "shared_preload_libraries=timescaledb", "-c", "timescaledb.telemetry_level=off")


def find_postgres_binaries() -> Path:
    """Folder of ``postgres`` and ``initdb``: the server on PATH, else the one that the wheel ``pgserver`` carries."""
    on_path = shutil.which("postgres")
    if on_path:
        folder = Path(on_path).resolve().parent
        if (folder / "initdb").exists():
            return folder
    return wheel_folder("pgserver") / "pginstall" / "bin"


class EmbeddedPostgres(Startable):
    """PostgreSQL on a private Unix socket, its data under ``directory``.

    PostgreSQL refuses to run as root. Started by root it runs as ``nobody``, and where ``nobody`` can't reach
    ``directory`` its data stand in the system's folder for temporary files instead (see :attr:`data`).
    """

    def __init__(self, directory: Path, *, keep: bool = True, durable: bool = True) -> None:
        """What becomes of the data.

        Args:
            directory: Where they are.
            keep: If not, nothing of an earlier run is used, and nothing is left.
            durable: If not, they outlive any of its processes, but maybe not the machine: disks are not waited for.
        """
        directory = directory.absolute()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None and not _everybody_may_enter(directory):
            name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
            directory = Path(tempfile.gettempdir()) / f"conductor-postgres-{name}"
        self.directory = directory
        self._keep = keep
        self._options = () if durable else _NOT_DURABLE
        self._started = False
        self.data = directory / "data"
        self._log = directory / "postgres.log"
        self._socket_directory = Path(tempfile.mkdtemp(prefix="conductor-pg-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Connection string of the default database."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """Connection string of ``database``."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self._socket_directory}"

    @property
    def pid(self) -> int:
        """Process id; raises RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError("PostgreSQL is not running")
        return self._process.pid

    def start(self) -> Self:
        """Create the data folder if there is none, start, and wait until it answers."""
        if not self._keep and not self._started:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._started = True
        self.directory.mkdir(parents=True, exist_ok=True)
        self._socket_directory.mkdir(exist_ok=True)
        self._own(self.directory)
        self._own(self._socket_directory)
        binaries = self._reachable(find_postgres_binaries())
        if not (self.data / "PG_VERSION").exists():
            self._initialise(binaries)
        self._process = child.spawn(
            [
                str(binaries / "postgres"),
                *("-D", str(self.data), "-k", str(self._socket_directory), "-h", ""),
                *("-c", "max_connections=100", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"),
                *self._options,
                *(_TIMESCALE if _has_timescale(binaries) else ()),
            ],
            self._log,
            user=self._user.pw_uid if self._user else None,
        )
        child.wait_until(self._answers, self._process, self._log)
        return self

    def create_database(self, name: str) -> str:
        """Create a database if there is none of that name; return its connection string."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return self.database_url(name)

    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as a crash would; :meth:`start` recovers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def stop(self) -> None:
        """Stop it (its clients are disconnected) and remove its socket."""
        if self._process is not None:
            # What is removed anyway is not written to disk before.
            child.stop(self._process, signal.SIGINT if self._keep else signal.SIGQUIT)
            self._process = None
        shutil.rmtree(self._socket_directory, ignore_errors=True)
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _initialise(self, binaries: Path) -> None:
        # Made beside its place and renamed: an interrupted first start leaves nothing half-made.
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        initdb = child.spawn(
            [
                str(binaries / "initdb"),
                *("-D", str(fresh), "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"),
                "--no-sync",
            ],
            self._log,
            user=self._user.pw_uid if self._user else None,
        )
        if initdb.wait() != 0:
            raise child.ChildFailed(f"initdb ended with {initdb.returncode}\n{self._log.read_text()[-2000:]}")
        fresh.rename(self.data)

    def _reachable(self, binaries: Path) -> Path:
        """The binaries themselves, or a copy where ``nobody`` can't reach them (a checkout in a private folder)."""
        if self._user is None or _everybody_may_enter(binaries / "postgres"):
            return binaries
        packages = binaries.parents[2]
        copy = self.directory / "postgresql"
        if not copy.exists():
            partial = self.directory / "postgresql.new"
            shutil.rmtree(partial, ignore_errors=True)
            # The binaries find the wheel's libraries by their relative place.
            for part in ("pgserver/pginstall", "pgserver.libs"):
                shutil.copytree(packages / part, partial / part, symlinks=True)
            partial.rename(copy)
        return copy / binaries.relative_to(packages)

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def _has_timescale(binaries: Path) -> bool:
    """Whether the installation has the extension TimescaleDB, which must be loaded with the server."""
    found = subprocess.run([binaries / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and (Path(found.stdout.strip()) / "extension" / "timescaledb.control").exists()


def _everybody_may_enter(directory: Path) -> bool:
    existing = [folder for folder in directory.parents if folder.exists()]
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in existing)
