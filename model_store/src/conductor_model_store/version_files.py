"""The versions of models in a store: manifest, graph and signatures; immutable, and checked whenever they are read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store.errors import CorruptModel, InvalidKey, InvalidManifest, InvalidScope, ModelNotFound
from conductor_model_store.records import LoadedModel
from conductor_model_store.scope import ModelScope, blob_key
from conductor_model_store.signed_version import SignedVersion
from conductor_storage import Objects

if TYPE_CHECKING:  # its library takes long to import, and who only looks does not need it
    from conductor_model_store.signatures import Trust


class VersionFiles:
    """Reads and writes the files of versions. ``trust``: who signs them, and whose signatures count; None: nobody's.

    What is raised is told by the methods of ModelStore that these serve.
    """

    def __init__(self, objects: Objects, trust: Trust | None) -> None:
        self._objects, self._trust = objects, trust

    def add(self, manifest: ModelManifest, graph: bytes) -> tuple[ModelScope, str, str]:
        """Store and sign a version; returns its scope, name and manifest's digest."""
        scope = ModelScope(manifest.predictor, manifest.tenant_id)
        _check_graph(manifest, graph)
        if self._trust:
            self._trust.require_own_signature_counts()
        content = manifest.SerializeToString(deterministic=True)
        manifest_digest = _sha256(content)
        version = manifest_digest[:16]
        self._store(blob_key(manifest.graph.digest), graph)
        self._store(scope.version_key(version), content)
        if self._trust and self._trust.signer:
            self._write_signature(SignedVersion(scope, version, manifest_digest, manifest.graph.digest))
        return scope, version, manifest_digest

    def load(self, scope: ModelScope, version: str, manifest_digest: str | None = None) -> LoadedModel:
        """Read a version and check signature, digests and sizes, and ``manifest_digest`` if it is given."""
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
        signed_by = self.signed_by(SignedVersion(scope, version, digest, manifest.graph.digest))
        return LoadedModel(scope, version, digest, manifest, self._graph(key, manifest), signed_by)

    def signed_by(self, signed: SignedVersion) -> frozenset[str]:
        """Ids of the trusted keys that signed it; none where signatures are not checked."""
        if self._trust is None:
            return frozenset()
        return self._trust.check(signed, self.signatures(signed.scope, signed.version))

    def sign(self, scope: ModelScope, version: str) -> None:
        """Add our signature to what is stored, after checking its digests; other keys' signatures stay."""
        model = VersionFiles(self._objects, None).load(scope, version)
        self._write_signature(SignedVersion(scope, version, model.manifest_digest, model.manifest.graph.digest))

    def signatures(self, scope: ModelScope, version: str) -> bytes | None:
        """As they are stored, unchecked; None if there are none."""
        return self._objects.get(scope.signature_key(version))

    def _store(self, key: str, content: bytes) -> None:
        """Write immutable content; mend what an earlier writer or disk left damaged."""
        if self._objects.get(key) != content:
            self._objects.put(key, content)

    def _write_signature(self, signed: SignedVersion) -> None:
        if not self._trust:
            raise InvalidKey("there is no key to sign with: set CONDUCTOR_MODEL_SIGNING_KEY")
        content = self._trust.sign(signed, self.signatures(signed.scope, signed.version))
        self._store(signed.scope.signature_key(signed.version), content)

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


def _check_graph(manifest: ModelManifest, graph: bytes) -> None:
    if not graph:
        raise InvalidManifest("the graph is empty")
    if manifest.graph.size_bytes != len(graph):
        raise InvalidManifest(f"the manifest says {manifest.graph.size_bytes} bytes, the graph has {len(graph)}")
    digest = _sha256(graph)
    if manifest.graph.digest != digest:
        raise InvalidManifest(f"the manifest says digest {manifest.graph.digest!r}, the graph has {digest}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
