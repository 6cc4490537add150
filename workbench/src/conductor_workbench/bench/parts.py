"""What can be measured by itself."""

from enum import StrEnum


class Part(StrEnum):
    """A part of the bench."""

    SERVING = "serving"
    INGESTION = "ingestion"
    CURVE = "curve"
    """Measured only when asked for: it takes as long as its events do."""


USUAL = (Part.SERVING, Part.INGESTION)
"""Measured where nobody says otherwise."""
