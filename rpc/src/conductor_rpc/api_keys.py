"""API keys, for machines without an issuer of tokens: ``conductor_<id>_<secret>``, known here by a digest only.

The secret is 256 random bits. Nobody guesses those, whatever one guess costs, so plain SHA-256 keeps them: what makes
password hashes slow and salted stands against short and repeated secrets, and would let every call cost 100 ms.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from conductor_rpc.call import Identity
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.grants import Grant, wrong_with
from conductor_rpc.replacing import changing
from conductor_rpc.watched_file import WatchedFile

PREFIX = "conductor_"
"""Of every key. No JWT begins so, and scanners for leaked secrets can look for it."""
ID = re.compile("[0-9a-f]{12}")
_FORM = re.compile(rf"{PREFIX}({ID.pattern})_([0-9a-f]{{64}})")
_NO_DIGEST = "0" * 64


class KeyNotFound(Exception):
    """The file holds no such key."""


class ApiKey(Grant):
    """What is known of a key."""

    key_id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    secret_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    description: str = ""
    create_time: AwareDatetime
    expire_time: AwareDatetime | None = None
    revoke_time: AwareDatetime | None = None

    def state(self, now: datetime) -> str:
        """Whether it opens: "active", "revoked" or "expired"."""
        if self.revoke_time is not None:
            return "revoked"
        return "expired" if self.expire_time is not None and self.expire_time <= now else "active"


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: list[ApiKey] = []


Keys = Mapping[str, ApiKey]
"""By id."""


def parse(content: bytes) -> dict[str, ApiKey]:
    """The keys of a file's content.

    Raises:
        ValueError: it is no file of keys.
    """
    try:
        found = _Content.model_validate_json(content).keys
    except ValidationError as error:
        raise ValueError(f"not a file of API keys: {wrong_with(error)}") from None
    keys = {key.key_id: key for key in found}
    if len(keys) < len(found):
        raise ValueError("not a file of API keys: an id stands twice")
    return keys


class KeyRing:
    """Tells whose a key is, by what the file says now."""

    def __init__(self, file: Path) -> None:
        """Raises:
        OSError: the file can't be read.
        ValueError: it is no file of keys.
        """
        self._file: WatchedFile[Keys] = WatchedFile(file, parse, {})
        self._file.load()

    def identify(self, text: str) -> Identity:
        """Raises:
        CredentialsInvalid: there is no such key, or it does not open any more.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise CredentialsInvalid
        key_id, secret = form.groups()
        key = self._file.current().get(key_id)
        # The same work whether the id is known or not, and whatever the secret shares with the right one.
        right = hmac.compare_digest(_digest(secret), key.secret_sha256 if key is not None else _NO_DIGEST)
        if key is None or not right or key.revoke_time is not None:
            raise CredentialsInvalid
        expiry = key.expire_time.timestamp() if key.expire_time is not None else math.inf
        if expiry <= time.time():
            raise CredentialsInvalid
        return Identity(
            tenant_id=key.tenant_id,
            subject=f"key:{key_id}",
            scopes=key.roles,
            expiry_time=expiry,
            authenticated_by="api key",
            credential_id=key_id,
        )


def read(file: Path) -> list[ApiKey]:
    """Every key of a file, oldest first.

    Raises:
        OSError: it can't be read.
        ValueError: it is no file of keys.
    """
    return sorted(parse(file.read_bytes()).values(), key=lambda key: (key.create_time, key.key_id))


def create(
    file: Path, tenant_id: str, roles: frozenset[str], lifetime: timedelta | None, description: str = ""
) -> tuple[ApiKey, str]:
    """Add a key to a file, which is made if absent. ``lifetime``: None for one that does not end.

    Returns:
        What is known of it, and the key itself, which nobody can tell again.

    Raises:
        OSError: the file can't be written.
        ValueError: it is no file of keys, or the tenant or a role can't be.
    """
    now, secret = datetime.now(UTC), secrets.token_hex(32)
    try:
        key = ApiKey(
            key_id=secrets.token_hex(6),
            secret_sha256=_digest(secret),
            tenant_id=tenant_id,
            roles=roles,
            description=description,
            create_time=now,
            expire_time=now + lifetime if lifetime is not None else None,
        )
    except ValidationError as error:
        raise ValueError(wrong_with(error)) from None
    with changing(file) as change:
        keys = parse(change.content) if change.content else {}
        if key.key_id in keys:  # one in 10¹⁴
            raise ValueError("the id is taken: try again")
        change.content = _written({**keys, key.key_id: key})
    return key, f"{PREFIX}{key.key_id}_{secret}"


def revoke(file: Path, key_id: str) -> ApiKey:
    """Let a key open nothing any more. It stays in the file, to tell what it was; a second time changes nothing.

    Raises:
        KeyNotFound: there is no such key.
        OSError: the file can't be written.
        ValueError: it is no file of keys.
    """
    with changing(file) as change:
        keys = parse(change.content)
        if key_id not in keys:
            raise KeyNotFound(f"{file} holds no key {key_id}")
        key = keys[key_id]
        if key.revoke_time is None:
            key = key.model_copy(update={"revoke_time": datetime.now(UTC)})
            change.content = _written({**keys, key_id: key})
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _written(keys: Keys) -> bytes:
    told = [key.model_dump(mode="json", exclude_none=True) | {"roles": sorted(key.roles)} for key in keys.values()]
    return (json.dumps({"keys": told}, indent=1) + "\n").encode()
