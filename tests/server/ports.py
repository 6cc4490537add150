"""Ports that a test must know before anybody listens on them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on.

    None of them is of those that the system gives to whoever names none: a connection of any neighbour would have taken
    one before the test's own process listens.
    """
    lowest, highest = map(int, _GIVEN.read_text().split())
    every = range(1024, 65_536 - count)
    found = [port for port in every if port + count <= lowest or port > highest] or every
    while True:
        first = random.choice(found)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
