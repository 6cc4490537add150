"""Check everything that a store holds: digests, and signatures where the store knows whom to trust."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from conductor_model_store.errors import CorruptModel, ModelNotFound, UntrustedModel
from conductor_model_store.records import Pointer
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import ModelStore


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    subject: str
    """Resource name and version of a model, or the key of a pointer."""
    problem: str | None
    """What is wrong; None if nothing is."""
    signature: str | None = None
    """Who signed it, as `signature_state` tells."""


def verify(store: ModelStore, predictor: str | None = None, tenant_id: str | None = None) -> Iterator[Finding]:
    """Read every version with its graph and every pointer, all or of one predictor or tenant."""
    scopes = [
        scope
        for scope in store.scopes()
        if predictor in (None, scope.predictor) and (tenant_id is None or scope.tenant_id == tenant_id)
    ]
    for scope in scopes:
        for stored in store.versions(scope.predictor, scope.tenant_id):
            yield Finding(
                f"{scope.resource_name} {stored.version}",
                _problem(store, scope, stored.version),
                signature_state(store, scope, stored.version),
            )
    directories = tuple(f"{scope.directory}/" for scope in scopes)
    everything = predictor is None and tenant_id is None
    for key, problem in store.unreadable_pointers().items():
        if everything or key.startswith(directories):
            yield Finding(key, problem, store.moved_by(key))
    for scope in scopes:
        for channel in store.channels(scope.predictor, scope.tenant_id):
            history = store.history(scope.predictor, scope.tenant_id, channel)
            for pointer, before in zip_longest(history, history[1:]):
                found = _break(pointer, before)
                if not found and pointer is history[0] and not pointer.withdrawn:
                    found = _problem(store, scope, pointer.version, pointer.manifest_digest)
                if found or pointer is history[0]:
                    key = scope.pointer_key(channel, pointer.generation)
                    yield Finding(key, found, store.moved_by(key))


def _break(pointer: Pointer, before: Pointer | None) -> str | None:
    """Whether a generation of a chain does not follow the one before it."""
    if not pointer.predecessor or (before is not None and pointer.predecessor == before.digest):
        return None
    what = f"generation {before.generation}" if before is not None else "any generation that is there"
    return f"it does not follow {what}: one that was between is gone, or is another now"


def signature_state(store: ModelStore, scope: ModelScope, version: str) -> str:
    """The keys that a version's signatures name, trusted or not; or "unsigned", or "unreadable".

    The first 16 digits of each id, in order, separated by commas.
    """
    content = store.signatures(scope, version)
    if content is None:
        return "unsigned"
    from conductor_model_store.signatures import read_envelope  # noqa: PLC0415  # takes long to import
    from conductor_model_store.signing_keys import shortened  # noqa: PLC0415  # likewise

    try:
        return shortened(read_envelope(scope.resource_name, content).signatures)
    except UntrustedModel:
        return "unreadable"


def _problem(store: ModelStore, scope: ModelScope, version: str, manifest_digest: str | None = None) -> str | None:
    try:
        store.load(scope.predictor, scope.tenant_id, version, manifest_digest)
    except (CorruptModel, ModelNotFound, UntrustedModel) as error:
        return str(error)
    return None
