"""Keys of the embedded platform."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import jwt
import pytest

from conductor.model.v1.model_manifest_pb2 import Blob, ModelManifest
from conductor_model_store import ModelStore, UntrustedModel
from conductor_model_store.signing_keys import generate_key_pair, read_signer, read_trusted_keys
from conductor_workbench.embedded.platform import Platform, PlatformSettings
from conductor_workbench.keys import AUDIENCE, ISSUER, EmbeddedKeys


def test_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    keys = EmbeddedKeys(tmp_path / "keys").ensure()
    before = {path.name: path.read_bytes() for path in keys.directory.iterdir()}
    keys.ensure()
    assert {path.name: path.read_bytes() for path in keys.directory.iterdir()} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys.directory.iterdir())


def test_the_key_of_models_is_made_once(tmp_path: Path) -> None:
    keys = EmbeddedKeys(tmp_path / "keys")
    assert (keys.ensure_model_keys(), keys.ensure_model_keys()) == (True, False)
    assert stat.S_IMODE(keys.model_signing_key.stat().st_mode) == 0o600
    keys.model_trusted_key.unlink()  # as if it had been stopped between the two files
    assert keys.ensure_model_keys()
    assert list(read_trusted_keys([keys.model_trusted_key])) == [read_signer(keys.model_signing_key).public_key.keyid]


def test_models_from_before_there_were_signatures_are_signed_once(tmp_path: Path) -> None:
    models = ModelStore.open(tmp_path / "models")
    graph = b"graph"
    blob = Blob(digest=hashlib.sha256(graph).hexdigest(), size_bytes=len(graph))
    old = models.publish(ModelManifest(predictor="build-duration", graph=blob), graph)
    told: list[str] = []
    platform = Platform(PlatformSettings(directory=tmp_path), told.append)
    platform._make_keys()
    move = old.scope.pointer_key("champion", 1)
    assert told == [f"Signed: models/build-duration/global {old.version}", f"Signed: {move}"]
    assert platform.open_models().load_pointer(old.pointer)
    assert platform.open_models().resolve("build-duration").version == old.version
    # What is put there later, without the key, is not taken for old.
    foreign = models.publish(ModelManifest(predictor="build-duration", graph=blob, algorithm="foreign"), graph)
    platform._make_keys()
    with pytest.raises(UntrustedModel):
        platform.open_models().load_pointer(foreign.pointer)
    assert platform.open_models().resolve("build-duration").version == old.version


def test_an_own_model_store_has_own_keys_and_a_named_one_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = generate_key_pair(tmp_path / "named")
    monkeypatch.setenv("CONDUCTOR_MODEL_SIGNING_KEY", str(named.private_key))
    monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_KEYS", str(named.public_key))
    own = Platform(PlatformSettings.from_environment(directory=tmp_path / "platform"))
    assert own.model_trusted_keys == (own.keys.model_trusted_key,)
    assert own.environment["CONDUCTOR_MODEL_SIGNING_KEY"] == str(own.keys.model_signing_key)
    monkeypatch.setenv("CONDUCTOR_MODEL_STORE", str(tmp_path / "models"))
    given = Platform(PlatformSettings.from_environment(directory=tmp_path / "platform"))
    assert given.environment["CONDUCTOR_MODEL_SIGNING_KEY"] == str(named.private_key)
    assert given.environment["CONDUCTOR_MODEL_TRUSTED_KEYS"] == str(named.public_key)


def test_a_token_speaks_for_one_tenant_and_verifies_by_the_public_keys(tmp_path: Path) -> None:
    keys = EmbeddedKeys(tmp_path / "keys").ensure()
    (key,) = jwt.PyJWKSet.from_json(keys.jwks.read_text()).keys
    claims = jwt.decode(keys.token("acme"), key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
    assert claims["tenant_id"] == "acme"
    assert claims["scope"] == "predict publish", "moving models must be asked for"
    assert '"d"' not in keys.jwks.read_text(), "the private part stays private"
