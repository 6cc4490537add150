"""The model store: what training publishes and the server loads.

A version is a manifest and the graph that it names by digest; both are immutable. A channel ("champion",
"challenger", …) is a row of pointer files numbered by generation. Publishing writes the graph, then the manifest,
then the next generation, so a crash at any step leaves the old pointer in force.
"""

import hashlib
import logging
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.message import DecodeError

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store.errors import (
    CorruptModel,
    InvalidManifest,
    InvalidScope,
    ModelNotFound,
    ModelStoreError,
    ModelStoreUnavailable,
    PointerMoved,
)
from conductor_model_store.records import LoadedModel, ModelVersion, Pointer, StoredVersion
from conductor_model_store.scope import MODELS, ModelScope, blob_key, parse_key
from conductor_storage import Objects, ObstoreObjects

CHAMPION = "champion"
"""The channel that answers requests."""

_CHANGE_MARK = "changed"
_MOST_ATTEMPTS = 1000  # each failed attempt is another publisher's success

_log = logging.getLogger(__name__)


class ModelStore:
    """Versions and channels in one place; safe to use from several threads and processes at once."""

    def __init__(self, objects: Objects, *, rescan_seconds: float = 5.0) -> None:
        """Work on ``objects``.

        ``rescan_seconds``: how long `pointers` may answer from its last listing while the store's change mark stays
        the same. It bounds the delay after a publisher that died between moving the pointer and setting the mark.
        """
        self._objects = objects
        self._rescan_seconds = rescan_seconds
        self._read_pointers: dict[str, Pointer] = {}
        self._listings: dict[str, tuple[bytes | None, float, dict[ModelScope, Pointer]]] = {}

    @classmethod
    def open(cls, location: str | Path) -> "ModelStore":
        """Open the store at a local path or a URL (``file://``, ``s3://bucket/prefix``, ``gs://``, ``az://``).

        Credentials and endpoint of a remote store come from its usual environment variables (``AWS_…``).
        Raises ModelStoreUnavailable.
        """
        return cls(ObstoreObjects(location, unavailable=ModelStoreUnavailable))

    def publish(self, manifest: ModelManifest, graph: bytes, channel: str = CHAMPION) -> ModelVersion:
        """Store a model and point the channel of its scope at it.

        Publishing what the channel already points at changes nothing. Raises InvalidManifest, InvalidScope,
        ModelStoreUnavailable.
        """
        scope = ModelScope(manifest.predictor, manifest.tenant_id)
        scope.channel_directory(channel)
        _check_graph(manifest, graph)
        content = manifest.SerializeToString(deterministic=True)
        manifest_digest = _sha256(content)
        version = manifest_digest[:16]
        self._store(blob_key(manifest.graph.digest), graph)
        self._store(scope.version_key(version), content)
        pointer = self._point(scope, channel, version, manifest_digest, "publish")
        return ModelVersion(scope, version, manifest_digest, pointer)

    def resolve(self, predictor: str, tenant_id: str | None = None, channel: str = CHAMPION) -> Pointer | None:
        """Where a channel of exactly this scope points; None if it was never published to.

        It doesn't fall back from a tenant to the global model: that is the server's decision, request by request.
        """
        return self._current(ModelScope(predictor, tenant_id or ""), channel)[1]

    def load(
        self, predictor: str, tenant_id: str | None, version: str, manifest_digest: str | None = None
    ) -> LoadedModel:
        """Read a version and check every digest and size. Give the pointer's ``manifest_digest`` to check that too.

        Raises ModelNotFound, CorruptModel, ModelStoreUnavailable.
        """
        scope = ModelScope(predictor, tenant_id or "")
        key = scope.version_key(version)
        content = self._objects.get(key)
        if content is None:
            raise ModelNotFound(f"{scope.resource_name} has no version {version}")
        digest = _sha256(content)
        if digest[:16] != version or (manifest_digest is not None and digest != manifest_digest):
            raise CorruptModel(f"{key} has digest {digest}, not {manifest_digest or version + '…'}")
        try:
            manifest = ModelManifest.FromString(content)
        except DecodeError as error:
            raise CorruptModel(f"{key} is no manifest: {error}") from error
        if (manifest.predictor, manifest.tenant_id) != (scope.predictor, scope.tenant_id):
            raise CorruptModel(f"{key} holds a model of {manifest.predictor!r}, tenant {manifest.tenant_id!r}")
        return LoadedModel(scope, version, digest, manifest, self._graph(key, manifest))

    def load_pointer(self, pointer: Pointer) -> LoadedModel:
        """Read the version that a pointer names. Raises as `load`."""
        return self.load(pointer.scope.predictor, pointer.scope.tenant_id, pointer.version, pointer.manifest_digest)

    def pointers(self, channel: str = CHAMPION) -> dict[ModelScope, Pointer]:
        """Where every scope's channel points: cheap enough to ask twice a second.

        One small read while nothing changes, one listing when something did or ``rescan_seconds`` have passed; a
        pointer file is read once, since it never changes. A pointer that can't be read is passed over for the one
        before it, and logged.
        """
        # The mark is read before the listing: a change during the listing is then seen by the next call.
        mark = self._objects.get(_CHANGE_MARK)
        known = self._listings.get(channel)
        if known and known[0] == mark and time.monotonic() - known[1] < self._rescan_seconds:
            return dict(known[2])
        generations: dict[str, list[tuple[int, str]]] = {}
        listed_time = time.monotonic()
        for entry in self._objects.list(MODELS):
            parsed = parse_key(entry.key)
            if parsed and parsed.channel == channel:
                generations.setdefault(parsed.directory, []).append((parsed.generation, entry.key))
        current = [self._newest_readable(found) for found in generations.values()]
        answer = {pointer.scope: pointer for pointer in current if pointer}
        self._listings[channel] = (mark, listed_time, answer)
        return dict(answer)

    def history(self, predictor: str, tenant_id: str | None = None, channel: str = CHAMPION) -> list[Pointer]:
        """Every readable generation of a channel, newest first."""
        scope = ModelScope(predictor, tenant_id or "")
        readable = (self._read_pointer(key) for _, key in self._generations(scope, channel))
        return [pointer for pointer in readable if pointer]

    def rollback(self, predictor: str, tenant_id: str | None = None, channel: str = CHAMPION) -> Pointer:
        """Point a channel at what it pointed at before, as a new generation; again for one further back.

        Raises ModelNotFound (nothing before it), CorruptModel (what was before it is damaged), PointerMoved.
        """
        scope = ModelScope(predictor, tenant_id or "")
        highest, current = self._current(scope, channel)
        if current is None:
            raise ModelNotFound(f"{scope.resource_name} has no channel {channel!r}")
        if current.previous_generation == 0:
            raise ModelNotFound(f"{scope.resource_name}, {channel}: there is no version before {current.version}")
        key = scope.pointer_key(channel, current.previous_generation)
        target = self._read_pointer(key)
        if target is None:
            raise CorruptModel(f"{key} can't be read; promote a version instead")
        self.load_pointer(target)
        pointer = Pointer(
            scope,
            channel,
            highest + 1,
            target.version,
            target.manifest_digest,
            datetime.now(UTC),
            "rollback",
            target.previous_generation,
        )
        if not self._move(pointer):
            raise PointerMoved(f"{scope.resource_name}, {channel} was moved meanwhile: look at it before rolling back")
        return pointer

    def promote(self, predictor: str, tenant_id: str | None, version: str, channel: str = CHAMPION) -> Pointer:
        """Point a channel at a stored version, after checking it. Raises as `load`."""
        model = self.load(predictor, tenant_id, version)
        return self._point(model.scope, channel, version, model.manifest_digest, "promote")

    def versions(self, predictor: str, tenant_id: str | None = None) -> list[StoredVersion]:
        """The versions of a scope, newest first."""
        scope = ModelScope(predictor, tenant_id or "")
        found = [
            StoredVersion(scope, parsed.version, entry.modified_time)
            for entry in self._objects.list(f"{scope.directory}/versions")
            if (parsed := parse_key(entry.key)) and parsed.version
        ]
        return sorted(found, key=lambda version: (version.stored_time, version.version), reverse=True)

    def channels(self, predictor: str, tenant_id: str | None = None) -> list[str]:
        """The channels of a scope, in order."""
        entries = self._objects.list(f"{ModelScope(predictor, tenant_id or '').directory}/channels")
        parsed = (parse_key(entry.key) for entry in entries)
        return sorted({key.channel for key in parsed if key and key.channel})

    def scopes(self) -> list[ModelScope]:
        """Every scope that the store holds something of, in order."""
        scopes: dict[str, ModelScope] = {}
        for entry in self._objects.list(MODELS):
            parsed = parse_key(entry.key)
            if parsed is None or parsed.directory in scopes:
                continue
            scope = (
                self._scope_in(entry.key) if parsed.tenant_id is None else _scope(parsed.predictor, parsed.tenant_id)
            )
            if scope and scope.directory == parsed.directory:
                scopes[parsed.directory] = scope
        return sorted(scopes.values())

    def unreadable_pointers(self) -> dict[str, str]:
        """Keys of pointer files that can't be read, with the reason."""
        problems = {}
        for entry in self._objects.list(MODELS):
            parsed = parse_key(entry.key)
            if parsed and parsed.channel:
                try:
                    Pointer.from_json(entry.key, self._objects.get(entry.key) or b"")
                except CorruptModel as error:
                    problems[entry.key] = str(error)
        return problems

    def _store(self, key: str, content: bytes) -> None:
        """Write immutable content; mend what an earlier writer or disk left damaged."""
        if self._objects.get(key) != content:
            self._objects.put(key, content)

    def _graph(self, manifest_key: str, manifest: ModelManifest) -> bytes:
        try:
            key = blob_key(manifest.graph.digest)
        except InvalidScope as error:
            raise CorruptModel(f"{manifest_key}: {error}") from error
        # The size is asked first, so that a wrong file isn't read into memory whatever its size.
        size = self._objects.size(key)
        if size is None:
            raise ModelNotFound(f"{manifest_key} needs {key}, which is absent")
        if size != manifest.graph.size_bytes:
            raise CorruptModel(f"{key} has {size} bytes, not {manifest.graph.size_bytes}")
        graph = self._objects.get(key)
        if graph is None:
            raise ModelNotFound(f"{manifest_key} needs {key}, which is absent")
        if len(graph) != manifest.graph.size_bytes or _sha256(graph) != manifest.graph.digest:
            raise CorruptModel(f"{key} has other content than its digest says")
        return graph

    def _point(self, scope: ModelScope, channel: str, version: str, manifest_digest: str, reason: str) -> Pointer:
        """Move a channel to a version, whatever it points at; a move by another process meanwhile comes before ours."""
        for _ in range(_MOST_ATTEMPTS):
            highest, current = self._current(scope, channel)
            if current and (current.version, current.manifest_digest) == (version, manifest_digest):
                return current
            pointer = Pointer(
                scope,
                channel,
                highest + 1,
                version,
                manifest_digest,
                datetime.now(UTC),
                reason,
                current.generation if current else 0,
            )
            if self._move(pointer):
                return pointer
        raise PointerMoved(f"{scope.resource_name}, {channel} is being moved by others all the time")

    def _move(self, pointer: Pointer) -> bool:
        key = pointer.scope.pointer_key(pointer.channel, pointer.generation)
        if not self._objects.put_if_absent(key, pointer.to_json()):
            return False
        try:
            self._objects.put(_CHANGE_MARK, uuid.uuid4().hex.encode())
        except ModelStoreError as error:
            # The channel has moved; watchers see it at their next rescan.
            _log.warning("moved %s, but could not set the change mark: %s", key, error)
        return True

    def _generations(self, scope: ModelScope, channel: str) -> list[tuple[int, str]]:
        """Generations of a channel with their keys, newest first."""
        found = (
            (parsed.generation, entry.key)
            for entry in self._objects.list(scope.channel_directory(channel))
            if (parsed := parse_key(entry.key)) and parsed.channel == channel
        )
        return sorted(found, reverse=True)

    def _current(self, scope: ModelScope, channel: str) -> tuple[int, Pointer | None]:
        """The highest generation's number (0 for none) and the pointer in force."""
        generations = self._generations(scope, channel)
        return (generations[0][0] if generations else 0), self._newest_readable(generations)

    def _newest_readable(self, generations: list[tuple[int, str]]) -> Pointer | None:
        for _, key in sorted(generations, reverse=True):
            pointer = self._read_pointer(key)
            if pointer:
                return pointer
        return None

    def _read_pointer(self, key: str) -> Pointer | None:
        pointer = self._read_pointers.get(key)
        if pointer is None:
            try:
                pointer = Pointer.from_json(key, self._objects.get(key) or b"")
            except CorruptModel as error:
                _log.warning("passed over a pointer: %s", error)
                return None
            self._read_pointers[key] = pointer
        return pointer

    def _scope_in(self, key: str) -> ModelScope | None:
        """The scope that a file tells of itself."""
        content = self._objects.get(key) or b""
        if key.endswith(".json"):
            try:
                return Pointer.from_json(key, content).scope
            except CorruptModel:
                return None
        try:
            manifest = ModelManifest.FromString(content)
        except DecodeError:
            return None
        return _scope(manifest.predictor, manifest.tenant_id)


def _check_graph(manifest: ModelManifest, graph: bytes) -> None:
    if not graph:
        raise InvalidManifest("the graph is empty")
    if manifest.graph.size_bytes != len(graph):
        raise InvalidManifest(f"the manifest says {manifest.graph.size_bytes} bytes, the graph has {len(graph)}")
    digest = _sha256(graph)
    if manifest.graph.digest != digest:
        raise InvalidManifest(f"the manifest says digest {manifest.graph.digest!r}, the graph has {digest}")


def _scope(predictor: str, tenant_id: str) -> ModelScope | None:
    try:
        return ModelScope(predictor, tenant_id)
    except InvalidScope:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
