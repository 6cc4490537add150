"""Who is calling. Everything that does not hold is the same error, whichever part it was."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from conductor_rpc import names
from conductor_rpc.call import Identity
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.jwks import KeySet, key_set
from conductor_rpc.settings import RpcSettings, SettingsInvalid

TENANT_CLAIM = "tenant_id"
_REQUIRED_CLAIMS = ["exp", "aud", "iss", TENANT_CLAIM]
_MAX_TOKEN_CHARACTERS = 8192
_REMEMBERED_TOKENS = 4096


class Authenticator(Protocol):
    """Tells who is calling."""

    async def authenticate(self, metadata: Mapping[str, str | bytes]) -> Identity:
        """Raises:
        CredentialsInvalid: there are no credentials, or they do not hold.
        """
        ...

    async def close(self) -> None:
        """Release what it holds."""
        ...

    def keys_age_seconds(self) -> float | None:
        """Since the keys that it verifies with were fetched; None before they were."""
        ...


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that held, for as long as it does."""

    identity: Identity
    key: jwt.PyJWK
    expiry: float


class JwtAuthenticator:
    """Takes ``authorization: Bearer <JWT>``: signed by a key of the set, in time, for this audience, by this issuer."""

    def __init__(
        self, keys: KeySet, *, audience: str, issuer: str, algorithms: frozenset[str], leeway_seconds: float
    ) -> None:
        self._keys, self._audience, self._issuer = keys, audience, issuer
        self._algorithms, self._leeway_seconds = algorithms, leeway_seconds
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def authenticate(self, metadata: Mapping[str, str | bytes]) -> Identity:
        """Raises:
        CredentialsInvalid: there is no token, or it does not hold.
        """
        header = metadata.get(names.AUTHORIZATION)
        if not isinstance(header, str) or header[:7].lower() != "bearer " or len(header) > _MAX_TOKEN_CHARACTERS:
            raise CredentialsInvalid
        token = header[7:].strip()
        try:
            return await self._identity(token)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise CredentialsInvalid from None

    async def close(self) -> None:
        """Forget a fetch of keys that is under way."""
        await self._keys.close()

    def keys_age_seconds(self) -> float | None:
        """Since the keys were fetched; None before they were."""
        return self._keys.age_seconds()

    async def _identity(self, token: str) -> Identity:
        """A verified token is remembered until it expires or its key is no longer the one in use.

        That is asked of each call, but no part of the token is read again: a signature costs more than all else.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        # Keys that changed are new objects, whatever their ids.
        if known is not None and time.time() < known.expiry and await self._keys.find(known.key.key_id) is known.key:
            return known.identity
        verified = self._verified[digest] = await self._verify(token)
        if len(self._verified) > _REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return verified.identity

    async def _verify(self, token: str) -> _Verified:
        header = jwt.get_unverified_header(token)
        key = await self._keys.find(header.get("kid"))
        # The algorithm is the key's, never the token's own choice: no `none`, no public key taken for a shared secret.
        if key is None or key.algorithm_name not in self._algorithms or header.get("alg") != key.algorithm_name:
            raise CredentialsInvalid
        claims = jwt.decode(
            token,
            key=key.key,
            algorithms=[key.algorithm_name],
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway_seconds,
            options={"require": _REQUIRED_CLAIMS},
        )
        expiry = float(claims["exp"])
        identity = Identity(
            tenant_id=_tenant(claims),
            subject=str(claims.get("sub", "")),
            scopes=_scopes(claims),
            expiry_time=expiry + self._leeway_seconds,
        )
        return _Verified(identity, key, expiry)


def _tenant(claims: Mapping[str, Any]) -> str:
    tenant = claims[TENANT_CLAIM]
    if not isinstance(tenant, str) or not tenant or "\0" in tenant:
        raise CredentialsInvalid
    return tenant


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The words of the ``scope`` claim (RFC 8693); none where it is no text."""
    scope = claims.get("scope")
    return frozenset(scope.split()) if isinstance(scope, str) else frozenset()


def authenticator(settings: RpcSettings) -> Authenticator | None:
    """The authenticator that the settings describe; None for an insecure process.

    Raises:
        SettingsInvalid: the settings describe none.
    """
    if settings.insecure:
        return None
    if settings.jwks is None or settings.issuer is None:
        raise SettingsInvalid("an authenticator needs --jwks and --issuer")
    try:
        keys = key_set(settings.jwks, settings.jwks_refresh_seconds, settings.jwks_maximum_age_seconds)
    except ValueError as error:
        raise SettingsInvalid(str(error)) from error
    return JwtAuthenticator(
        keys,
        audience=settings.audience,
        issuer=settings.issuer,
        algorithms=frozenset(settings.token_algorithms),
        leeway_seconds=settings.token_leeway_seconds,
    )
