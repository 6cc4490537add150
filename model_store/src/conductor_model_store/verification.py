"""Check everything that a store holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from conductor_model_store.errors import CorruptModel, ModelNotFound
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import ModelStore


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    subject: str
    """Resource name and version of a model, or the key of a pointer."""
    problem: str | None
    """What is wrong; None if nothing is."""


def verify(store: ModelStore, predictor: str | None = None, tenant_id: str | None = None) -> Iterator[Finding]:
    """Read every version with its graph and every pointer, all or of one predictor or tenant."""
    scopes = [
        scope
        for scope in store.scopes()
        if predictor in (None, scope.predictor) and (tenant_id is None or scope.tenant_id == tenant_id)
    ]
    for scope in scopes:
        for stored in store.versions(scope.predictor, scope.tenant_id):
            yield Finding(f"{scope.resource_name} {stored.version}", _problem(store, scope, stored.version))
    directories = tuple(f"{scope.directory}/" for scope in scopes)
    everything = predictor is None and tenant_id is None
    for key, problem in store.unreadable_pointers().items():
        if everything or key.startswith(directories):
            yield Finding(key, problem)
    for scope in scopes:
        for channel in store.channels(scope.predictor, scope.tenant_id):
            pointer = store.resolve(scope.predictor, scope.tenant_id, channel)
            if pointer:
                found = _problem(store, scope, pointer.version, pointer.manifest_digest)
                yield Finding(scope.pointer_key(channel, pointer.generation), found)


def _problem(store: ModelStore, scope: ModelScope, version: str, manifest_digest: str | None = None) -> str | None:
    try:
        store.load(scope.predictor, scope.tenant_id, version, manifest_digest)
    except (CorruptModel, ModelNotFound) as error:
        return str(error)
    return None
