"""Typed client of Conductor, its generated stubs and the `conductor` command."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conductor_client.build_duration_stream import BuildDurationStream
    from conductor_client.builds import BuildFields, BuildTrigger
    from conductor_client.client import ConductorClient
    from conductor_client.connection import ConnectionSettings
    from conductor_client.errors import (
        ConductorError,
        DeadlineExceeded,
        ErrorReason,
        FieldViolation,
        InternalError,
        InvalidRequest,
        NotFound,
        Overloaded,
        PermissionDenied,
        Unauthenticated,
        Unavailable,
    )
    from conductor_client.events import DeadLetter, PublishedEvents
    from conductor_client.predictions import (
        BuildDurationPrediction,
        Contribution,
        FallbackReason,
        PredictionMethod,
        Variant,
    )
    from conductor_client.sync_client import SyncConductorClient
    from conductor_client.testing.enums import (
        ChangeBasis,
        FailureReason,
        FailureVerdict,
        FlakyState,
        ImpactBasis,
        NextStep,
        PromiseBasis,
        SelectionReason,
    )
    from conductor_client.testing.failures import (
        FailureChance,
        FailurePredictions,
        OrderedTest,
    )
    from conductor_client.testing.flaky import (
        FailureClassification,
        FlakyEvidence,
        FlakyTest,
    )
    from conductor_client.testing.requests import (
        ChangedFile,
    )
    from conductor_client.testing.selections import (
        Selection,
        SelectionChoice,
        SelectionPromise,
    )

__all__ = [
    "BuildDurationPrediction",
    "BuildDurationStream",
    "BuildFields",
    "BuildTrigger",
    "ChangeBasis",
    "ChangedFile",
    "ConductorClient",
    "ConductorError",
    "ConnectionSettings",
    "Contribution",
    "DeadLetter",
    "DeadlineExceeded",
    "ErrorReason",
    "FailureChance",
    "FailureClassification",
    "FailurePredictions",
    "FailureReason",
    "FailureVerdict",
    "FallbackReason",
    "FieldViolation",
    "FlakyEvidence",
    "FlakyState",
    "FlakyTest",
    "ImpactBasis",
    "InternalError",
    "InvalidRequest",
    "NextStep",
    "NotFound",
    "OrderedTest",
    "Overloaded",
    "PermissionDenied",
    "PredictionMethod",
    "PromiseBasis",
    "PublishedEvents",
    "Selection",
    "SelectionChoice",
    "SelectionPromise",
    "SelectionReason",
    "SyncConductorClient",
    "Unauthenticated",
    "Unavailable",
    "Variant",
]

_HOMES = {
    "build_duration_stream": ("BuildDurationStream",),
    "builds": ("BuildFields", "BuildTrigger"),
    "client": ("ConductorClient",),
    "connection": ("ConnectionSettings",),
    "events": ("DeadLetter", "PublishedEvents"),
    "predictions": ("BuildDurationPrediction", "Contribution", "FallbackReason", "PredictionMethod", "Variant"),
    "sync_client": ("SyncConductorClient",),
    "testing.enums": (
        "ChangeBasis",
        "FailureReason",
        "FailureVerdict",
        "FlakyState",
        "ImpactBasis",
        "NextStep",
        "PromiseBasis",
        "SelectionReason",
    ),
    "testing.failures": (
        "FailureChance",
        "FailurePredictions",
        "OrderedTest",
    ),
    "testing.flaky": (
        "FailureClassification",
        "FlakyEvidence",
        "FlakyTest",
    ),
    "testing.requests": ("ChangedFile",),
    "testing.selections": (
        "Selection",
        "SelectionChoice",
        "SelectionPromise",
    ),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the `conductor` command must not wait for gRPC to show its help."""
    from importlib import import_module  # noqa: PLC0415 - nothing is imported before it is used

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
