"""Asks a few times a second beside a load, and looks at the answers: who answered, and why."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.prediction.v1.build_duration_pb2 import PredictBuildDurationRequest
from conductor.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from conductor.prediction.v1.provenance_pb2 import FallbackReason
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.model_fleet import tenant_name

_PER_S = 20.0


class AnswerSample:
    """Use as ``with AnswerSample(…) as sample``; the figures are there afterwards."""

    def __init__(self, target: str, build: BuildContext, weights: NDArray[np.float64], seed: int) -> None:
        """``weights``: how often each tenant asks; sums to 1."""
        self._target, self._build, self._weights = target, build, weights
        self._random = np.random.default_rng(1000 + seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._reasons: Counter[str] = Counter()
        self._mixed_up = 0

    def figures(self) -> Figures:
        """How many answers came from the tenant's own model, and why the others did not."""
        count = sum(self._reasons.values())
        own = self._reasons[_name(FallbackReason.FALLBACK_REASON_UNSPECIFIED)]
        return {
            "answers": count,
            "hit_rate": significant(own / count) if count else None,
            "by_reason": dict(self._reasons),
            "of_another_tenant": self._mixed_up,
        }

    def _run(self) -> None:
        with grpc.insecure_channel(self._target) as channel:
            ask = PredictionServiceStub(channel).PredictBuildDuration
            while not self._stop.wait(1 / _PER_S):
                tenant_id = tenant_name(int(self._random.choice(len(self._weights), p=self._weights)))
                request = PredictBuildDurationRequest(tenant_id=tenant_id, build=self._build)
                label = ask(request, timeout=5.0).provenance
                self._reasons[_name(label.fallback_reason)] += 1
                self._mixed_up += not label.model_name.endswith((f"/tenants/{tenant_id}", "/global"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)


def _name(reason: int) -> str:
    return FallbackReason.Name(reason).removeprefix("FALLBACK_REASON_").lower()  # type: ignore[arg-type]
