"""TLS from files that may be rotated while the process runs. gRPC takes TLS 1.2 and later only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from conductor_client.small_file import read_small
from conductor_rpc.settings import RpcSettings, SettingsInvalid

_LOG = logging.getLogger(__name__)


class CertificateFiles:
    """The certificate files, read again when one of them changes."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._seen: tuple[Any, ...] = ()
        self._problem = ""

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises:
        OSError: a file can't be read.
        ValueError: a file is not PEM, or the key is not the certificate's.
        """
        self._seen = self._stamps()
        certificate, key = read_small(self._certificate), read_small(self._key)
        leaf = x509.load_pem_x509_certificate(certificate)
        if leaf.public_key() != load_pem_private_key(key, password=None).public_key():
            raise ValueError("the private key is not the certificate's")
        authorities = read_small(self._client_ca) if self._client_ca else None
        if authorities is not None:
            x509.load_pem_x509_certificates(authorities)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if a file changed; called before each handshake.

        A half-written or mismatched pair is left alone: the certificate in use goes on until the files are whole.
        """
        try:
            found = None if self._stamps() == self._seen else self.read()
        except (OSError, ValueError) as error:
            if str(error) != self._problem:  # else strangers' handshakes would fill the log
                self._problem = str(error)
                _LOG.warning("the TLS files changed but can't be used; the certificate in use stays", exc_info=True)
            return None
        self._problem = ""
        return found

    def _stamps(self) -> tuple[Any, ...]:
        files = [file for file in (self._certificate, self._key, self._client_ca) if file is not None]
        stats = [file.stat() for file in files]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def expiry_of(certificate: Path | None) -> Callable[[], float | None]:
    """What reads when the certificate in a file expires, in seconds since 1970; None where there is none to be read."""

    def read() -> float | None:
        try:
            if certificate is None:
                return None
            return x509.load_pem_x509_certificate(read_small(certificate)).not_valid_after_utc.timestamp()
        except (OSError, ValueError):
            return None

    return read


def server_credentials(settings: RpcSettings) -> grpc.ServerCredentials:
    """Raises:
    SettingsInvalid: the files can't be used.
    """
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        raise SettingsInvalid("TLS needs a certificate and a key")
    files = CertificateFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        initial = files.read()
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"the TLS files can't be used: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        initial,
        files.changed,  # type: ignore[arg-type]  # None means no change, which the published types leave out
        require_client_authentication=settings.tls_client_ca_file is not None,
    )
