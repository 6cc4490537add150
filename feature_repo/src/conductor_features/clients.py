"""Clients of the online store for tools and writers, be it one Redis or a Redis Cluster: its URL says which.

A cluster is ``redis+cluster://host:port`` or, over TLS, ``rediss+cluster://``. One node is enough to find the others;
several, separated by commas, let any of them be down when a process starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError

from conductor_features.filling import position_key

Client = Redis | RedisCluster
"""What :func:`open_client` makes."""

FAILURES = (RedisError, RedisClusterException, OSError)
"""What a client raises when the online store fails. redis-py's errors of a cluster are no ``RedisError``."""

_DEFAULT_PORT = 6379


def open_client(redis_url: str, timeout_seconds: float) -> Client:
    """A client, to be closed. A cluster is asked for its nodes at once, so this may raise :data:`FAILURES`."""
    cluster = cluster_of(redis_url)
    if cluster is None:
        return Redis.from_url(redis_url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
    url, nodes = cluster
    return RedisCluster.from_url(
        url,
        startup_nodes=[ClusterNode(host, port) for host, port in nodes],  # type: ignore[no-untyped-call]
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
    )


def cluster_of(redis_url: str) -> tuple[str, list[tuple[str, int]]] | None:
    """URL of a cluster's first node as redis-py takes it, and the addresses of all that are named; None for no cluster.

    Raises ValueError where a host is missing or a port is no number.
    """
    scheme, _, rest = redis_url.partition("+cluster://")
    if scheme not in {"redis", "rediss"}:
        return None
    parts = urlsplit(f"{scheme}://{rest}")
    credentials, at, addresses = parts.netloc.rpartition("@")
    urls = [parts._replace(netloc=f"{credentials}{at}{address}") for address in addresses.split(",")]
    nodes = [(url.hostname, url.port or _DEFAULT_PORT) for url in urls]
    if not all(host for host, _ in nodes):
        raise ValueError("a Redis Cluster is redis+cluster://host:port[,host:port…]")
    return urls[0].geturl(), cast(list[tuple[str, int]], nodes)


def mget(client: Client, keys: Sequence[bytes]) -> list[bytes | None]:
    """Values of keys, which in a cluster may lie on several nodes."""
    found = client.mget_nonatomic(keys) if isinstance(client, RedisCluster) else client.mget(keys)
    return cast(list[bytes | None], found)


def position_keys(client: Client, view_key: str) -> list[bytes]:
    """Keys of a view's position: one, or in a cluster one on each node, as each may lose its rows alone."""
    if isinstance(client, RedisCluster):
        return [position_key(view_key, tag) for tag in node_tags(client)]
    return [position_key(view_key)]


def node_tags(cluster: RedisCluster | AsyncRedisCluster) -> list[bytes]:
    """A hash tag for each primary, whose keys lie there; the same ones for all who know the same slots."""
    owners = {slot: nodes[0].name for slot, nodes in cluster.nodes_manager.slots_cache.items()}
    missing = set(owners.values())
    tags = []
    for number in itertools.count():
        if not missing:
            break
        tag = b"%d" % number
        owner = owners.get(cluster.keyslot(tag))
        if owner in missing:
            missing.remove(owner)
            tags.append(tag)
    return tags
