"""The model store: what training publishes and the server loads.

A version is a manifest and the graph that it names by digest; both are immutable. A channel ("champion",
"challenger", …) is a row of pointer files numbered by generation. Publishing writes the graph, then the manifest, its
signature and the next generation, so a crash at any step leaves the old pointer in force.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store.channel_moves import ChannelMoves
from conductor_model_store.errors import (
    CorruptModel,
    InvalidKey,
    InvalidScope,
    ModelNotFound,
    ModelStoreUnavailable,
    RefusedPointer,
)
from conductor_model_store.pointer_files import OnRefused, PointerFiles
from conductor_model_store.pointer_memory import PointerMemory
from conductor_model_store.records import LoadedModel, ModelVersion, Pointer, StoredVersion, check_weight
from conductor_model_store.scope import MODELS, ModelScope, is_version, parse_key
from conductor_model_store.signed_version import SignedVersion
from conductor_model_store.version_files import VersionFiles
from conductor_model_store.watch import PointerWatch
from conductor_storage import Objects, ObstoreObjects

if TYPE_CHECKING:  # its library takes long to import, and who only looks does not need it
    from conductor_model_store.signatures import Trust

CHAMPION = "champion"
"""The channel that answers requests."""
CANARY, CHALLENGER = "canary", "challenger"
"""Channels that answer a share of the entities."""
SHADOW = "shadow"
"""The channel that is scored beside the champion and never answers."""
CHANNELS = (CHAMPION, CANARY, CHALLENGER, SHADOW)
WEIGHTED = (CANARY, CHALLENGER)


class ModelStore:
    """Versions and channels in one place; safe to use from several threads and processes at once."""

    def __init__(
        self,
        objects: Objects,
        *,
        trust: "Trust | None" = None,
        memory: PointerMemory | None = None,
        on_refused: OnRefused = lambda _key, _error: None,
        rescan_seconds: float = 5.0,
    ) -> None:
        """Work on ``objects``.

        ``trust``: who signs what is published and moved, and whose signatures count; None: nobody's.
        ``memory``: of the latest moves that were seen, so that no channel goes back to before them; where moves are
        checked. ``on_refused`` is told of pointers that were passed over.
        ``rescan_seconds``: how long watchers go without listing everything while the journal of changes is quiet. It
        bounds the delay after a publisher that died between moving the pointer and telling of it.
        """
        self._objects = objects
        self._trust = trust
        self._rescan_seconds = rescan_seconds
        self._versions = VersionFiles(objects, trust)
        self._files = PointerFiles(objects, trust, memory, on_refused)
        self._moves = ChannelMoves(self._files)
        self._watch = self.watch()

    @classmethod
    def open(
        cls,
        location: str | Path,
        trust: "Trust | None" = None,
        *,
        memory: PointerMemory | None = None,
        on_refused: OnRefused = lambda _key, _error: None,
    ) -> "ModelStore":
        """Open the store at a local path or a URL (``file://``, ``s3://bucket/prefix``, ``gs://``, ``az://``).

        Credentials and endpoint of a remote store come from its usual environment variables (``AWS_…``).
        Raises ModelStoreUnavailable.
        """
        objects = ObstoreObjects(location, unavailable=ModelStoreUnavailable)
        return cls(objects, trust=trust, memory=memory, on_refused=on_refused)

    def publish(
        self, manifest: ModelManifest, graph: bytes, channel: str = CHAMPION, *, actor: str = ""
    ) -> ModelVersion:
        """Store a model and point the channel of its scope at it.

        Publishing what the channel already points at changes nothing. Raises as `add`, NoAuthority (our moves would not
        be trusted here; nothing was written).
        """
        ModelScope(manifest.predictor, manifest.tenant_id).channel_directory(channel)
        if self._trust:
            self._trust.require_own_signature_counts()
            self._trust.require_authority()
        scope, version, manifest_digest = self._versions.add(manifest, graph)
        wanted = _pointer(scope, channel, version, manifest_digest, "publish", actor=actor)
        return ModelVersion(scope, version, manifest_digest, self._moves.point(wanted))

    def add(self, manifest: ModelManifest, graph: bytes) -> tuple[ModelScope, str, str]:
        """Store a model without putting it to use; returns its scope, version and manifest's digest.

        Raises InvalidManifest, InvalidScope, UntrustedModel (its signature would not be trusted here; nothing was
        written), ModelStoreUnavailable.
        """
        return self._versions.add(manifest, graph)

    def resolve(self, predictor: str, tenant_id: str | None = None, channel: str = CHAMPION) -> Pointer | None:
        """Where a channel of exactly this scope points; None for nowhere: never published to, or withdrawn.

        It doesn't fall back from a tenant to the global model: that is the server's decision, request by request.
        """
        pointer = self._files.current(ModelScope(predictor, tenant_id or ""), channel)[1]
        return None if pointer is None or pointer.withdrawn else pointer

    def load(
        self, predictor: str, tenant_id: str | None, version: str, manifest_digest: str | None = None
    ) -> LoadedModel:
        """Read a version and check signature, digests and sizes, and the pointer's ``manifest_digest`` if it is given.

        Raises ModelNotFound, CorruptModel, UntrustedModel, ModelStoreUnavailable.
        """
        return self._versions.load(ModelScope(predictor, tenant_id or ""), version, manifest_digest)

    def signed_by(self, signed: SignedVersion) -> frozenset[str]:
        """Ids of the trusted keys that signed a version; none where signatures are not checked.

        Raises UntrustedModel, ModelStoreUnavailable.
        """
        return self._versions.signed_by(signed)

    def sign(self, predictor: str, tenant_id: str | None, version: str) -> None:
        """Add our signature to a stored version, after checking its digests; other keys' signatures stay.

        Two keys that sign one version at the same moment may lose one of the signatures: sign again.
        Raises InvalidKey (there is no key to sign with), ModelNotFound, CorruptModel, ModelStoreUnavailable.
        """
        self._versions.sign(ModelScope(predictor, tenant_id or ""), version)

    def signatures(self, scope: ModelScope, version: str) -> bytes | None:
        """The signatures of a version as they are stored, unchecked; None if there are none."""
        return self._versions.signatures(scope, version)

    def find(self, predictor: str, tenant_id: str | None, name: str) -> LoadedModel:
        """Read a version, or what a channel of that name points at. Raises as `load`."""
        if is_version(name):
            return self.load(predictor, tenant_id, name)
        try:
            pointer = self.resolve(predictor, tenant_id, name)
        except InvalidScope:
            pointer = None
        if pointer is None:
            raise ModelNotFound(f"{name!r} is neither a version nor a channel that points at one")
        return self.load_pointer(pointer)

    def load_pointer(self, pointer: Pointer) -> LoadedModel:
        """Read the version that a pointer names. Raises as `load`."""
        return self.load(pointer.scope.predictor, pointer.scope.tenant_id, pointer.version, pointer.manifest_digest)

    def trusts(self, signed_by: frozenset[str]) -> bool:
        """Whether one of the keys that signed a version is trusted now."""
        keys = self._trust.keys if self._trust is not None else None
        return keys is None or not signed_by.isdisjoint(keys)

    @property
    def checks_moves(self) -> bool:
        """Whether channels move only by those who are trusted to move them."""
        return self._trust is not None and self._trust.mover_keys is not None

    def watch(self) -> PointerWatch:
        """Follow all channels cheaply; each watch by itself."""
        return PointerWatch(self._objects, self._files, self._rescan_seconds)

    def pointers(self, channel: str = CHAMPION) -> dict[ModelScope, Pointer]:
        """Where every scope's channel points. A pointer that can't be read is passed over for the one before it.

        Raises ModelStoreUnavailable.
        """
        self._watch.poll()
        found = ((scope, self._watch.pointer(scope, channel)) for scope, _ in self._watch.places(channel))
        return {scope: pointer for scope, pointer in found if pointer and not pointer.withdrawn}

    def history(self, predictor: str, tenant_id: str | None = None, channel: str = CHAMPION) -> list[Pointer]:
        """Every readable generation of a channel, newest first."""
        scope = ModelScope(predictor, tenant_id or "")
        readable = (self._files.read(key) for _, key in self._files.generations(scope, channel))
        return [pointer for pointer in readable if pointer]

    def rollback(
        self,
        predictor: str,
        tenant_id: str | None = None,
        channel: str = CHAMPION,
        *,
        actor: str = "",
        detail: str = "",
    ) -> Pointer:
        """Point a channel at what it pointed at before, as a new generation; again for one further back.

        Raises ModelNotFound (nothing before it), CorruptModel (what was before it is damaged), PointerMoved,
        NoAuthority.
        """
        scope = ModelScope(predictor, tenant_id or "")
        return self._moves.back(scope, channel, self.load_pointer, actor, detail)

    def promote(
        self,
        predictor: str,
        tenant_id: str | None,
        version: str,
        channel: str = CHAMPION,
        weight: float = 0.0,
        *,
        actor: str = "",
        detail: str = "",
    ) -> Pointer:
        """Point a channel at a stored version, or at what another channel points at, after checking it.

        ``weight``: share of the entities that a canary or challenger answers. Raises as `load`, InvalidScope,
        NoAuthority.
        """
        check_weight(weight)
        if weight and channel not in WEIGHTED:
            raise InvalidScope(f"only {' and '.join(WEIGHTED)} have a weight, not {channel}")
        model = self.find(predictor, tenant_id, version)
        wanted = _pointer(model.scope, channel, model.version, model.manifest_digest, "promote", weight, actor, detail)
        return self._moves.point(wanted)

    def withdraw(
        self,
        predictor: str,
        tenant_id: str | None,
        channel: str,
        detail: str = "",
        expected: Pointer | None = None,
        *,
        actor: str = "",
    ) -> Pointer:
        """Let a channel point nowhere, as a new generation; a rollback of it goes back to what it pointed at.

        Withdrawing what is withdrawn changes nothing. Raises InvalidScope (the champion can't be), ModelNotFound
        (there is no such channel), PointerMoved (it does not point at ``expected`` any more),
        NoAuthority.
        """
        scope = ModelScope(predictor, tenant_id or "")
        if channel == CHAMPION:
            raise InvalidScope(f"{CHAMPION} can't be withdrawn: promote another version")
        return self._moves.withdraw(scope, channel, expected, actor, detail)

    def sign_channel(self, scope: ModelScope, channel: str) -> Iterator[tuple[str, str]]:
        """Add our signature to a channel's trusted generations; where none is trusted, to all, for we vouch for them.

        Yields each one's key, and why it was not signed; empty if it was. Raises InvalidKey, NoAuthority,
        ModelStoreUnavailable.
        """
        if self._trust is None or self._trust.mover is None:
            raise InvalidKey("there is no key to sign with: set CONDUCTOR_MODEL_OPERATOR_KEY")
        return self._moves.sign(scope, channel, self.load_pointer)

    def restart_channel(
        self,
        predictor: str,
        tenant_id: str | None,
        channel: str,
        above: int,
        *,
        actor: str = "",
        detail: str = "",
    ) -> Pointer:
        """Begin a new chain of moves above a generation that servers saw, where the store lost that one.

        The channel points where it does now, and servers follow it again. Raises as `load`, NoAuthority, PointerMoved.
        """
        scope = ModelScope(predictor, tenant_id or "")
        return self._moves.restart(scope, channel, above, self.load_pointer, actor, detail)

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
        """Keys of pointer files that can't be read or are not trusted, with the reason."""
        problems = {}
        for entry in self._objects.list(MODELS):
            parsed = parse_key(entry.key)
            if parsed and parsed.channel:
                try:
                    self._files.check(entry.key)
                except (CorruptModel, RefusedPointer) as error:
                    problems[entry.key] = str(error)
        return problems

    def moved_by(self, key: str) -> str:
        """The keys that a pointer's signatures name, trusted or not; or "unsigned", or "unreadable"."""
        pointer = self._files.unchecked(key)
        if pointer is None:
            return "unreadable"
        return ", ".join(key_id[:16] for key_id, _ in sorted(pointer.signatures)) or "unsigned"

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


def _scope(predictor: str, tenant_id: str) -> ModelScope | None:
    try:
        return ModelScope(predictor, tenant_id)
    except InvalidScope:
        return None


def _pointer(
    scope: ModelScope,
    channel: str,
    version: str,
    manifest_digest: str,
    reason: str,
    weight: float = 0.0,
    actor: str = "",
    detail: str = "",
) -> Pointer:
    """A pointer that is not in force yet, nor numbered."""
    now = datetime.now(UTC)
    return Pointer(scope, channel, 0, version, manifest_digest, now, reason, weight=weight, actor=actor, detail=detail)
