"""S6: where token keys come from: an address that hangs, lies or is down, and sets that mean two things."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conductor_rpc import jwks
from conductor_rpc.downloads import download
from conductor_rpc.jwks import KeySet
from rpc.harness import Keys

MOST_BYTES, SECONDS, BEYOND_MEASURE_SECONDS = 100_000, 0.3, 3.0
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A web server that answers so; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                answer(self)
            except OSError:  # whoever asked has gone away
                self.close_connection = True

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()
            thread.join(60)


def says(content: bytes, code: int = 200, **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def drips(before: bytes) -> Answer:
    """A byte now and then, for longer than anybody waits: each in time, all of them never."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(before)
        for _ in range(int(1.2 * BEYOND_MEASURE_SECONDS / 0.05)):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    return answer


def hostile(elsewhere: str) -> dict[str, Answer]:
    ok = b"HTTP/1.1 200 OK\r\n"
    return {
        "hangs": lambda handler: time.sleep(30),
        "drips its headers": drips(ok + b"X-"),
        "drips its body": drips(ok + b"\r\n"),
        "redirects": says(b"", 302, Location=elsewhere),
        "redirects for good": says(b"", 308, Location=elsewhere),
        "redirects to a file": says(b"", 302, Location="file:///etc/hostname"),
        "fails": says(b"{}", 500),
        "is not there": says(b"{}", 404),
        "10 MB": says(b"x" * 10_000_000),
        "10 MB of headers": drips(ok + b"X-Y: z\r\n" * 1000),
    }


def believed(fetch: Callable[[str], bytes], keys: Keys, *names: str) -> set[str]:
    """The answers that are taken for a set of keys, or waited for beyond measure."""
    found = set()
    with answering(says(keys.jwks().encode())) as elsewhere:
        for name, answer in hostile(elsewhere).items():
            if names and name not in names:
                continue
            began = time.monotonic()
            with answering(answer) as address:
                try:
                    fetch(address)
                    found.add(name)
                except (OSError, ValueError):
                    if time.monotonic() - began > BEYOND_MEASURE_SECONDS:
                        found.add(name)
    return found


def test_hostile_addresses_are_not_believed_and_not_waited_for(keys):
    assert believed(lambda address: download(address, MOST_BYTES, SECONDS), keys) == set()
    with answering(says(keys.jwks().encode())) as address:
        assert download(address, MOST_BYTES, 60) == keys.jwks().encode()


def test_a_usual_fetch_would_believe_them(keys):
    """The control: the fetch as everybody writes it."""

    def usual(address: str) -> bytes:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310
            return answer.read()

    holes = ("redirects", "redirects for good", "drips its headers", "10 MB")
    assert believed(usual, keys, *holes) == set(holes)


def _set(*keys: Keys, **changes: object) -> bytes:
    return json.dumps({"keys": [json.loads(key.jwks())["keys"][0] | changes for key in keys]}).encode()


def test_keys_that_could_be_meant_both_are_neither():
    one, other, third = Keys("same"), Keys("same"), Keys("third")
    assert set(jwks.parse(_set(one, third))) == {"same", "third"}
    assert set(jwks.parse(_set(one, other, third))) == {"third"}
    assert set(jwks.parse(_set(one, one, third))) == {"third"}
    assert jwks.parse(_set(one, use="enc")) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": []}', b"\xff", b"[" * 100_000, b'{"keys": [1]}'])
async def test_what_is_no_set_leaves_the_keys_at_hand(content, keys):
    said = [keys.jwks().encode()]
    found = KeySet(lambda: said[0], refresh_seconds=0.01, maximum_age_seconds=0.2)
    key = await found.find(keys.key_id)
    said[0] = content
    until = time.monotonic() + 60
    used = True
    while used:
        assert time.monotonic() < until, "keys that can't be renewed must come to an end"
        found_key = await found.find(keys.key_id)
        assert found_key in (key, None)
        used = found_key is not None
        await asyncio.sleep(0.01)
    said[0] = keys.jwks().encode()
    while await found.find(keys.key_id) is None:
        assert time.monotonic() < until + 60
        await asyncio.sleep(0.01)
    await found.close()
