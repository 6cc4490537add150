"""Sign what a store holds already: models from before there were signatures, or for another key."""

from collections.abc import Iterator

from conductor_model_store.errors import CorruptModel, ModelNotFound
from conductor_model_store.scope import ModelScope
from conductor_model_store.store import ModelStore
from conductor_model_store.verification import Finding, signature_state


def sign_all(store: ModelStore, predictor: str | None = None, tenant_id: str | None = None) -> Iterator[Finding]:
    """Sign every version, all or of one predictor or tenant; what is damaged is told and not signed.

    Raises InvalidKey (there is no key to sign with), ModelStoreUnavailable.
    """
    for scope in store.scopes():
        if predictor in (None, scope.predictor) and tenant_id in (None, scope.tenant_id):
            for stored in store.versions(scope.predictor, scope.tenant_id):
                yield sign(store, scope, stored.version)


def sign(store: ModelStore, scope: ModelScope, version: str) -> Finding:
    """Sign one version, unless it is damaged or absent. Raises as `sign_all`."""
    problem = None
    try:
        store.sign(scope.predictor, scope.tenant_id, version)
    except (CorruptModel, ModelNotFound) as error:
        problem = str(error)
    return Finding(f"{scope.resource_name} {version}", problem, signature_state(store, scope, version))


def sign_channels(
    store: ModelStore, predictor: str | None = None, tenant_id: str | None = None, channel: str | None = None
) -> Iterator[Finding]:
    """Sign the generations of channels, all or of one predictor, tenant or channel; as `ModelStore.sign_channel`."""
    for scope in store.scopes():
        if predictor in (None, scope.predictor) and tenant_id in (None, scope.tenant_id):
            for name in store.channels(scope.predictor, scope.tenant_id):
                if channel in (None, name):
                    for key, problem in store.sign_channel(scope, name):
                        yield Finding(key, problem or None, store.moved_by(key))
