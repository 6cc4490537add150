"""What can be measured by itself."""

from enum import StrEnum


class Part(StrEnum):
    """A part of the bench, in the order in which they are measured."""

    INGESTION = "ingestion"
    SERVING = "serving"
    MODELS = "models"
    """Ten thousand tenants' models beside one. Measured only when asked for, as the next."""
    CURVE = "curve"
    """Measured only when asked for: it takes as long as its events do."""
    STAGES = "stages"
    """A batch's processor time by stage. Measured only when asked for."""
    OVERLOAD = "overload"
    """More calls than the server can take, and a tenant that asks for more than its share. Only when asked for."""
    TESTS = "tests"
    """Calls about thousands of tests. Measured only when asked for."""
    ENDURANCE = "endurance"
    """Memory over a million requests. Measured only when asked for."""


USUAL = (Part.SERVING, Part.INGESTION)
"""Measured where nobody says otherwise."""
