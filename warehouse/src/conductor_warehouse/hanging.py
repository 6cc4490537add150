"""A database that does not answer any more, on a connection that stays open: behind a partition, or a stuck pooler.

``statement_timeout`` is kept by the database, who then can't be heard, and libpq waits for it without an end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection


def keepalive(seconds: float) -> dict[str, Any]:
    """Parameters of connections, with which the kernel ends those whose other end has been gone for so long."""
    return {
        "connect_timeout": max(2, int(seconds)),
        "keepalives_idle": max(1, int(seconds / 2)),
        "keepalives_interval": max(1, int(seconds / 6)),
        "keepalives_count": 3,
        "tcp_user_timeout": int(seconds * 1000),
    }


@contextlib.contextmanager
def given_up_after(seconds: float, connection: Connection[Any]) -> Iterator[None]:
    """Cut the connection if the block takes longer: whoever waits for it gets psycopg's OperationalError.

    Nothing that was not committed is kept then; of what was being committed nobody can tell.
    """
    watch = threading.Timer(seconds, _cut, (connection,))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _cut(connection: Connection[Any]) -> None:
    # It may have been closed a moment ago. A copy of the descriptor, as that would be closed with the socket.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as found:
        found.shutdown(socket.SHUT_RDWR)
