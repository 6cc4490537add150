"""A real Redis Cluster as child processes: what a single Redis can't show, such as keys that lie on several nodes."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from pathlib import Path
from typing import Self

import redis

from conductor_workbench.embedded.redis import EmbeddedRedis
from conductor_workbench.embedded.startable import Startable

_SLOTS = 16_384
_BUS_OFFSET = 10_000
"""A node talks to the others on this much above its port."""
_PORTS = range(12_000, 22_000)
"""Below those that a system gives out by itself, and so are the ports of the bus."""
_NODE_TIMEOUT_MS = 1_000
_TIMEOUT_SECONDS = 30.0


class EmbeddedRedisCluster(Startable):
    """Primaries without replicas on the loopback interface, which share the slots evenly.

    A node that is killed and started again keeps its slots and comes back empty.
    """

    def __init__(self, directory: Path, *, size: int = 3) -> None:
        self.nodes = [
            EmbeddedRedis(
                directory / f"node-{number}",
                port=_free_port(),
                options=("--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT_MS)),
            )
            for number in range(size)
        ]

    @property
    def url(self) -> str:
        """Where it is; names every node, so that any of them may be down."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> Self:
        """Start the nodes, make a cluster of them and wait until every one of them says that it is whole."""
        try:
            for node in self.nodes:
                node.start()
            size = len(self.nodes)
            for number, node in enumerate(self.nodes):
                slots = range(number * _SLOTS // size, (number + 1) * _SLOTS // size)
                with redis.Redis.from_url(node.url) as client:
                    client.execute_command("CLUSTER ADDSLOTS", *slots)
                    client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_until_whole(self, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Return once every node knows all slots to be served; TimeoutError when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while not all(self._is_whole(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Redis Cluster is not whole after {timeout_seconds:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.stop()

    def _is_whole(self, node: EmbeddedRedis) -> bool:
        try:
            with redis.Redis.from_url(node.url, socket_timeout=1.0) as client:
                info: dict[str, str] = client.execute_command("CLUSTER INFO")
        except redis.RedisError:
            return False
        # A node may say ok before the others have heard of it.
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes))


def _free_port() -> int:
    """A port that nobody listens on at the moment, nor on the one that its bus will have."""
    for _ in range(1_000):
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + _BUS_OFFSET))
            return port
    raise OSError("no free ports for a node of a Redis Cluster")
