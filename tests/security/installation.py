"""A prediction server and an event service that take every kind of credentials, and somebody of each to call them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography import x509

from conductor_rpc import api_keys
from conductor_rpc.roles import MODELS_ADMIN, OPERATE, PREDICT, PUBLISH
from conductor_rpc.server import RpcServer
from conductor_rpc.settings import RpcSettings
from conductor_server.app import application
from conductor_warehouse.event_service import event_service
from conductor_warehouse.ingestion import IngestResult
from rpc.harness import AUDIENCE, ISSUER, Authority, Keys, Pair, bearer
from security.callers import Caller
from server.harness import KNOWN_MODELS
from server.harness import settings as server_settings

KEYS = Keys()
MINE, OTHER = "acme", "zeta"
GRANTS = ((), (PREDICT,), (PUBLISH,), (OPERATE,), (PREDICT, PUBLISH, OPERATE, MODELS_ADMIN))
"""What the callers are allowed."""


def _uri(name: str) -> tuple[x509.GeneralName, ...]:
    return (x509.UniformResourceIdentifier(f"spiffe://ci.example/{name}"),)


@dataclass
class Credentials:
    """Keys, certificates and files of an installation."""

    directory: Path
    keys: Keys = field(default_factory=lambda: KEYS)

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory)
        self.api_keys = self.directory / "api-keys.json"
        self.identities = self.directory / "identities.toml"
        self.audit = self.directory / "audit.log"
        (self.directory / "jwks.json").write_text(self.keys.jwks())
        self.server = self.authority.issue("server")
        api_keys.create(self.api_keys, MINE, frozenset(), None)
        self.grant_certificates([])

    def grant_certificates(self, granted: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """Say whom certificates stand for: name, tenant, roles."""
        part = self.identities.with_suffix(".part")
        part.write_text(
            "".join(
                f'[[certificate]]\nuri = "spiffe://ci.example/{name}"\ntenant_id = "{tenant}"\nroles = {list(roles)}\n'
                for name, tenant, roles in granted
            )
        )
        part.replace(self.identities)

    def certificate(self, name: str, **changes: Any) -> Pair:
        return self.authority.issue(name, **{"names": _uri(name), **changes})

    def key(self, tenant: str = MINE, roles: Iterable[str] = (), days: float = 1) -> str:
        return api_keys.create(self.api_keys, tenant, frozenset(roles), timedelta(days=days))[1]

    def settings(self) -> dict[str, Any]:
        return {
            "insecure": False,
            "jwks": str(self.directory / "jwks.json"),
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "tls_certificate_file": self.server.certificate,
            "tls_key_file": self.server.key,
            "tls_client_ca_file": self.authority.file,
            "api_keys_file": self.api_keys,
            "certificate_identities_file": self.identities,
            "audit_file": self.audit,
        }


@dataclass
class Installation:
    """Its processes run."""

    credentials: Credentials
    stack: AsyncExitStack
    predictions: RpcServer
    events: RpcServer
    published: list[str]
    """The tenants whose batches reached the warehouse."""

    async def channel(self, process: RpcServer, pair: Pair) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        link = grpc.aio.secure_channel(
            f"127.0.0.1:{process.port}", self.credentials.authority.credentials(pair), options
        )
        return await self.stack.enter_async_context(link)

    async def callers(self, process: RpcServer) -> list[Caller]:
        """Everyone: those whose credentials hold, by kind and by what they may, and those whose do not."""
        made = self.credentials
        plain = await self.channel(process, made.certificate("nobody"))
        found = []
        for roles in GRANTS:
            name, allowed = "+".join(roles) or "nothing", frozenset(roles)
            token = made.keys.token(MINE, roles=list(roles))
            mapped = await self.channel(process, made.certificate(f"may-{name}"))
            found += [
                Caller(f"token, {name}", plain, bearer(token), allowed),
                Caller(f"key, {name}", plain, bearer(made.key(roles=roles)), allowed),
                Caller(f"certificate, {name}", mapped, (), allowed),
            ]
        return found + await self._bad_callers(process, plain, mapped)

    async def _bad_callers(self, process: RpcServer, plain: grpc.aio.Channel, mapped: grpc.aio.Channel) -> list[Caller]:
        made, everything = self.credentials, GRANTS[-1]
        revoked, expired = made.key(roles=everything), made.key(roles=everything, days=-1)
        api_keys.revoke(made.api_keys, revoked.split("_")[1])
        good = made.key(roles=everything)
        token = made.keys.token(MINE, roles=list(everything))
        theirs = await self.channel(process, made.certificate("theirs"))
        twice = made.certificate("twice", names=(*_uri("may-predict"), *_uri("may-publish")))
        lookalike = made.certificate("lookalike", names=(x509.DNSName("spiffe://ci.example/may-predict"),))
        headers = {
            "nothing": (),
            "empty": bearer(""),
            "expired token": bearer(made.keys.token(MINE, exp=int(time.time()) - 60, roles=list(everything))),
            "token bound to another certificate": bearer(
                made.keys.token(MINE, cnf={"x5t#S256": "A" * 43}, roles=list(everything))
            ),
            "token bound to what is not known": bearer(made.keys.token(MINE, cnf={"jkt": "x"}, roles=list(everything))),
            "revoked key": bearer(revoked),
            "expired key": bearer(expired),
            "key with another's secret": bearer(f"{revoked[:23]}{good[23:]}"),
            "key that nobody made": bearer(f"{good[:10]}{'0' * 12}{good[22:]}"),
            "key cut short": bearer(good[:-1]),
            "key in another header": (("x-api-key", good),),
            "two credentials": (*bearer(token), *bearer(good)),
        }
        bad = [(name, plain, sent) for name, sent in headers.items()]
        bad += [
            ("bad token, good certificate", mapped, bearer("x")),
            ("token, certificate of another tenant", theirs, bearer(token)),
            ("key, certificate of another tenant", theirs, bearer(good)),
            ("certificate with two names", await self.channel(process, twice), ()),
            ("certificate with the name as a host", await self.channel(process, lookalike), ()),
        ]
        return [Caller(name, link, sent, frozenset(everything), holds=False) for name, link, sent in bad]


@asynccontextmanager
async def installation(directory: Path, redis_url: str, store: Path, **changes: Any) -> AsyncIterator[Installation]:
    made = Credentials(directory)
    made.grant_certificates(
        [(f"may-{'+'.join(roles) or 'nothing'}", MINE, roles) for roles in GRANTS] + [("theirs", OTHER, GRANTS[-1])]
    )
    published: list[str] = []

    async def ingest(events: Any, tenant_id: str) -> IngestResult:
        published.append(tenant_id)
        return IngestResult()

    common = {**made.settings(), "token_roles_claim": "roles", "port": 0, "grace_seconds": 0, **changes}
    async with AsyncExitStack() as stack:
        process = server_settings(redis_url, store, allow_unsigned_models=True, **common)
        predictions = await stack.enter_async_context(application(process, known_models_directory=KNOWN_MODELS))
        events = RpcServer(RpcSettings(**common), [event_service(ingest)])
        await events.start()
        stack.push_async_callback(events.stop)
        yield Installation(made, stack, predictions, events, published)
