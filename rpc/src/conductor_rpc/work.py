"""What calls of a method are to those who let them in: how urgent, how large."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conductor_rpc import names


class Criticality(StrEnum):
    """What is refused last, and what first. The values are those of the metadata."""

    INTERACTIVE = "interactive"
    """Somebody waits for the answer."""
    BATCH = "batch"
    """It can be asked for again later."""


def _one(_: Any) -> int:
    return 1


@dataclass(frozen=True)
class Work:
    """A method's calls."""

    criticality: Criticality = Criticality.INTERACTIVE
    """Of calls that do not say."""
    question_count: Callable[[Any], int] = _one
    """How many questions a request holds."""
    alike: bool = False
    """Each takes about as long as any other, so that their durations tell how busy the process is."""

    frequent: bool = False
    """Comes by hundreds a second, or by dozens at once: taken from gRPC many at a time."""
    open_ended: bool = False
    """Is open for as long as its caller likes, and asks for next to nothing meanwhile."""

    def criticality_of(self, metadata: Mapping[str, str | bytes]) -> Criticality:
        """What the caller says; a class that is not known is as none."""
        told = metadata.get(names.CRITICALITY)
        return _CLASSES.get(told, self.criticality) if isinstance(told, str) else self.criticality


_CLASSES = {criticality.value: criticality for criticality in Criticality}
OTHER = Work()
"""Of methods that nobody described."""
