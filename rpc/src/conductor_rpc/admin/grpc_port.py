"""channelz, with health and reflection, on a port of its own."""

from __future__ import annotations

import grpc.aio
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conductor_rpc import health
from conductor_rpc.settings import SettingsInvalid

_SERVICE_NAME: str = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.so_reuseport", 0),  # otherwise another process could share the port unawares
    ("grpc.enable_channelz", 1),
)
_MAX_CALLS = 32


class AdminGrpc:
    """A gRPC server of what gRPC knows of itself: servers, sockets and channels of the process, with their counts."""

    def __init__(self, host: str, port: int, process_health: health.Health) -> None:
        """``process_health``: the same status as on the main port."""
        self._host, self._health = host, process_health
        self._server: grpc.aio.Server | None = None
        self.port = port

    async def start(self) -> None:
        """Raises:
        SettingsInvalid: the port is taken.
        """
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        channelz.add_channelz_servicer(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (_SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            self.port = server.add_insecure_port(f"{self._host}:{self.port}")
        except RuntimeError as error:
            text = f"can't listen on {self._host}:{self.port} (admin_grpc_port): is the port taken?"
            raise SettingsInvalid(text) from error
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close the port; what is under way is cancelled."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)
