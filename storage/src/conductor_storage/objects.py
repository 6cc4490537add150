"""The few operations that are asked of storage, and obstore's answer to them.

Moving a pointer safely takes one thing: a put that fails if the key exists. obstore gives it on local disks (a hard
link to a finished temporary file) and on S3, GCS and Azure (conditional puts).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url


class StorageUnavailable(Exception):
    """The storage doesn't answer or refuses."""


@dataclass(frozen=True)
class StoredObject:
    """An entry of a listing."""

    key: str
    size_bytes: int
    modified_time: datetime


class Objects(Protocol):
    """Storage by key. Every put is atomic and durable when it returns."""

    def get(self, key: str) -> bytes | None:
        """Read all of an object; None if there is none."""

    def size(self, key: str) -> int | None:
        """Size in bytes of an object; None if there is none."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object in place of any other."""

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object if the key is free; say whether it was."""

    def list(self, prefix: str) -> list[StoredObject]:
        """Everything below a folder-like prefix, in no particular order."""

    def delete(self, key: str) -> None:
        """Take an object away, if there is one."""


class ObstoreObjects:
    """Objects on a local path or anything that obstore has a URL for (s3://, gs://, az://, memory:///)."""

    def __init__(
        self,
        location: str | Path,
        *,
        unavailable: type[StorageUnavailable] = StorageUnavailable,
        durable: bool = True,
    ) -> None:
        """Open what is there; a local folder is made.

        Credentials and endpoint of a remote store come from its usual environment variables (``AWS_…``).

        Args:
            location: a local path, or a URL: ``file://``, ``s3://bucket/prefix``, ``gs://``, ``az://``.
            unavailable: how it is told that the storage does not answer, here and by every operation.
            durable: a local file is on the disk when it is said to be written; False for what may be lost.
        """
        text = str(location)
        self.location = text
        self._unavailable, self._durable = unavailable, durable
        with self._translated(text):
            if "://" in text and not text.startswith("file://"):
                self._store = from_url(text) if text.startswith("memory:") else _remote(text)
                self._root: Path | None = None
            else:
                local = (
                    LocalStore.from_url(text, mkdir=True)
                    if text.startswith("file://")
                    else LocalStore(Path(text).expanduser().resolve(), mkdir=True)
                )
                self._store = local
                self._root = Path(str(local.prefix))

    def get(self, key: str) -> bytes | None:
        """Read all of an object; None if there is none."""
        try:
            with self._translated(key):
                return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None

    def size(self, key: str) -> int | None:
        """Size in bytes of an object; None if there is none."""
        try:
            with self._translated(key):
                return obstore.head(self._store, key)["size"]
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Write an object in place of any other."""
        with self._translated(key):
            obstore.put(self._store, key, content)
            self._flush(key)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object if the key is free; say whether it was."""
        try:
            with self._translated(key):
                obstore.put(self._store, key, content, mode="create")
                self._flush(key)
        except AlreadyExistsError:
            return False
        return True

    def list(self, prefix: str) -> list[StoredObject]:
        """Everything below a folder-like prefix, in no particular order."""
        with self._translated(prefix):
            return [
                StoredObject(entry["path"], entry["size"], entry["last_modified"])
                for chunk in obstore.list(self._store, prefix, chunk_size=1000)
                for entry in chunk
            ]

    def delete(self, key: str) -> None:
        """Take an object away, if there is one."""
        try:
            with self._translated(key):
                obstore.delete(self._store, key)
        except FileNotFoundError:
            return

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn the storage's own errors into ours; absence and presence are for the caller to tell."""
        try:
            yield
        except (FileNotFoundError, AlreadyExistsError):
            raise
        except (BaseError, OSError) as error:
            reason = str(error).split("\n\nDebug source", maxsplit=1)[0]
            raise self._unavailable(f"{what}: {reason}") from error

    def _flush(self, key: str) -> None:
        """Bring a local file and its folder to the disk, since obstore leaves that to the operating system.

        Without it, a power cut could keep the pointer and lose what it points to.
        """
        if self._root is None or not self._durable:
            return
        path = self._root / key
        for place in (path, *path.parents):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if place == self._root:
                break


def _remote(url: str) -> ObjectStore:
    """A store at a URL, with what its usual environment variables say."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    return from_url(
        url,
        client_options={
            # A watcher must hear soon that its store is away.
            "timeout": "30s",
            "connect_timeout": "3s",
            # Options given here hide AWS_ALLOW_HTTP; whoever names an http:// endpoint (MinIO) means it.
            "allow_http": endpoint.startswith("http://"),
        },
        retry_config={"max_retries": 3},
    )
