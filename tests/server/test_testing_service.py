"""``TestIntelligenceService`` over real gRPC, questions about a run: what reaches the domain, and the caller."""

from __future__ import annotations

import contextlib
import time

import grpc
import grpc.aio
import numpy as np
import pytest

from conductor.testing.v1 import test_run_pb2, test_selection_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.test_failure_pb2 import PredictTestFailuresRequest
from conductor.testing.v1.test_order_pb2 import PrioritizeTestsRequest
from conductor.testing.v1.test_selection_pb2 import SelectTestsRequest
from conductor_features.changes.changed_file import Change, ChangedFile
from conductor_features.changes.diff import parse_diff
from conductor_model_store.promise import calibrate
from conductor_server.testing import answers
from conductor_server.testing.questions import ChangeTold, MissRate, SelectionRules, TimeShare
from server.testing_calls import BROKEN, RUN, START, of_run, refused, require_provenance
from server.testing_fakes import PROMISE, Minds, asking, idle


async def test_predicted_failures():
    minds = Minds()
    async with asking(minds) as (stub, _):
        response = await stub.PredictTestFailures(of_run(PredictTestFailuresRequest, explanation_count=2))
        await stub.PredictTestFailures(of_run(PredictTestFailuresRequest, explanation_count=0))
        await stub.PredictTestFailures(of_run(PredictTestFailuresRequest))
    assert list(response.test_ids) == ["b", "a", "c"]
    assert list(response.failure_probabilities) == pytest.approx([0.9, 0.5, 0.1])
    assert list(response.reasons) == [0, 1, 2]
    first, second = response.explanations
    assert (first.index, first.HasField("impact")) == (0, False)
    assert [(one.feature, one.HasField("value"), one.effect) for one in first.contributions] == [
        ("failure_rate", True, 0.1),
        ("age", False, -0.02),
    ]
    assert (second.index, second.impact.distance, len(second.impact.nodes)) == (1, 2, 3)
    basis = response.basis
    assert (basis.change, basis.impact, basis.graph_commit_sha) == (0, test_run_pb2.IMPACT_BASIS_GRAPH, "abc")
    assert (basis.never_run_count, basis.unreadable_count, list(basis.unplaced_paths)) == (3, 1, ["pyproject.toml"])
    require_provenance(response.provenance)
    assert response.provenance.oldest_feature_age.ToMilliseconds() == 12_500
    assert [count for _, count, _ in minds.asked] == [2, 0, 10]
    run, _, until = minds.asked[0]
    assert (run.tenant_id, run.repository, run.commit_sha, run.test_ids) == ("acme", "shop/web", "abc", ["b", "a", "c"])
    assert (run.told, run.files, run.past_only) == (ChangeTold.NOTHING, [], False)
    assert abs(run.moment_us / 1e6 - time.time()) < 60
    assert 0 < until.remaining_seconds() < 6


async def test_a_named_time_allows_the_past_only():
    minds, request = Minds(), of_run(PredictTestFailuresRequest)
    request.run.start_time.FromDatetime(START)
    async with asking(minds) as (stub, _):
        await stub.PredictTestFailures(request)
    run = minds.asked[0][0]
    assert (run.past_only, run.moment_us) == (True, int(START.timestamp() * 1e6))


async def test_a_change_told_by_its_files():
    files = [
        {"path": "a.py", "added_line_count": 3, "deleted_line_count": 4},
        {"path": "b.py", "kind": "CHANGE_KIND_ADDED"},
        {"path": "c.py", "kind": "CHANGE_KIND_DELETED"},
        {"path": "d.py", "old_path": "old.py", "kind": "CHANGE_KIND_RENAMED"},
        {"path": "e.py", "old_path": "of.py", "kind": "CHANGE_KIND_COPIED"},
        {"path": "f.py", "kind": "CHANGE_KIND_MODIFIED"},
        {"path": "g.py", "kind": 77},
    ]
    minds = Minds()
    async with asking(minds) as (stub, _):
        response = await stub.PredictTestFailures(
            of_run(PredictTestFailuresRequest, run={**RUN, "changed_files": files})
        )
    run = minds.asked[0][0]
    assert run.told is ChangeTold.FILES
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_FILES
    assert run.files == [
        ChangedFile("a.py", "a.py", Change.MODIFIED, added_line_count=3, deleted_line_count=4),
        ChangedFile(None, "b.py", Change.ADDED),
        ChangedFile("c.py", None, Change.DELETED),
        ChangedFile("old.py", "d.py", Change.RENAMED),
        ChangedFile("of.py", "e.py", Change.COPIED),
        ChangedFile("f.py", "f.py", Change.MODIFIED),
        ChangedFile("g.py", "g.py", Change.MODIFIED),
    ]


@pytest.mark.parametrize("repeated", [1, 200], ids=["at once", "in a thread"])
async def test_a_change_told_by_its_diff(repeated):
    minds, diff = Minds(), BROKEN * repeated
    async with asking(minds) as (stub, _):
        response = await stub.SelectTests(of_run(SelectTestsRequest, run={**RUN, "diff": diff}, miss_rate=0.05))
        blank = await stub.SelectTests(of_run(SelectTestsRequest, run={**RUN, "diff": b"\n"}, miss_rate=0.05))
    run = minds.asked[0][0]
    assert (run.told, list(run.files)) == (ChangeTold.DIFF, parse_diff(diff))
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_DIFF
    problems = [f"b.py: {file.problem}" for file in run.files if file.problem]
    assert list(response.basis.diff_problems) == problems[:100] != []
    assert blank.basis.change == test_run_pb2.CHANGE_BASIS_UNSPECIFIED


async def test_what_is_no_diff_is_refused_by_its_field():
    too_many_files = b"".join(
        b"diff --git a/%d b/%d\nold mode 100644\nnew mode 100755\n" % (n, n) for n in range(5_001)
    )
    async with asking(Minds()) as (stub, _):
        for diff, reason in (
            (b"what is this", "NOT_A_DIFF"),
            (too_many_files, "TOO_LARGE"),
            (b"\n" * 600_000, "TOO_LARGE"),
        ):
            for kind, method in (
                (PredictTestFailuresRequest, stub.PredictTestFailures),
                (ClassifyFailureRequest, stub.ClassifyFailure),
            ):
                more = {"test_id": "t"} if kind is ClassifyFailureRequest else {}
                found = await refused(method(of_run(kind, run={"repository": "r", "diff": diff}, **more)))
                assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
                assert list(found.fields) == ["run.diff"]
                assert f"({reason})" in found.fields["run.diff"]


async def test_a_selection():
    minds = Minds(promise=PROMISE)
    told = {"must_run": ["a", "smoke/*"], "must_run_distance": 2, "audit_share": 0.0}
    async with asking(minds) as (stub, _):
        response = await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05, **told))
        minds.promise = None
        cheaper = await stub.SelectTests(of_run(SelectTestsRequest, time_share=0.25))
    assert minds.asked[0][1] == (MissRate(0.05), SelectionRules(["a", "smoke/*"], 2, 0.0))
    assert minds.asked[1][1] == (TimeShare(0.25), SelectionRules([], 0, 0.02))
    assert list(response.test_ids) == ["b", "a", "c"]
    assert list(response.reasons) == [5, 8, 100]
    assert list(response.failure_probabilities) == pytest.approx([0.9, 0.5, 0.1])
    assert list(response.selected) == [1, 0]
    assert (response.time.selected_duration.ToSeconds(), response.time.total_duration.ToSeconds()) == (3, 6)
    assert (response.time.unknown_count, response.audit_share, response.expected_missed_failures) == (2, 0.02, 0.75)
    promise = response.promise
    assert (promise.miss_rate, promise.level, promise.threshold, promise.calibration_run_count) == (
        0.05,
        0.04,
        0.125,
        250,
    )
    assert promise.basis == test_selection_pb2.PROMISE_BASIS_CALIBRATED
    assert promise.calibration_end_time.ToSeconds() == 1_700_000_000
    assert (promise.realised.miss_rate, promise.realised.run_count) == (0.03, 120)
    assert promise.realised.start_time.ToSeconds() < promise.realised.end_time.ToSeconds()
    require_provenance(response.provenance)
    assert not cheaper.HasField("promise")


async def test_a_promise_that_runs_everything_has_no_threshold():
    too_few = calibrate([], 0.05)
    minds = Minds(promise=answers.Promise(0.05, answers.Ground.NO_CALIBRATION))
    async with asking(minds) as (stub, _):
        nothing = (await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05))).promise
        minds.promise = answers.Promise(0.05, answers.Ground.TOO_FEW_RUNS, too_few)
        little = (await stub.SelectTests(of_run(SelectTestsRequest, miss_rate=0.05))).promise
    assert (nothing.basis, nothing.miss_rate, nothing.calibration_run_count) == (5, 0.05, 0)
    assert (little.basis, little.level) == (2, 0.05)
    for promise in (nothing, little):
        assert not promise.HasField("threshold")
        assert not promise.HasField("realised")


async def test_an_order_comes_in_parts_the_first_of_it_first():
    ids = [f"test_{number}" for number in range(2_500)]
    async with asking(Minds()) as (stub, _):
        parts = [
            part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run={**RUN, "test_ids": ids}))
        ]
        [few] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest))]
    assert [len(part.test_ids) for part in parts] == [100, 1_000, 1_000, 400]
    assert [test for part in parts for test in part.test_ids] == ids[::-1]
    seconds = [second for part in parts for second in part.expected_seconds]
    assert seconds == list(np.arange(2_500.0, 0, -1))
    probabilities = [one for part in parts for one in part.failure_probabilities]
    assert probabilities == sorted(probabilities)
    assert [part.total_count for part in parts] == [2_500, 0, 0, 0]
    assert [part.HasField("basis") for part in parts] == [part.HasField("provenance") for part in parts]
    assert [part.HasField("basis") for part in parts] == [True, False, False, False]
    require_provenance(parts[0].provenance)
    assert (list(few.test_ids), few.total_count) == (["c", "a", "b"], 3)


async def test_no_tests_are_an_order_too():
    async with asking(Minds(known=())) as (stub, _):
        [only] = [part async for part in stub.PrioritizeTests(of_run(PrioritizeTestsRequest, run={"repository": "r"}))]
    assert (only.total_count, list(only.test_ids), only.HasField("provenance")) == (0, [], True)


async def test_who_goes_away_gets_no_further_part():
    """Tests of 512 characters: more than the connection takes while nobody reads."""
    ids = [f"{number:05d}".ljust(512, "x") for number in range(8_000)]
    async with asking(Minds(), max_in_flight_count=1, min_in_flight_count=1) as (stub, server):
        request = of_run(PrioritizeTestsRequest, run={"repository": "r", "test_ids": ids})
        call = stub.PrioritizeTests(request)
        assert (await call.read()).total_count == 8_000
        assert server.in_flight_count == 1
        call.cancel()
        await idle(server)
        for seconds in (0.5, 2, 8):
            late = stub.PrioritizeTests(request, timeout=seconds)
            with contextlib.suppress(grpc.aio.AioRpcError):  # a busy machine says nothing in time: it gets longer
                assert (await late.read()).total_count == 8_000
                break
        else:
            pytest.fail("not even the first part came")
        assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED, "nobody reads until its time is over"
        await idle(server)
