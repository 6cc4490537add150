"""Keys of the embedded platform."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt

from conductor_workbench.keys import AUDIENCE, ISSUER, EmbeddedKeys


def test_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    keys = EmbeddedKeys(tmp_path / "keys").ensure()
    before = {path.name: path.read_bytes() for path in keys.directory.iterdir()}
    keys.ensure()
    assert {path.name: path.read_bytes() for path in keys.directory.iterdir()} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys.directory.iterdir())


def test_a_token_speaks_for_one_tenant_and_verifies_by_the_public_keys(tmp_path: Path) -> None:
    keys = EmbeddedKeys(tmp_path / "keys").ensure()
    (key,) = jwt.PyJWKSet.from_json(keys.jwks.read_text()).keys
    claims = jwt.decode(keys.token("acme"), key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
    assert claims["tenant_id"] == "acme"
    assert '"d"' not in keys.jwks.read_text(), "the private part stays private"
