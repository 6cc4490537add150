"""S6: tokens that don't hold. One check for all, which finds the holes of authenticators that are broken on purpose."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_rpc import tokens
from conductor_rpc.authentication import Authenticator
from conductor_rpc.call import NO_DEADLINE, Call, Identity
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.jwks import KeySet
from conductor_rpc.roles import MODELS_ADMIN, OPERATE, PREDICT, PUBLISH, SCOPES
from conductor_rpc.tokens import RoleClaims, Tokens
from rpc.bad_tokens import BAD_TOKENS
from rpc.harness import AUDIENCE, ISSUER, Keys, bearer
from security.installation import KEYS

_DECODE = jwt.decode


def authenticator(keys: Keys, kind: type[Tokens] = Tokens, key_set: KeySet | None = None) -> Authenticator:
    found = key_set or KeySet(lambda: keys.jwks().encode(), 300, 3600)
    return Authenticator(
        kind(found, audience=AUDIENCE, issuer=ISSUER, algorithms=frozenset({"RS256"}), leeway_seconds=5)
    )


async def identify(by: Authenticator, headers: tuple[tuple[str, str], ...]) -> Identity:
    return await by.authenticate(Call("/x/Y", dict(headers), NO_DEADLINE))


async def let_in(by: Authenticator, keys: Keys) -> set[str]:
    """The attacks that an authenticator lets in."""
    found = set()
    for name, headers in BAD_TOKENS.items():
        try:
            await identify(by, headers(keys))
        except CredentialsInvalid:
            continue
        found.add(name)
    return found


async def test_no_token_that_does_not_hold_is_let_in(keys):
    by = authenticator(keys)
    assert await let_in(by, keys) == set()
    assert (await identify(by, bearer(keys.token()))).tenant_id == "acme"


def _without(*options: str, **arguments: object) -> Callable[..., object]:
    """``jwt.decode`` that leaves checks out."""

    def decode(token: str, **given: object) -> object:
        checked = {**given["options"], **dict.fromkeys(options, False)}  # type: ignore[dict-item]
        return _DECODE(token, **{**given, **arguments, "options": checked})

    return decode


def _requiring(*claims: str) -> Callable[..., object]:
    """``jwt.decode`` that wants other claims."""
    return lambda token, **given: _DECODE(token, **{**given, "options": {"require": list(claims)}})


@pytest.mark.parametrize(
    ("decode", "hole"),
    [
        (_without("verify_aud"), "other audience"),
        (_without("verify_iss"), "other issuer"),
        (_without("verify_exp"), "expired"),
        (_without("verify_nbf"), "not yet"),
        (_without("verify_iat"), "issued in the future"),
        (_without("verify_signature", algorithms=["RS256"]), "another's signature"),
        (
            lambda token, **given: _DECODE(token, **{**given, "options": {"require": ["aud", "iss", "tenant_id"]}}),
            "without an end",
        ),
    ],
    ids=["audience", "issuer", "expiry", "not before", "issued at", "signature", "required claims"],
)
async def test_a_check_that_is_left_out_is_found(keys, monkeypatch, decode, hole):
    if hole == "without an end":  # what comes after rests on the claim
        monkeypatch.setattr(tokens.jwt, "decode", lambda token, **given: {"exp": 2e9, **decode(token, **given)})
    else:
        monkeypatch.setattr(tokens.jwt, "decode", decode)
    assert hole in await let_in(authenticator(keys), keys)


class _BelievesTheHeader(Tokens):
    """Takes the token's word for its algorithm, as libraries once did."""

    async def _verify(self, token):
        header = jwt.get_unverified_header(token)
        claims = _DECODE(token, options={"verify_signature": False})
        if header.get("alg", "none").lower() != "none":
            algorithm = jwt.algorithms.get_default_algorithms()[header["alg"]]
            secret = KEYS.public_pem if header["alg"] == "HS256" else KEYS.private.public_key()
            signed, _, signature = token.rpartition(".")
            if not algorithm.verify(signed.encode(), secret, jwt.utils.base64url_decode(signature)):
                raise CredentialsInvalid
        identity = Identity(str(claims.get("tenant_id")), expiry_time=2e9)
        return tokens._Verified(identity, await self._keys.find(None), 2e9, None)


class _AnyKeyWillDo(KeySet):
    async def find(self, key_id):
        return await super().find(None)


class _IgnoresBindings(Tokens):
    async def _verify(self, token):
        found = await super()._verify(token)
        return tokens._Verified(found.identity, found.key, found.expiry, None)


async def test_authenticators_with_holes_are_found(monkeypatch):
    found = await let_in(authenticator(KEYS, _BelievesTheHeader), KEYS)
    assert {"alg none", "public key as a shared secret", "other algorithm of the same key"} <= found
    any_key = _AnyKeyWillDo(lambda: KEYS.jwks().encode(), 300, 3600)
    assert {"unknown key id", "key id as a path"} <= await let_in(authenticator(KEYS, key_set=any_key), KEYS)
    assert await let_in(authenticator(KEYS, _IgnoresBindings), KEYS) == {"bound to a certificate"}
    monkeypatch.setattr(tokens, "_tenant", lambda claims: str(claims["tenant_id"]))
    assert await let_in(authenticator(KEYS), KEYS) == {"empty tenant", "tenant is no text", "tenant with NUL"}


async def test_no_character_of_a_token_may_change(keys):
    by, token, rng = authenticator(keys), keys.token(), random.Random(7)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    for _ in range(300):
        at = rng.randrange(len(token) - 1)  # of the last character only some bits count
        changed = rng.choice([c for c in alphabet if c != token[at]])
        with pytest.raises(CredentialsInvalid):
            await identify(by, bearer(token[:at] + changed + token[at + 1 :]))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, {PREDICT, PUBLISH}),
        ({"scope": "openid profile"}, {PREDICT, PUBLISH}),
        ({"scope": MODELS_ADMIN}, {PREDICT, PUBLISH, MODELS_ADMIN}),
        ({"scope": "predict"}, {PREDICT}),
        ({"scope": "openid operate models:admin"}, {OPERATE, MODELS_ADMIN}),
        ({"scope": ["operate"]}, {OPERATE}),
        ({"roles": ["publish"]}, {PUBLISH}),
        ({"roles": "publish operate", "scope": "predict"}, {PUBLISH, OPERATE, PREDICT}),
        ({"roles": []}, set()),
        ({"roles": ["Operate", "operate ", None, {"operate": 1}]}, set()),
        ({"roles": {"operate": True}}, set()),
        ({"scope": {"operate": True}}, {PREDICT, PUBLISH}),
    ],
)
def test_where_a_token_says_its_roles(claims, scopes):
    assert RoleClaims("roles").scopes(claims) == scopes
    if "roles" not in claims:
        assert RoleClaims(None).scopes(claims) == scopes


def test_a_token_that_says_nothing_of_roles_may_be_refused_all():
    assert RoleClaims(None, frozenset()).scopes({"scope": "openid"}) == set()


_WORDS = st.sampled_from([*sorted(SCOPES), "operator", "openid", "", None, True, 1])
_CLAIMS = (
    _WORDS | st.lists(_WORDS, max_size=3) | st.lists(_WORDS, max_size=3).map(lambda words: " ".join(map(str, words)))
)


@settings(max_examples=60, deadline=None)
@given(scope=_CLAIMS, roles=_CLAIMS)
def test_no_claim_allows_more_than_its_words(scope, roles):
    found = RoleClaims("roles").scopes({"scope": scope, "roles": roles})
    assert found <= SCOPES
    said = json.dumps([scope, roles])
    assert all(word in said for word in found)
    assert OPERATE in json.dumps(scope) or OPERATE not in RoleClaims(None).scopes({"scope": scope, "roles": roles})
