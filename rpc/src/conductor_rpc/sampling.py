"""Which calls are traced whatever comes of them, as the OTEL_* environment asks for it."""

from __future__ import annotations

import os

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler

_SHARE = 0.01
"""Where OTEL_TRACES_SAMPLER says nothing. A trace costs a third of a prediction: one of a hundred is not noticed, and
shows what is usual."""


def head_sampler() -> Sampler:
    """OTEL_TRACES_SAMPLER's, or else ours."""
    if not os.environ.get("OTEL_TRACES_SAMPLER"):
        return ParentBasedTraceIdRatio(_SHARE)
    return TracerProvider(shutdown_on_exit=False).sampler  # the SDK's only public way to read the environment
