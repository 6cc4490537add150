"""How the reader reaches the online store: one raw connection to a Redis, or redis-py's client of a Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import hiredis
from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from conductor_features.clients import FAILURES, cluster_of, node_tags
from conductor_features.filling import position_key
from conductor_features.listing import ListCommand

_MGET_KEYS = 1_000
"""More keys than this are asked for in several commands of one round trip, so that Redis serves others in between."""
_GOODBYE_SECONDS = 0.005
"""A node that hangs may not say goodbye, and others wait for the next connection."""


Values = list[bytes | None]
Replies = list[Any]


class StoreConnection(Protocol):
    """What the reader does with the online store. Whoever calls bounds the time; after a failure comes ``close``."""

    exchange_keys: int
    """Waiting requests beyond this many keys are left for the next round trip."""

    async def connect(self) -> None:
        """Connect anew and see that it answers."""

    async def ping(self) -> None:
        """See that it still answers."""

    async def fetch(self, keys: Sequence[bytes], lists: Sequence[ListCommand] = ()) -> tuple[Values, Replies]:
        """Values in the order of their keys, and answers about lists; None about what is no list.

        What comes first on a node was read there first, the values before the lists.
        """

    def position_keys(self, view_key: str) -> Sequence[bytes]:
        """Keys that tell whether a view is filled: it is where all of them say so. None before the first connect."""

    async def close(self) -> None:
        """Drop what is open."""


def open_connection(redis_url: str, connect_seconds: float) -> StoreConnection:
    """A connection to whatever the URL says, not connected yet. Raises ValueError for a URL that can't be one."""
    cluster = cluster_of(redis_url)
    return _Single(redis_url, connect_seconds) if cluster is None else _Cluster(*cluster, connect_seconds)


class _Single:
    exchange_keys = 4_000

    def __init__(self, redis_url: str, connect_seconds: float) -> None:
        # Only used to read the URL and make connections. Timeouts of the socket's own would each cost a task per
        # command (asyncio.wait_for): the reader bounds send and receive together instead.
        self._pool: ConnectionPool = ConnectionPool.from_url(
            redis_url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=connect_seconds,
            socket_read_size=1 << 18,
            health_check_interval=0,
            decode_responses=False,
            protocol=2,
            driver_info=None,
        )
        self._connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]

    async def connect(self) -> None:
        self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await self._connection.connect()  # type: ignore[no-untyped-call]
        await self.ping()

    async def ping(self) -> None:
        await self._connection.send_packed_command(_pack(b"PING"), check_health=False)
        await self._connection.read_response(disable_decoding=True)

    async def fetch(self, keys: Sequence[bytes], lists: Sequence[ListCommand] = ()) -> tuple[Values, Replies]:
        chunks = [keys[at : at + _MGET_KEYS] for at in range(0, len(keys), _MGET_KEYS)]
        stored: Values = []
        for chunk in chunks:  # Redis is at the first while the next is packed
            await self._connection.send_packed_command(_pack(b"MGET", *chunk), check_health=False)
        if lists:
            command = b"".join([_pack(*one.arguments) for one in lists])
            await self._connection.send_packed_command(command, check_health=False)
        for _ in chunks:
            stored += await self._connection.read_response(disable_decoding=True)
        if len(stored) != len(keys):
            raise RedisError(f"{len(stored)} values for {len(keys)} keys")
        return stored, [await self._reply() for _ in lists]

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:  # it was read, so the connection is as good as before
            return _none_for_no_list(error)

    def position_keys(self, view_key: str) -> Sequence[bytes]:
        return (position_key(view_key),)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


class _Cluster:
    """A new client for each connect: nothing of a failure is left in it, and the slots are asked for again."""

    # A command per slot, so some 10 µs per key. More in one round trip would outlast the deadline of who waits.
    exchange_keys = 500

    def __init__(self, url: str, nodes: list[tuple[str, int]], connect_seconds: float) -> None:
        self._url, self._nodes, self._connect_seconds = url, nodes, connect_seconds
        self._client: RedisCluster | None = None
        self._tags: list[bytes] = []

    async def connect(self) -> None:
        self._client = RedisCluster.from_url(
            self._url,
            startup_nodes=[ClusterNode(host, port) for host, port in self._nodes],
            # Retries and their pauses would outlast the deadline; the reader connects again.
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=self._connect_seconds,
            driver_info=None,
        )
        await self._client.initialize()
        self._tags = node_tags(self._client)
        await self.ping()

    async def ping(self) -> None:
        # A read on each node: PING is answered also by those who serve nothing, because another is missing.
        await self.fetch([b"{%b}" % tag for tag in self._tags])

    async def fetch(self, keys: Sequence[bytes], lists: Sequence[ListCommand] = ()) -> tuple[Values, Replies]:
        assert self._client is not None  # noqa: S101 - the reader connects first
        unique = list(dict.fromkeys(keys))  # requests that share a round trip share their positions
        values = dict(zip(unique, await self._client.mget_nonatomic(unique), strict=True))
        if not lists:
            return [values[key] for key in keys], []
        pipeline = self._client.pipeline()
        for (name, *arguments), _ in lists:
            pipeline.execute_command(name.decode(), *arguments)
        replies = await pipeline.execute(raise_on_error=False)
        return [values[key] for key in keys], [_none_for_no_list(reply) for reply in replies]

    def position_keys(self, view_key: str) -> Sequence[bytes]:
        return [position_key(view_key, tag) for tag in self._tags]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await client.aclose()


def _none_for_no_list(reply: Any) -> Any:
    """The reply; None where something else stands in a list's place. Raises any other error."""
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith("WRONGTYPE"):
        return None
    raise reply


def _pack(*arguments: bytes) -> bytes:
    # In C; the connection's own packing takes longer for 500 keys than Redis takes to answer.
    command: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # declared as a tuple of one
    return command
