"""The verifying process. It imports once and forks for each model, so that a model meets neither another nor us.

Standard input: for each model a header (sizes of manifest and graph, limits), then both. Standard output: for each one
line of JSON, ``{"refused": null}`` or ``{"refused": "the reason"}``. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_server.models.sessions import ModelRefused
from conductor_server.models.verification import verify
from conductor_server.models.verifier_wire import HEADER, MOST_EXTENSIONS

_MAX_REASON_BYTES = 2000
_NICENESS = 10
_HELD_UP = 0.5
"""A process that ran for a smaller share of its time than this was kept waiting: it comes last."""


def main() -> None:
    """Answer until standard input ends."""
    _leave_for_nowhere()
    os.nice(_NICENESS)  # requests come first
    while len(header := sys.stdin.buffer.read(HEADER.size)) == HEADER.size:
        manifest_size, graph_size, memory_bytes, seconds = HEADER.unpack(header)
        manifest = _read(sys.stdin.buffer, manifest_size)
        refused = _in_fork(manifest, _read(sys.stdin.buffer, graph_size), memory_bytes, seconds)
        sys.stdout.write(json.dumps({"refused": refused}) + "\n")
        sys.stdout.flush()


def _leave_for_nowhere() -> None:
    """Work in a folder that is gone: no relative path leads anywhere, and nothing is left behind when we are killed."""
    nowhere = tempfile.mkdtemp(prefix="conductor-verify-")
    os.chdir(nowhere)
    Path(nowhere).rmdir()


def _read(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise SystemExit(0)  # whoever asked is gone
    return content


def _in_fork(manifest: bytes, graph: bytes, memory_bytes: int, seconds: float) -> str | None:
    """Why the model is refused; None if it isn't."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _verify_and_exit(manifest, graph, memory_bytes, seconds, writing)
    os.close(writing)
    answered = _answers(child, reading, seconds)
    # The answer is small, so it comes at once or not at all.
    answer = os.read(reading, _MAX_REASON_BYTES) if answered else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    if not answered:
        return f"it took longer than {seconds:g} s to load and answer"
    if not answer:
        return "loading it ended the process (out of memory, or a crash)"
    verdict = answer.decode(errors="replace")
    return None if verdict == "ok" else verdict.removeprefix("refused: ")


def _answers(child: int, reading: int, seconds: float) -> bool:
    """Whether the child answers in time. Where others kept it from the processor, it gets the time once more."""
    for _ in range(1 + MOST_EXTENSIONS):
        ran_seconds = _processor_seconds(child)
        if select.select([reading], [], [], seconds)[0]:
            return True
        if _processor_seconds(child) - ran_seconds > _HELD_UP * seconds:
            return False
    return False


def _processor_seconds(process: int) -> float:
    """What a process has used; 0 where that is not told."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _verify_and_exit(manifest: bytes, graph: bytes, memory_bytes: int, seconds: float, writing: int) -> None:
    verdict = "refused: the check itself failed"
    try:
        _limit(memory_bytes, seconds)
        verify(ModelManifest.FromString(manifest), graph)
        verdict = "ok"
    except ModelRefused as error:
        verdict = f"refused: {error}"
    except MemoryError:
        verdict = "refused: it takes more memory than it may"
    except Exception as error:  # whatever went wrong, the model was not found good
        verdict = f"refused: the check itself failed: {error!r}"
    finally:
        try:
            os.write(writing, verdict.encode()[:_MAX_REASON_BYTES])
        finally:
            # Whoever asked may be gone. Not by the ordinary way out: ONNX Runtime's hangs in a fork, the pipes open.
            os._exit(0)


def _limit(memory_bytes: int, seconds: float) -> None:
    held_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    cpu_seconds = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No file can be opened from here on: nothing outside the bundle is read, whatever the graph says.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


if __name__ == "__main__":
    main()
