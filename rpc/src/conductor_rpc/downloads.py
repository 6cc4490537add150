"""A small document from an address that is trusted for what it says, and for nothing else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import IO, Any, NoReturn


def download(address: str, most_bytes: int, seconds: float) -> bytes:
    """What an http:// or https:// address answers, in one answer of its own: no redirect is followed.

    Raises:
        OSError: it does not answer in time, or not with success.
        ValueError: it answers more than ``most_bytes``.
    """
    opener = urllib.request.build_opener(_Plain(), _Secure(), _NoRedirect())
    began = time.monotonic()
    try:
        with opener.open(address, timeout=seconds) as answer:
            content: bytes = answer.read(most_bytes + 1)
    except http.client.HTTPException as error:
        raise OSError(f"{address} does not speak HTTP: {error}") from error
    if time.monotonic() - began >= seconds:  # it was cut off, and what came may look whole
        raise TimeoutError(f"{address} does not answer within {seconds:g} s")
    if len(content) > most_bytes:
        raise ValueError(f"{address} answers more than {most_bytes} bytes")
    return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Where it leads may be another host, without TLS, or on this machine."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise urllib.error.HTTPError(req.full_url, code, "the address answers with a redirect", headers, fp)


class _PlainConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _end_after(self.timeout, self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _end_after(self.timeout, self.sock)


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PlainConnection, req)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


def _end_after(seconds: float | None, connection: socket.socket) -> None:
    """A timeout bounds one read, and a byte a second never reaches it: this ends all of them."""

    def end() -> None:
        with contextlib.suppress(OSError):  # closed already
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds or 0.0, end)
    timer.daemon = True
    timer.start()
