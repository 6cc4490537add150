"""S7 and certificates as credentials: whom a certificate stands for, and that files rotate without a failed call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_rpc import certificates, watched_file
from conductor_rpc.authentication import authenticator
from conductor_rpc.certificates import CertificateIdentities, read_certificate
from conductor_rpc.roles import PREDICT, SCOPES
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from machine import within
from rpc.harness import Authority, Pair, bearer, failure, request, serving
from security.installation import Credentials

RUNNER = "spiffe://ci.example/runner"


def uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


@pytest.fixture
def made(tmp_path) -> Credentials:
    found = Credentials(tmp_path)
    found.grant_certificates([("runner", "acme", [PREDICT]), ("theirs", "zeta", sorted(SCOPES))])
    return found


def lookalikes(made: Credentials) -> dict[str, Pair]:
    """Certificates of our own authority that stand for nobody."""
    names: dict[str, tuple[x509.GeneralName, ...]] = {
        "no name": (),
        "another path": (uri(f"{RUNNER}/x"),),
        "a part": (uri("spiffe://ci.example/run"),),
        "other case": (uri(RUNNER.upper()),),
        "a space": (uri(f"{RUNNER}%20"),),
        "a pattern": (uri("spiffe://ci.example/*"),),
        "as a host": (x509.DNSName(RUNNER),),
        "as an address of mail": (x509.RFC822Name("runner@ci.example"),),
        "two people": (uri(RUNNER), uri("spiffe://ci.example/theirs")),
    }
    found = {name: made.certificate(name.replace(" ", "-"), names=of) for name, of in names.items()}
    found[RUNNER] = made.authority.issue("spiffe-as-common-name", names=())
    return found


def stands_for_somebody(identities: CertificateIdentities, made: Credentials) -> set[str]:
    return {name for name, pair in lookalikes(made).items() if identities.identify(pair.certificate.read_bytes())}


def test_names_are_compared_whole(made, monkeypatch):
    identities = CertificateIdentities(made.identities)
    found = identities.identify(made.certificate("runner").certificate.read_bytes())
    assert (found.tenant_id, found.scopes, found.subject) == ("acme", {PREDICT}, f"uri:{RUNNER}")
    assert stands_for_somebody(identities, made) == set()
    # The control: gRPC's own list of names forgets their kinds.
    forgetful = certificates.read_certificate
    monkeypatch.setattr(
        certificates,
        "read_certificate",
        lambda pem: certificates.Shown(
            frozenset(("uri", name) for _, name in forgetful(pem).names),
            *(getattr(forgetful(pem), field) for field in ("not_before", "not_after", "thumbprint")),
        ),
    )
    assert stands_for_somebody(identities, made) == {"as a host"}


def test_a_certificate_ends_while_its_connection_lasts(made):
    identities = CertificateIdentities(made.identities)
    assert identities.identify(made.certificate("runner", expired=True).certificate.read_bytes()) is None
    assert identities.identify(b"no certificate") is None


async def test_a_certificate_is_enough_and_a_token_beside_it_decides(made, keys):
    secured = made.settings() | {"token_roles_claim": "roles"}
    thumbprint = read_certificate(made.certificate("runner").certificate.read_bytes()).thumbprint
    async with serving(**secured) as running:

        async def ask(pair: Pair, headers: tuple = (), tenant: str = "acme") -> str:
            async with running.stub(made.authority.credentials(pair)) as stub:
                try:
                    await stub.PredictBuildDuration(request(tenant), metadata=headers)
                except grpc.aio.AioRpcError as error:
                    return failure(error).reason
            return ""

        runner, theirs, unknown = (
            made.certificate("runner2", names=(uri(RUNNER),)),
            *map(made.certificate, ("theirs", "unknown")),
        )
        token = made.keys.token
        assert await ask(runner) == ""
        assert await ask(runner, tenant="zeta") == "TENANT_MISMATCH"
        assert await ask(unknown) == "CREDENTIALS_INVALID"
        assert await ask(unknown, bearer(token())) == ""
        assert await ask(runner, bearer(token(roles=["publish"]))) == "ROLE_REQUIRED", "roles are not added up"
        assert await ask(runner, bearer("x")) == "CREDENTIALS_INVALID", "a bad token is not made good"
        assert await ask(theirs, bearer(token())) == "CREDENTIALS_INVALID", "they contradict each other"
        bound = bearer(token(cnf={"x5t#S256": thumbprint}))
        assert await ask(runner, bound) == "CREDENTIALS_INVALID", "bound to another certificate of the same name"
        own = read_certificate(runner.certificate.read_bytes()).thumbprint
        assert await ask(runner, bearer(token(cnf={"x5t#S256": own}))) == ""


async def test_the_mapping_rotates_without_a_restart(made, monkeypatch):
    monkeypatch.setattr(watched_file, "_PATIENCE_SECONDS", 0.5)
    runner = made.certificate("runner")
    async with serving(**made.settings()) as running, running.stub(made.authority.credentials(runner)) as stub:

        async def told() -> str:
            try:
                await stub.PredictBuildDuration(request())
            except grpc.aio.AioRpcError as error:
                return failure(error).reason
            return ""

        async def becomes(wanted: str, seconds: float) -> None:
            began = time.monotonic()
            while await told() != wanted:
                assert time.monotonic() - began < 60
            assert within(time.monotonic() - began, seconds)

        assert await told() == ""
        made.grant_certificates([("runner", "acme", ["publish"])])
        await becomes("ROLE_REQUIRED", 1.0)
        made.grant_certificates([("runner", "zeta", [PREDICT])])
        await becomes("TENANT_MISMATCH", 1.0)
        made.grant_certificates([])
        await becomes("CREDENTIALS_INVALID", 1.0)
        made.grant_certificates([("runner", "acme", [PREDICT])])
        await becomes("", 1.0)
        made.identities.write_text("[[certificate]]\nuri =")
        await becomes("CREDENTIALS_INVALID", 3.0)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('[[certificate]]\ntenant_id = "a"\nroles = []', "uri or a dns"),
        ('[[certificate]]\nuri = "u"\ndns = "d"\ntenant_id = "a"\nroles = []', "uri or a dns"),
        ('[[certificate]]\nuri = "u"\nroles = []', "tenant_id"),
        ('[[certificate]]\nuri = "u"\ntenant_id = ""\nroles = []', "tenant_id"),
        ('[[certificate]]\nuri = "u"\ntenant_id = "a"\nroles = ["owner"]', "no such role: owner"),
        ('[[certificate]]\nuri = "u"\ntenant_id = "a"\nrole = ["predict"]', "role"),
        ('[[certificate]]\ndns = "D.example"\ntenant_id = "a"\nroles = []\n' * 2, "twice"),
        ('[[certificates]]\nuri = "u"', "certificates"),
        ("[[certificate", "certificate identities"),
    ],
)
def test_a_file_that_says_something_else_is_refused(made, text, wrong):
    made.identities.write_text(text)
    with pytest.raises(ValueError, match=wrong):
        CertificateIdentities(made.identities)
    with pytest.raises(SettingsInvalid, match=wrong):
        authenticator(RpcSettings(**made.settings()))


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_file_or_a_value_error(content):
    with suppress(ValueError):
        assert certificates.parse(content) == {}


def test_certificates_need_an_authority(made):
    with pytest.raises(SettingsInvalid, match="tls-client-ca"):
        RpcSettings(**{**made.settings(), "tls_client_ca_file": None}).require_security()


def rotation(made: Credentials, new: Pair) -> Iterator[None]:
    """A rotation as clumsy as can be: each file in two halves, certificate before key, authority last."""
    authority = made.authority.file
    steps = (
        (made.server.certificate, new.certificate.read_bytes()),
        (made.server.key, new.key.read_bytes()),
        (authority, authority.read_bytes() * 2),
    )
    for path, content in steps:
        for part in (content[: len(content) // 2], content):
            path.write_bytes(part)
            yield


async def failed_calls(made: Credentials, new: Pair) -> list[grpc.StatusCode]:
    """What calls on new and old connections fail with while everything is rotated."""
    trusted = made.authority.credentials(made.certificate("runner"))
    failed: list[grpc.StatusCode] = []
    async with serving(**made.settings()) as running, running.stub(trusted) as old:

        async def ask(stub: object) -> None:
            try:
                await stub.PredictBuildDuration(request(), timeout=30)
            except grpc.aio.AioRpcError as error:
                failed.append(error.code())

        async def on_new_connections() -> None:
            for _ in range(3):
                async with running.stub(trusted) as stub:
                    await ask(stub)
                await ask(old)

        await on_new_connections()
        for _ in rotation(made, new):
            await asyncio.gather(on_new_connections(), on_new_connections())
    return failed


async def test_rotation_fails_no_call(made):
    assert await failed_calls(made, made.authority.issue("server-2")) == []


async def test_rotation_to_what_nobody_trusts_is_found(made, tmp_path):
    """The control."""
    (tmp_path / "elsewhere").mkdir()
    assert await failed_calls(made, Authority(tmp_path / "elsewhere", "stranger").issue("server")) != []
