"""The graph as one value: compressed arrays, checked, and bound to the repository that it is of.

======  =====  ==========================================================
offset  bytes  content
======  =====  ==========================================================
0       4      CRC-32 of everything after it
4       4      format version
8       16     identity: fingerprint of the key that the value was made for
24      8      number of the snapshot
32      …      arrays, as numpy's ``npz``; lists of texts end each with NUL
======  =====  ==========================================================
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from conductor_features.changes.impact_graph import Edges, ImpactGraph
from conductor_features.keys import entity_key, identity

FORMAT_VERSION = 1
HEADER_BYTES = 32
VIEW_KEY = "code_graph_v1"
"""Names it among the views' values."""

_HEADER = struct.Struct("<II16sq")
_SEPARATOR = "\0"


class CorruptGraph(ValueError):
    """A stored graph that may not be used; the message is the reason."""


def graph_keys(repository: tuple[str, str], snapshot_id: int) -> tuple[bytes, bytes]:
    """Keys of (tenant, repository): of the latest snapshot's number, and of a snapshot's graph."""
    return entity_key(VIEW_KEY, repository), entity_key(VIEW_KEY, (*repository, str(snapshot_id)))


def encode_graph(key: bytes, snapshot_id: int, graph: ImpactGraph) -> bytes:
    """The value to store under ``key``."""
    told = {"test_keys": dict(graph.test_keys), "test_id_prefix": graph.test_id_prefix, "commit": graph.commit}
    target = io.BytesIO()
    np.savez_compressed(
        target,
        paths=_texts(graph.paths),
        is_test=graph.is_test,
        unit_file=graph.unit_file,
        unit_lines=graph.unit_lines,
        unit_names=_texts(graph.unit_names),
        told=np.frombuffer(orjson.dumps(told), np.uint8),
        **{
            f"{name}_{part}": getattr(getattr(graph, name), part)
            for name in ("importers", "within", "across")
            for part in ("starts", "targets")
        },
    )
    value = _HEADER.pack(0, FORMAT_VERSION, identity(key), snapshot_id) + target.getvalue()
    return struct.pack("<I", zlib.crc32(value[4:])) + value[4:]


def snapshot_of(key: bytes, header: bytes) -> int | None:
    """The snapshot's number, from a value's first bytes; None where they are not of this key or format."""
    if len(header) < HEADER_BYTES:
        return None
    _, version, stored_identity, snapshot_id = _HEADER.unpack_from(header)
    return int(snapshot_id) if version == FORMAT_VERSION and stored_identity == identity(key) else None


def decode_graph(key: bytes, value: bytes) -> ImpactGraph:
    """The graph stored under ``key``; raises :class:`CorruptGraph`."""
    if snapshot_of(key, value) is None:
        raise CorruptGraph("of another key or format, or cut")
    if zlib.crc32(value[4:]) != struct.unpack_from("<I", value)[0]:
        raise CorruptGraph("checksum differs")
    try:
        with np.load(io.BytesIO(value[HEADER_BYTES:]), allow_pickle=False) as arrays:
            told = orjson.loads(arrays["told"].tobytes())
            return ImpactGraph(
                paths=_from_texts(arrays["paths"]),
                is_test=arrays["is_test"],
                unit_file=arrays["unit_file"],
                unit_lines=arrays["unit_lines"],
                unit_names=_from_texts(arrays["unit_names"]),
                importers=Edges(arrays["importers_starts"], arrays["importers_targets"]),
                within=Edges(arrays["within_starts"], arrays["within_targets"]),
                across=Edges(arrays["across_starts"], arrays["across_targets"]),
                test_keys=told["test_keys"],
                test_id_prefix=told["test_id_prefix"],
                commit=told["commit"],
            )
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CorruptGraph(f"can't be read: {error}") from error


def _texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(text + _SEPARATOR for text in texts).encode(), np.uint8)


def _from_texts(stored: NDArray[np.uint8]) -> list[str]:
    return stored.tobytes().decode().split(_SEPARATOR)[:-1]
