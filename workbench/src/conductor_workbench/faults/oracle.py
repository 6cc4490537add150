"""A model whose answers say who asked, of what, with which rows, and which version answered (`O1`, `O3`).

Its three outputs are whole numbers that a float32 holds exactly:

- lower: code of the pipeline's row · 1024 + code of the branch's row
- median: 2²⁰ + nonce of the request
- upper: 2²¹ + code of the model's version · 4096 + code of the tenant's row

A row that is missing counts as 0. So whoever knows what was asked can work out each answer, and an answer made of
another caller's nonce, another entity's row or another version's graph is told apart. What is answered without a model
is planted likewise: in the history fields of the rows, and in the manifest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import redis
from onnx import helper

from conductor.build.v1.build_context_pb2 import BuildContext
from conductor.model.v1.model_manifest_pb2 import (
    Blob,
    DurationStatistics,
    FeatureField,
    GoldenRequest,
    InputColumn,
    IntervalCalibration,
    ModelManifest,
    QuantileOutputs,
)
from conductor_client import BuildDurationPrediction, FallbackReason, PredictionMethod
from conductor_features.filling import position_key
from conductor_features.views import BRANCH_BUILDS, PIPELINE_BUILDS, TENANT_LOAD, VIEWS, View
from conductor_features.writer import write_rows
from conductor_workbench.faults.weighted_sum import weighted_sum

PREDICTOR = "build-duration"
NONCES = 1 << 20
VERSIONS = 256
_MEDIAN, _UPPER = 1 << 20, 1 << 21
_PIPELINE, _VERSION = 1 << 10, 1 << 12
_HISTORY, _STATISTICS, _OVERALL = 5 << 20, 6 << 20, 7 << 20
_REPOSITORIES, _BRANCHES = 4, 3
_PIPELINE_NAME = "ci"
_SPREAD = 1 << 10
_Told = tuple[float, float, float]
_Fields = Mapping[tuple[str, ...], Mapping[str, float]]

_COLUMNS = (
    InputColumn(
        name="pipeline",
        feature=FeatureField(view=PIPELINE_BUILDS.key, field="median_duration_7"),
        required=True,
        typical_value=0,
    ),
    InputColumn(
        name="branch", feature=FeatureField(view=BRANCH_BUILDS.key, field="median_duration_7"), typical_value=0
    ),
    InputColumn(name="load", feature=FeatureField(view=TENANT_LOAD.key, field="running_count"), typical_value=0),
    InputColumn(name="nonce", request_column="added_line_count", typical_value=0),
)
_WEIGHTS = ((_PIPELINE, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0))
"""By column, what it adds to lower, median and upper."""
_COLUMN_OF = {
    "pipeline_builds_v1.median_duration_7": "pipeline",
    "branch_builds_v1.median_duration_7": "branch",
    "tenant_load_v1.running_count": "load",
}


@dataclass(frozen=True)
class Asked:
    """A question: whose build, and the nonce that is to come back."""

    tenant: int
    repository: int
    branch: int
    nonce: int

    @property
    def tenant_id(self) -> str:
        """Name of the tenant."""
        return tenant_id(self.tenant)

    @property
    def pipeline_code(self) -> int:
        """What the pipeline's row holds."""
        return 1 + self.tenant * _REPOSITORIES + self.repository

    @property
    def branch_code(self) -> int:
        """What the branch's row holds."""
        return 1 + (self.pipeline_code - 1) * _BRANCHES + self.branch

    @property
    def load_code(self) -> int:
        """What the tenant's row holds."""
        return 1 + self.tenant

    def build(self, queued_time: datetime) -> BuildContext:
        """The build that is asked about."""
        context = BuildContext(
            repository=f"oracle/{self.repository}", pipeline=_PIPELINE_NAME, branch=f"branch-{self.branch}"
        )
        context.change.added_line_count = self.nonce
        context.queued_time.FromDatetime(queued_time)
        return context


def tenant_id(tenant: int) -> str:
    """Name of a tenant."""
    return f"oracle-{tenant:02d}"


def questions(tenants: int) -> list[Asked]:
    """Every entity of so many tenants, once."""
    if tenants * _REPOSITORIES * _BRANCHES >= _PIPELINE:
        raise ValueError("too many tenants for the numbers that a float32 holds")
    return [
        Asked(tenant, repository, branch, 0)
        for repository in range(_REPOSITORIES)
        for branch in range(_BRANCHES)
        for tenant in range(tenants)
    ]


def model(owner: str, code: int, tenants: int) -> tuple[ModelManifest, bytes]:
    """Manifest and graph of the version with a code, of a tenant or, for an empty owner, of all."""
    if not 0 < code < VERSIONS:
        raise ValueError(f"a version's code lies between 0 and {VERSIONS}")
    content = _graph(code, owner)
    return _manifest(content, owner, code, tenants), content


def version_name(manifest: ModelManifest) -> str:
    """What the model store will call it."""
    return hashlib.sha256(manifest.SerializeToString(deterministic=True)).hexdigest()[:16]


def _graph(code: int, owner: str) -> bytes:
    outputs = ("lower", "median", "upper")
    ending = [
        helper.make_node("Split", ["sum"], [f"{name}_column" for name in outputs], axis=1),
        *(helper.make_node("Reshape", [f"{name}_column", "flat"], [name]) for name in outputs),
    ]
    bias = np.array([0, _MEDIAN, _UPPER + code * _VERSION], np.float32)
    return weighted_sum(f"oracle {owner}", np.array(_WEIGHTS, np.float32), bias, outputs, ending, {})


def _manifest(content: bytes, owner: str, code: int, tenants: int) -> ModelManifest:
    made = ModelManifest(
        predictor=PREDICTOR,
        tenant_id=owner,
        algorithm="oracle",
        graph=Blob(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content)),
        inputs=_COLUMNS,
        input_name="inputs",
        outputs=QuantileOutputs(lower="lower", median="median", upper="upper"),
        calibration=IntervalCalibration(coverage=0.9),
    )
    made.fallback.overall.CopyFrom(_planted(_OVERALL + code))
    for asked in questions(tenants):
        if asked.branch == 0 and owner in ("", asked.tenant_id):
            made.fallback.pipelines.add(
                tenant_id=asked.tenant_id,
                repository=f"oracle/{asked.repository}",
                pipeline=_PIPELINE_NAME,
                statistics=_planted(_STATISTICS + asked.pipeline_code),
            )
    for row in ((3, 5, 7, 11), (900, 1000, 40, NONCES - 1), (1, float("nan"), float("nan"), 2)):
        filled = np.nan_to_num(np.array(row)) @ np.array(_WEIGHTS)
        outputs = filled + np.array([0, _MEDIAN, _UPPER + code * _VERSION])
        made.golden_requests.append(GoldenRequest(inputs=row, outputs=outputs.tolist()))
    return made


def _planted(median: float) -> DurationStatistics:
    return DurationStatistics(
        lower_seconds=median - _SPREAD, median_seconds=median, upper_seconds=median + _SPREAD, row_count=1
    )


def plant(redis_url: str, tenants: int, moment: datetime) -> None:
    """Write every entity's rows as of ``moment``, and that each view is filled, as the tailing writer leaves it."""
    asked = questions(tenants)
    with redis.Redis.from_url(redis_url) as client:
        write_rows(client, PIPELINE_BUILDS, _rows(moment, {_pipeline(one): _pipeline_fields(one) for one in asked}))
        branches: _Fields = {
            (*_pipeline(one), f"branch-{one.branch}"): {"median_duration_7": one.branch_code} for one in asked
        }
        write_rows(client, BRANCH_BUILDS, _rows(moment, branches, BRANCH_BUILDS))
        loads: _Fields = {(one.tenant_id,): {"running_count": one.load_code} for one in asked}
        write_rows(client, TENANT_LOAD, _rows(moment, loads, TENANT_LOAD))
        for view in VIEWS:
            client.set(position_key(view), b"epoch+lists 7 1")


def _pipeline(asked: Asked) -> tuple[str, str, str]:
    return asked.tenant_id, f"oracle/{asked.repository}", _PIPELINE_NAME


def _pipeline_fields(asked: Asked) -> dict[str, float]:
    history = _HISTORY + asked.pipeline_code
    return {
        "median_duration_7": asked.pipeline_code,
        "lower_duration_30": history - _SPREAD,
        "median_duration_15": history,
        "upper_duration_30": history + _SPREAD,
    }


def _rows(
    moment: datetime, entities: _Fields, view: View = PIPELINE_BUILDS
) -> Iterator[tuple[tuple[str, ...], datetime, list[float]]]:
    for entity, fields in entities.items():
        yield entity, moment, [fields.get(name, math.nan) for name in view.field_names]


class Oracle:
    """Tells what is wrong with an answer."""

    def __init__(self, versions: Mapping[str, Mapping[str, int]]) -> None:
        """``versions``: by owner, empty for the global model, the code of each version by its name."""
        self._versions = versions

    def wrong(self, asked: Asked, answer: BuildDurationPrediction) -> str:
        """What is wrong; empty if nothing is."""
        method = answer.method
        says_why = answer.missing_features != () or answer.fallback_reason != FallbackReason.UNSPECIFIED
        if method is PredictionMethod.MODEL and says_why:
            return "claims to be a full answer, and says what it lacks"
        if method is not PredictionMethod.MODEL and not says_why:
            return f"{method.name}, and does not say why"
        if method in (PredictionMethod.MODEL, PredictionMethod.MODEL_DEGRADED):
            return self._wrong_model_answer(asked, answer)
        told = answer.lower.total_seconds(), answer.median.total_seconds(), answer.upper.total_seconds()
        medians = {
            PredictionMethod.HISTORY: {_HISTORY + asked.pipeline_code, _STATISTICS + asked.pipeline_code},
            PredictionMethod.DEFAULT: {_OVERALL + code for code in self._codes(asked, answer)},
        }.get(method, set())
        planted: set[_Told] = {(float(median - _SPREAD), float(median), float(median + _SPREAD)) for median in medians}
        if told not in planted:
            return f"{method.name} of {told}, not of {sorted(medians)}"
        return ""

    def _codes(self, asked: Asked, answer: BuildDurationPrediction) -> list[int]:
        """The code of the version that an answer names, if that may answer."""
        owners = {f"models/{PREDICTOR}/global": "", f"models/{PREDICTOR}/tenants/{asked.tenant_id}": asked.tenant_id}
        owner = owners.get(answer.model_name)
        code = None if owner is None else self._versions.get(owner, {}).get(answer.model_version)
        return [] if code is None else [code]

    def _wrong_model_answer(self, asked: Asked, answer: BuildDurationPrediction) -> str:
        codes = self._codes(asked, answer)
        if not codes:
            return f"by {answer.model_name} {answer.model_version}, which may not answer"
        best = asked.tenant_id if asked.tenant_id in self._versions else ""
        if not answer.model_name.endswith(best or "global") and answer.fallback_reason == FallbackReason.UNSPECIFIED:
            return "by the global model, and does not say why"
        lacks = {_COLUMN_OF.get(name, name) for name in answer.missing_features}
        if not lacks <= {"branch", "load"}:
            return f"by the model without {lacks}"
        expected: _Told = (
            asked.pipeline_code * _PIPELINE + ("branch" not in lacks) * asked.branch_code,
            _MEDIAN + asked.nonce,
            _UPPER + codes[0] * _VERSION + ("load" not in lacks) * asked.load_code,
        )
        told: _Told = (answer.lower.total_seconds(), answer.median.total_seconds(), answer.upper.total_seconds())
        if told != expected:
            return f"{_read(told)} instead of {_read(expected)}"
        nonces = [told.value for told in answer.contributions if told.feature == "nonce"]
        return "" if all(nonce == asked.nonce for nonce in nonces) else f"explains nonce {nonces}, not {asked.nonce}"


def _read(told: Sequence[float]) -> str:
    """The codes in an answer's three numbers."""
    pipeline, branch = divmod(told[0], _PIPELINE)
    version, load = divmod(told[2] - _UPPER, _VERSION)
    return f"(rows {pipeline:g}, {branch:g}, {load:g}; nonce {told[1] - _MEDIAN:g}; version {version:g})"
