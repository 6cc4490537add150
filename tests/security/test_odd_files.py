"""Files that a process opens again and again while it serves, and what may stand in their places."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conductor_client.audit_log import AuditLog
from conductor_client.small_file import read_small
from conductor_model_store.signing_keys import KeyFiles, generate_key_pair
from conductor_rpc import api_keys
from conductor_rpc.jwks import key_set
from conductor_rpc.tls import CertificateFiles
from conductor_rpc.watched_file import WatchedFile
from rpc.harness import Authority, Keys

ODD = ("fifo", "directory", "device", "loop", "huge")
PATIENCE_SECONDS = 20.0
"""A reader that has not come back by then waits for ever; one that reads a device has filled the memory."""


def put(odd: str, file: Path) -> None:
    """Replace a file by something else."""
    file.unlink()
    match odd:
        case "fifo":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "device":
            file.symlink_to("/dev/full")  # reads as zeros, without an end
        case "loop":
            file.symlink_to(file)
        case "huge":
            with file.open("wb") as made:
                made.truncate(1 << 30)


@pytest.fixture
def asked() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Calls what must come back: its answer, or what it raised."""

    def ask(question: Callable[[], Any]) -> Any:
        found: list[Any] = []

        def answer() -> None:
            try:
                found.append(question())
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        thread.join(PATIENCE_SECONDS)
        assert found, "it waits"
        return found[0]

    return ask


@pytest.mark.parametrize("odd", ODD)
def test_only_a_small_regular_file_is_read(odd: str, tmp_path: Path, asked: Any) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert asked(lambda: read_small(file)) == b"x"
    put(odd, file)
    assert isinstance(asked(lambda: read_small(file)), OSError | ValueError)


@pytest.mark.parametrize("odd", ODD)
def test_api_keys_hold_while_something_else_stands_in_the_place_of_their_file(
    odd: str, tmp_path: Path, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conductor_rpc.watched_file._LOOK_SECONDS", 0.0)
    file = tmp_path / "keys.json"
    made, _ = api_keys.create(file, "acme", frozenset(), None)
    keys = WatchedFile(file, api_keys.parse, {})
    keys.load()
    put(odd, file)
    assert asked(keys.current) == {made.key_id: made}


@pytest.mark.parametrize("odd", ODD)
def test_a_fetch_of_token_keys_ends(odd: str, tmp_path: Path, asked: Any) -> None:
    """It runs in a thread, which a process that stops would wait for."""
    file = tmp_path / "jwks.json"
    file.write_text(Keys().jwks())
    keys = key_set(str(file), 1.0, 3600.0)
    assert asked(keys._fetch) == file.read_bytes()
    put(odd, file)
    assert isinstance(asked(keys._fetch), OSError | ValueError)


@pytest.mark.parametrize("odd", ODD)
def test_handshakes_go_on_with_the_certificate_in_use(odd: str, tmp_path: Path, asked: Any) -> None:
    pair = Authority(tmp_path).issue("server")
    files = CertificateFiles(pair.certificate, pair.key, None)
    files.read()
    put(odd, pair.key)
    assert asked(files.changed) is None


def test_handshakes_do_not_fill_the_log_while_a_file_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reaches the port makes one whenever he likes."""
    pair = Authority(tmp_path).issue("server")
    files = CertificateFiles(pair.certificate, pair.key, None)
    files.read()
    for _ in range(2):
        content = pair.key.read_bytes()
        pair.key.unlink()
        assert {files.changed() for _ in range(50)} == {None}
        pair.key.write_bytes(content)
        assert files.changed() is not None
    assert len(caplog.records) == 2, "told once each time"


@pytest.mark.parametrize("odd", ODD)
def test_trusted_keys_stay_as_they_were(odd: str, tmp_path: Path, asked: Any) -> None:
    file = generate_key_pair(tmp_path, "model").public_key
    keys = KeyFiles([file])
    held = keys.now
    put(odd, file)
    assert asked(keys.refresh) is (odd in ("directory", "loop"))  # there is no file any more
    assert (keys.now == held) is (odd not in ("directory", "loop"))


@pytest.mark.parametrize("odd", ["fifo", "directory", "device", "loop"])
def test_what_can_not_be_noted_is_said_at_once(odd: str, tmp_path: Path, asked: Any) -> None:
    """It is said in a thread, of which there are few: answers about tests and fetches of token keys need them, too."""
    file = tmp_path / "audit.log"
    log = AuditLog(file)
    log.append({})
    put(odd, file)
    assert isinstance(asked(lambda: log.append({})), OSError)
