"""TLS: trusted, not trusted, and with a certificate of the client's own."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.conftest import Conductor, start
from conductor_client import ConnectionSettings, SyncConductorClient, Unavailable


def self_signed(name: str) -> tuple[bytes, bytes]:
    """Key and certificate, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def identities():
    return {"server": self_signed("server"), "client": self_signed("client")}


def test_a_trusted_server_is_asked(identities, tmp_path: Path):
    key, certificate = identities["server"]
    servicer = Conductor()
    server = start(servicer, grpc.ssl_server_credentials([(key, certificate)]))
    file = tmp_path / "ca.pem"
    file.write_bytes(certificate)
    for roots in (certificate, certificate.decode(), file, str(file)):
        with SyncConductorClient.connect(servicer.target, root_certificates=roots, token="t") as client:
            client.predict_build_duration("acme", repository="r", pipeline="p")
    assert servicer.metadata[0]["authorization"] == "Bearer t"
    with (
        SyncConductorClient.connect(servicer.target, root_certificates=identities["client"][1]) as client,
        pytest.raises(Unavailable),
    ):
        client.predict_build_duration("acme", repository="r", pipeline="p", timeout_seconds=5)
    server.stop(1).wait(5)


def test_a_client_shows_its_certificate(identities):
    key, certificate = identities["server"]
    servicer = Conductor()
    server = start(
        servicer, grpc.ssl_server_credentials([(key, certificate)], identities["client"][1], require_client_auth=True)
    )
    own_key, own_certificate = identities["client"]
    settings = ConnectionSettings(
        servicer.target, root_certificates=certificate, client_key=own_key, client_certificate=own_certificate
    )
    with SyncConductorClient(settings) as client:
        client.predict_build_duration("acme", repository="r", pipeline="p")
    with (
        SyncConductorClient.connect(servicer.target, root_certificates=certificate) as client,
        pytest.raises(Unavailable),
    ):
        client.predict_build_duration("acme", repository="r", pipeline="p", timeout_seconds=5)
    server.stop(1).wait(5)


def test_certificates_that_are_not_there_are_named():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyncConductorClient.connect("localhost:1", root_certificates="nowhere.pem")
