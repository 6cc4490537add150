"""Client certificates as credentials: who a certificate is stands in a file, by its subject alternative names.

[[certificate]]
uri = "spiffe://ci.example/acme/runner"
tenant_id = "acme"
roles = ["predict", "publish"]

[[certificate]]
dns = "operator.acme.example"
tenant_id = "acme"
roles = ["operate"]
"""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from conductor_rpc.call import Identity
from conductor_rpc.grants import Grant, wrong_with
from conductor_rpc.watched_file import WatchedFile

Name = tuple[str, str]
"""A subject alternative name: "uri" or "dns", and its value."""


class CertificateGrant(Grant):
    """Whom a certificate with that name stands for. Names are compared whole: there are no patterns."""

    uri: str = ""
    dns: str = ""

    @model_validator(mode="after")
    def _one_name(self) -> CertificateGrant:
        if bool(self.uri) == bool(self.dns):
            raise ValueError("each certificate needs a uri or a dns, and not both")
        return self

    @property
    def name(self) -> Name:
        """What it is found by."""
        return ("uri", self.uri) if self.uri else ("dns", self.dns.lower())


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    certificate: list[CertificateGrant] = []


def parse(content: bytes) -> dict[Name, CertificateGrant]:
    """The grants of a file's content.

    Raises:
        ValueError: it is no such file.
    """
    try:
        found = _Content.model_validate(tomllib.loads(content.decode())).certificate
    except ValidationError as error:
        raise ValueError(f"not a file of certificate identities: {wrong_with(error)}") from None
    except ValueError as error:
        raise ValueError(f"not a file of certificate identities: {error}") from None
    grants = {grant.name: grant for grant in found}
    if len(grants) < len(found):
        raise ValueError("not a file of certificate identities: a name stands twice")
    return grants


@dataclass(frozen=True)
class Shown:
    """What a certificate says."""

    names: frozenset[Name]
    not_before: datetime
    not_after: datetime
    thumbprint: str
    """``x5t#S256`` (RFC 8705)."""


@lru_cache(maxsize=1024)
def read_certificate(pem: bytes) -> Shown:
    """Raises:
    ValueError: it is no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = {("uri", uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)}
    hosts = {("dns", host.lower()) for host in names.get_values_for_type(x509.DNSName)}
    return Shown(
        frozenset(uris | hosts),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode(),
    )


class CertificateIdentities:
    """Tells whom a client's certificate stands for, by what the file says now."""

    def __init__(self, file: Path) -> None:
        """Raises:
        OSError: the file can't be read.
        ValueError: it is no such file.
        """
        self._file: WatchedFile[Mapping[Name, CertificateGrant]] = WatchedFile(file, parse, {})
        self._file.load()

    def identify(self, pem: bytes) -> Identity | None:
        """None where it stands for nobody: no name is known, several are, or its time is over.

        That an authority of ours signed it, and that the client has its key, was seen to when the connection was made;
        which may be long ago.
        """
        try:
            shown = read_certificate(pem)
        except ValueError:
            return None
        grants = self._file.current()
        known = [grant for name in shown.names if (grant := grants.get(name))]
        if len(known) != 1 or not shown.not_before <= datetime.now(UTC) < shown.not_after:
            return None
        grant = known[0]
        return Identity(
            tenant_id=grant.tenant_id,
            subject=":".join(grant.name),
            scopes=grant.roles,
            expiry_time=shown.not_after.timestamp(),
            authenticated_by="certificate",
            credential_id=shown.thumbprint,
        )
