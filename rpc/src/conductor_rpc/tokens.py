"""Tokens (JWT): signed by a key of the issuer's set, in time, for this audience, by this issuer."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from conductor_rpc.call import Identity
from conductor_rpc.certificates import read_certificate
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.jwks import KeySet
from conductor_rpc.roles import PREDICT, PUBLISH, ROLES, SCOPES

TENANT_CLAIM = "tenant_id"
_REQUIRED_CLAIMS = ["exp", "aud", "iss", TENANT_CLAIM]
_REMEMBERED_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that held, for as long as it does."""

    identity: Identity
    key: jwt.PyJWK
    expiry: float
    thumbprint: str | None
    """Of the only certificate that it may come with; None where it says none."""


@dataclass(frozen=True, slots=True)
class RoleClaims:
    """Where a token says its roles."""

    claim: str | None = None
    """A claim beside ``scope``: a list of words, or a text of them."""
    default: frozenset[str] = frozenset({PREDICT, PUBLISH})
    """Of a token that says nothing of roles."""

    def scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """What a token allows. Words that are none of ours are left out."""
        words = _words(claims.get("scope"))
        if self.claim is not None and self.claim in claims:
            return (words | _words(claims[self.claim])) & SCOPES
        return words & SCOPES if words & ROLES else (words | self.default) & SCOPES


class Tokens:
    """Tells whose a token is."""

    def __init__(
        self,
        keys: KeySet,
        *,
        audience: str,
        issuer: str,
        algorithms: frozenset[str],
        leeway_seconds: float,
        roles: RoleClaims = RoleClaims(),
    ) -> None:
        self._keys, self._audience, self._issuer, self._roles = keys, audience, issuer, roles
        self._algorithms, self._leeway_seconds = algorithms, leeway_seconds
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def identify(self, token: str, certificate: bytes = b"") -> Identity:
        """``certificate``: the client's, as PEM; empty where it showed none.

        Raises:
            CredentialsInvalid: the token does not hold, or not with that certificate.
        """
        try:
            verified = await self._known_or_verified(token)
            if verified.thumbprint is not None and (
                not certificate or read_certificate(certificate).thumbprint != verified.thumbprint
            ):
                raise CredentialsInvalid
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise CredentialsInvalid from None
        return verified.identity

    async def close(self) -> None:
        """Forget a fetch of keys that is under way."""
        await self._keys.close()

    async def _known_or_verified(self, token: str) -> _Verified:
        """A verified token is remembered until it expires or its key is no longer the one in use.

        That is asked of each call, but no part of the token is read again: a signature costs more than all else.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        # Keys that changed are new objects, whatever their ids.
        if known is not None and time.time() < known.expiry and await self._keys.find(known.key.key_id) is known.key:
            return known
        verified = self._verified[digest] = await self._verify(token)
        if len(self._verified) > _REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return verified

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
            scopes=self._roles.scopes(claims),
            expiry_time=expiry + self._leeway_seconds,
            authenticated_by="token",
            credential_id=str(claims.get("jti", "")),
        )
        return _Verified(identity, key, expiry, _thumbprint(claims))


def _tenant(claims: Mapping[str, Any]) -> str:
    tenant = claims[TENANT_CLAIM]
    if not isinstance(tenant, str) or not tenant or "\0" in tenant:
        raise CredentialsInvalid
    return tenant


def _thumbprint(claims: Mapping[str, Any]) -> str | None:
    """Of the certificate that the token is bound to (RFC 8705). One bound to anything else can't be checked here."""
    if "cnf" not in claims:
        return None
    match claims["cnf"]:
        case {"x5t#S256": str(thumbprint), **others} if not others:
            return thumbprint
    raise CredentialsInvalid


def _words(claim: object) -> frozenset[str]:
    """The words of a claim: a text of them, as of ``scope`` (RFC 8693), or a list; none where it is neither."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(word for word in claim if isinstance(word, str)) if isinstance(claim, list) else frozenset()
