"""Keys of one's own for the embedded platform: a certificate authority, a server certificate, tokens, signed models.

They make `conductor up`, the demo and replays run with TLS, authentication and signatures on, as an installation does.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conductor_model_store.signing_keys import generate_key_pair
from conductor_rpc.roles import PREDICT, PUBLISH

ISSUER = "conductor-embedded"
AUDIENCE = "conductor"
_KEY_ID = "embedded-1"
_LIFETIME = timedelta(days=365)
_MODEL_SIGNING = "model-signing"


@dataclass(frozen=True)
class EmbeddedKeys:
    """Files of keys in a folder that only its owner may read."""

    directory: Path

    @property
    def ca_certificate(self) -> Path:
        """What a client trusts."""
        return self.directory / "ca.pem"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate, for localhost and 127.0.0.1."""
        return self.directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.directory / "server.key"

    @property
    def jwks(self) -> Path:
        """Public keys of the tokens."""
        return self.directory / "jwks.json"

    @property
    def token_key(self) -> Path:
        """Private key that signs tokens."""
        return self.directory / "token.key"

    @property
    def model_signing_key(self) -> Path:
        """Private key that signs models."""
        return self.directory / f"{_MODEL_SIGNING}.key"

    @property
    def model_trusted_key(self) -> Path:
        """Public key that models are trusted by."""
        return self.directory / f"{_MODEL_SIGNING}.pem"

    @property
    def channels_signed(self) -> Path:
        """Says that channels from before their moves were signed are signed."""
        return self.directory / "channels-signed"

    def ensure_model_keys(self) -> bool:
        """Make the key pair of models if there is none. It does not end: models are kept. Says whether it was made."""
        if self.model_trusted_key.exists():
            return False
        self.model_signing_key.unlink(missing_ok=True)  # of a process that was stopped between the two
        generate_key_pair(self.directory, _MODEL_SIGNING)
        return True

    def ensure(self) -> EmbeddedKeys:
        """Make the keys if there are none, or if they end within a day."""
        if self._usable():
            return self
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca_key, ca = _authority()
        server_key, server = _server_certificate(ca_key, ca)
        token_key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(token_key.public_key()))
        public |= {"kid": _KEY_ID, "alg": "ES256", "use": "sig"}
        _write(self.ca_certificate, ca.public_bytes(serialization.Encoding.PEM))
        _write(self.server_key, _pem(server_key))
        _write(self.token_key, _pem(token_key))
        _write(self.jwks, json.dumps({"keys": [public]}).encode())
        # Last: its presence says that the others are complete.
        _write(self.server_certificate, server.public_bytes(serialization.Encoding.PEM))
        return self

    def token(
        self, tenant_id: str, lifetime: timedelta = timedelta(hours=12), roles: Iterable[str] = (PREDICT, PUBLISH)
    ) -> str:
        """A token that speaks for ``tenant_id``. ``roles``: what it allows, roles and further scopes."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": f"embedded:{tenant_id}",
            "tenant_id": tenant_id,
            "scope": " ".join(roles),
            "iat": now,
            "exp": now + int(lifetime.total_seconds()),
        }
        return jwt.encode(claims, self.token_key.read_bytes(), algorithm="ES256", headers={"kid": _KEY_ID})

    def _usable(self) -> bool:
        if not self.server_certificate.exists():
            return False
        certificate = x509.load_pem_x509_certificate(self.server_certificate.read_bytes())
        return certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Conductor embedded CA")
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _server_certificate(
    ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        _builder(_name("localhost"), ca.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    return key, certificate
