"""Whether batches are checked as a whole, and what follows."""

from enum import StrEnum


class Mode(StrEnum):
    """What the gate does."""

    PARK = "park"
    """Checks, records, and parks what is wrong as a whole."""
    RECORD = "record"
    """Checks and records, and lets everything through."""
    OFF = "off"
    """Nothing."""
