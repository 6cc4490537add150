"""The floor of a gRPC server in Python: ``grpc.aio`` on uvloop that answers fixed bytes and does nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import grpc
import grpc.aio
import uvloop

METHOD = "/conductor.bench.Echo/Echo"
_SERVICE, _NAME = METHOD[1:].split("/")


async def _serve(settings: dict[str, Any]) -> None:
    response = base64.b64decode(settings["response"])

    async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return response

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {_NAME: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    if settings["certificate"]:
        pair = (settings["key"].encode(), settings["certificate"].encode())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"target": f"127.0.0.1:{port}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the parent closes it
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve(json.loads(sys.stdin.readline())))
