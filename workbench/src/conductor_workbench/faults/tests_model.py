"""A model of test failures whose probabilities say of which tenant's test, for which change and by which version.

A probability is a whole number of 2⁻²⁴, which a float32 holds exactly:

    code of the test's row · 1024 + code of the version · 32 + changed paths · 2 + (1 if it failed with one of them)

A row that is missing counts as 0. All tenants have tests of the same names, so that only rows tell them apart. Where a
test is itself changed the graph answers more than 1, which is no probability: the tests' history answers then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import redis
from numpy.typing import NDArray
from onnx import helper

from conductor.model.v1.model_manifest_pb2 import (
    Blob,
    FallbackStatistics,
    FeatureField,
    GoldenRequest,
    InputColumn,
    ModelManifest,
    ProbabilityOutput,
    RateStatistics,
)
from conductor_features.filling import position_key
from conductor_features.views import PATH_CHANGES, TEST_HISTORY, TEST_PATH_AFFINITY, VIEWS, View
from conductor_features.writer import WriteRow, write_rows
from conductor_workbench.faults.oracle import tenant_id
from conductor_workbench.faults.weighted_sum import weighted_sum

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]
Mask = NDArray[np.bool_]

PREDICTOR = "test-failure"
REPOSITORY = "oracle/tests"
TENANTS = 3
"""Tenants with tests."""
OWNERS = ("", *(tenant_id(number) for number in range(2)))
"""Of models: all tenants, and those that have their own."""
TESTS = 2_000
"""Of each tenant. Greater numbers are of tests that never ran."""
PATHS = 4
"""Of each tenant that have changed before; with each of them one test in twenty failed, every other time."""
MOST_CHANGED_PATHS = 15
RUN_COUNT = 8.0
_ONE = 1 << 24
_FAILED_WITH_ONE_IN = 20
_WEIGHTS = (1 << 10, 2, 2, _ONE)
"""By column: code of the row, changed paths, share of failures with a path (a half), whether the test is changed."""
_VERSION = 1 << 5
_CYCLES = 40
"""Past runs that promises are calibrated on: enough for a miss rate of a tenth."""

_COLUMNS = (
    InputColumn(
        name="row",
        feature=FeatureField(view=TEST_HISTORY.key, field="last_duration"),
        nullable=True,
        typical_value=0,
    ),
    InputColumn(name="paths", request_column="changed_path_count", typical_value=0),
    InputColumn(name="failed with", request_column="path_failure_share", typical_value=0),
    InputColumn(name="changed", request_column="is_test_changed", typical_value=0),
)


@dataclass(frozen=True)
class Tests:
    """Some tests of a tenant, and what its rows hold of them; the n-th of each array is of the n-th."""

    __test__ = False

    tenant: int
    numbers: Numbers

    @property
    def known(self) -> Mask:
        """Whether there is a row."""
        known: Mask = self.numbers < TESTS
        return known

    @property
    def codes(self) -> Array:
        """What says whose row it is; 0 where there is none."""
        return np.where(self.known, 1 + self.tenant * TESTS + self.numbers, 0).astype(np.float64)

    @property
    def seconds(self) -> Array:
        """What each takes, in eighths; NaN where there is no row."""
        return np.where(self.known, 1 + (self.codes * 7919 % 997) / 8, np.nan)

    @property
    def failures(self) -> Array:
        """Of the results that are known."""
        return self.codes % RUN_COUNT

    @property
    def latest_rates(self) -> Array:
        """Of failures among the latest results."""
        return self.codes / (1 << 14)

    def failed_with(self, path: int) -> Mask:
        """Which of them failed when a path had changed."""
        failed: Mask = self.known & (self.numbers % _FAILED_WITH_ONE_IN == path)
        return failed


def test_ids(numbers: Iterable[int]) -> list[str]:
    """Names of tests, alike for all tenants; in the order of their numbers they are sorted."""
    return [f"suite-{number // 50:02d}/test-{number:04d}" for number in numbers]


def path_name(path: int) -> str:
    """A path that may change; greater numbers are of paths that never did."""
    return f"src/part-{path:02d}.py"


def probabilities(codes: Array, version: int, paths: int, failed_with: Mask) -> Array:
    """What the graph of a version gives for tests."""
    given: Array = (codes * _WEIGHTS[0] + version * _VERSION + paths * _WEIGHTS[1] + failed_with) / _ONE
    return given


def overall_rate(version: int) -> float:
    """How often tests fail at all, as a version's manifest tells."""
    return 0.5 + version / 64


def threshold(tenant: int, version: int) -> float:
    """What promises of a version of a tenant's own select from."""
    return (1 + tenant * TESTS + 1_000 + 50 * (version % 8)) * _WEIGHTS[0] / _ONE


def model(owner: str, version: int, moment: datetime) -> tuple[ModelManifest, bytes]:
    """Manifest and graph of the version with a code (below 32), of a tenant or, for an empty owner, of all.

    ``moment``: when the runs begin that will be asked about; those that promises rest on have ended before.
    """
    if not 0 < version < _VERSION or PATHS > _FAILED_WITH_ONE_IN:
        raise ValueError("more than the numbers hold")
    content = _graph(version, owner)
    made = ModelManifest(
        predictor=PREDICTOR,
        tenant_id=owner,
        algorithm="oracle",
        graph=Blob(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content)),
        inputs=_COLUMNS,
        input_name="inputs",
        probability=ProbabilityOutput(probability="probability"),
        fallback=FallbackStatistics(overall_rate=RateStatistics(rate=overall_rate(version), row_count=1)),
        golden_requests=[
            GoldenRequest(inputs=row, outputs=[float(_given(np.array(row), version))])
            for row in ((7, 3, 0.5, 0), (9_999, 1, 0, 0), (float("nan"), 15, 0.5, 0))
        ],
    )
    if owner:
        least = threshold(OWNERS.index(owner) - 1, version)
        for cycle in range(_CYCLES, 0, -1):
            run = made.selection_calibration.runs.add(failed_probabilities=[least])
            run.start_time.FromDatetime(moment - timedelta(hours=cycle, minutes=30))
            run.completed_time.FromDatetime(moment - timedelta(hours=cycle))
    return made, content


def _given(row: Array, version: int) -> Array:
    given: Array = (np.nan_to_num(row) @ np.array(_WEIGHTS) + version * _VERSION) / _ONE
    return given


def _graph(version: int, owner: str) -> bytes:
    ending = [
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["probability"]),
    ]
    weights = np.array(_WEIGHTS, np.float32)[:, None]
    bias = np.array([version * _VERSION], np.float32)
    scale = {"scale": np.array([1 / _ONE], np.float32)}
    return weighted_sum(f"oracle of tests {owner}", weights, bias, ["probability"], ending, scale)


def plant(redis_url: str, moment: datetime) -> None:
    """Write the rows and lists of the tenants' tests as of ``moment``, as the tailing writer leaves them."""
    with redis.Redis.from_url(redis_url) as client:
        for tenant in range(TENANTS):
            owner = (tenant_id(tenant), REPOSITORY)
            tests = Tests(tenant, np.arange(TESTS))
            ids = test_ids(tests.numbers)
            write_rows(client, TEST_HISTORY, _histories(owner, tests, ids, moment))
            paths = [
                ((*owner, path_name(path)), {"change_count": 2.0, "failed_run_rate_10": 0.5}) for path in range(PATHS)
            ]
            write_rows(client, PATH_CHANGES, _rows(PATH_CHANGES, moment, paths))
            pairs = [
                ((*owner, ids[at], path_name(path)), {"failure_count": 1.0})
                for path in range(PATHS)
                for at in np.flatnonzero(tests.failed_with(path)).tolist()
            ]
            write_rows(client, TEST_PATH_AFFINITY, _rows(TEST_PATH_AFFINITY, moment, pairs))
        for view in VIEWS:
            client.set(position_key(view), b"epoch+lists 7 1")


def _histories(owner: tuple[str, str], tests: Tests, ids: Sequence[str], moment: datetime) -> Iterator[WriteRow]:
    fields = {
        "run_count": np.full(TESTS, RUN_COUNT),
        "failure_count": tests.failures,
        "failure_rate_2": tests.latest_rates,
        "last_duration": tests.codes,
        "mean_duration_10": tests.seconds,
    }
    each = zip(*(values.tolist() for values in fields.values()), strict=True)
    entities = [((*owner, one), dict(zip(fields, values, strict=True))) for one, values in zip(ids, each, strict=True)]
    return _rows(TEST_HISTORY, moment, entities)


def _rows(
    view: View, moment: datetime, entities: Iterable[tuple[tuple[str, ...], dict[str, float]]]
) -> Iterator[WriteRow]:
    for entity, fields in entities:
        yield entity, moment, [fields.get(name, np.nan) for name in view.field_names]
