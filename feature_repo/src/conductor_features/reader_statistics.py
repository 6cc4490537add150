"""What a reader of the online store counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ReaderStatistics:
    """What the reader has done since it was made. Only ever counts up; telemetry reads it."""

    reads: int = 0
    """Calls of read or read_block."""
    keys: int = 0
    """Keys asked for."""
    exchanges: int = 0
    """Round trips; ``reads / exchanges`` is how many requests shared one."""
    absent: int = 0
    corrupt: int = 0
    timeouts: int = 0
    """Round trips given up after the timeout."""
    disconnects: int = 0
    """Connections lost or dropped, timeouts included."""
    connects: int = 0
    refused: int = 0
    """Reads refused at once because Redis can't be reached."""
