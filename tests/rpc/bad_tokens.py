"""Tokens that do not hold, each for one reason only: what lets one in has that hole."""

from __future__ import annotations

import hashlib
import hmac
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from rpc.harness import AUDIENCE, ISSUER, bearer, forged


def now(seconds: float = 0) -> int:
    return int(time.time() + seconds)


def claims():
    return {"tenant_id": "acme", "aud": AUDIENCE, "iss": ISSUER, "sub": "ci", "exp": now(60)}


BAD_TOKENS = {
    "none at all": lambda keys: (),
    "not a bearer token": lambda keys: (("authorization", "Basic YTpi"),),
    "empty": lambda keys: bearer(""),
    "garbage": lambda keys: bearer("a.b.c"),
    "too long": lambda keys: bearer("x" * 9000),
    "expired": lambda keys: bearer(keys.token(exp=now(-60))),
    "without an end": lambda keys: bearer(keys.token(exp=None)),
    "not yet": lambda keys: bearer(keys.token(nbf=now(60))),
    "other audience": lambda keys: bearer(keys.token(aud="another")),
    "without an audience": lambda keys: bearer(keys.token(aud=None)),
    "other issuer": lambda keys: bearer(keys.token(iss="https://evil.example")),
    "without an issuer": lambda keys: bearer(keys.token(iss=None)),
    "without a tenant": lambda keys: bearer(keys.token(None)),
    "empty tenant": lambda keys: bearer(keys.token("")),
    "tenant is no text": lambda keys: bearer(keys.token(["acme"])),
    "tenant with NUL": lambda keys: bearer(keys.token("acme\0")),
    "unknown key id": lambda keys: bearer(keys.token(kid="key-2")),
    "key id is no text": lambda keys: bearer(forged({"alg": "RS256", "kid": {"a": 1}}, claims())),
    "another's signature": lambda keys: bearer(keys.token(key=rsa.generate_private_key(65537, 2048))),
    "changed payload": lambda keys: bearer(_with_tenant(keys.token(), "other")),
    "alg none": lambda keys: bearer(forged({"alg": "none", "kid": keys.key_id}, claims())),
    "alg None": lambda keys: bearer(forged({"alg": "None", "kid": keys.key_id}, claims())),
    "public key as a shared secret": lambda keys: bearer(_confused(keys)),
    "issued in the future": lambda keys: bearer(keys.token(iat=now(600))),
    "ends never": lambda keys: bearer(keys.token(exp=float("inf"))),
    "key id as a path": lambda keys: bearer(keys.token(kid="../../../dev/null\0")),
    "key id and no other": lambda keys: bearer(forged({"kid": keys.key_id}, claims())),
    "header nested beyond reason": lambda keys: bearer(f"{_encoded(b'[' * 5000)}.{_encoded(b'{}')}."),
    "an extension that must be understood": lambda keys: bearer(_critical(keys)),
    "bound to a certificate": lambda keys: bearer(keys.token(cnf={"x5t#S256": "A" * 43})),
    "bound to another kind of proof": lambda keys: bearer(keys.token(cnf={"jkt": "A" * 43})),
    "other algorithm of the same key": lambda keys: bearer(keys.token(alg="PS256")),
}


def _encoded(content: bytes) -> str:
    return jwt.utils.base64url_encode(content).decode()


def _critical(keys):
    return jwt.encode(claims(), keys.private, "RS256", headers={"kid": keys.key_id, "crit": ["x"], "x": 1})


def _with_tenant(token, tenant):
    header, _, signature = token.split(".")
    return f"{header}.{forged({}, {**claims(), 'tenant_id': tenant}).split('.')[1]}.{signature}"


def _confused(keys):
    unsigned = forged({"alg": "HS256", "kid": keys.key_id}, claims()).rstrip(".")
    signature = hmac.new(keys.public_pem, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{_encoded(signature)}"
