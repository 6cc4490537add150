"""What can be measured by itself."""

from enum import StrEnum


class Part(StrEnum):
    """A part of the bench."""

    SERVING = "serving"
    INGESTION = "ingestion"
