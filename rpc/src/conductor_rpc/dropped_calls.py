"""How many calls gRPC took in and handed to nobody: refused beyond its queue's bound, or expired there (ADR 32)."""

from __future__ import annotations

import json
from collections.abc import Callable

from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]


class DroppedCalls:
    """Compares what gRPC's core has counted, as channelz tells it, with what came out.

    A call that waits in the core is not dropped. So what is missing at one reading counts when the next one, some
    seconds later, finds it missing still.
    """

    def __init__(self, handed_count: Callable[[], int]) -> None:
        """``handed_count``: how many calls came out."""
        self._handed_count = handed_count
        self._server_id = 0
        self._missing_count = 0
        self._count = 0

    def watch_newest(self) -> None:
        """Count calls of the server that was made last, with ``grpc.enable_channelz``."""
        servers = json.loads(cygrpc.channelz_get_servers(0))["server"]
        self._server_id = max((int(server["ref"]["serverId"]) for server in servers), default=0)

    def count(self) -> int:
        """So many, until now."""
        # What came out is read first: a call in between must not look as if it had never come.
        handed_count = self._handed_count()
        missing_count = self._started_count() - handed_count
        self._count = max(self._count, min(missing_count, self._missing_count))
        self._missing_count = missing_count
        return self._count

    def _started_count(self) -> int:
        if not self._server_id:
            return 0
        try:
            found = json.loads(cygrpc.channelz_get_server(self._server_id))
        except ValueError:  # it has been stopped
            return 0
        return int(found["server"]["data"].get("callsStarted", 0))
