"""``TestIntelligenceService`` over real gRPC, questions about flaky tests and failures."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from conductor.testing.v1 import failure_verdict_pb2, flaky_test_pb2, test_run_pb2
from conductor.testing.v1.failure_verdict_pb2 import ClassifyFailureRequest
from conductor.testing.v1.flaky_test_pb2 import ListFlakyTestsRequest
from conductor_server.testing.answers import FlakyStatus
from conductor_server.testing.questions import ChangeTold
from server.testing_calls import DIFF, of_run, refused, require_provenance
from server.testing_fakes import FACTS, KNOWN, Minds, asking


async def test_flaky_tests_page_by_page():
    minds = Minds()
    async with asking(minds) as (stub, _):
        found, token = [], ""
        while True:
            request = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=15, page_token=token)
            page = await stub.ListFlakyTests(request)
            found += [test.test_id for test in page.tests]
            assert page.total_count == len(KNOWN)
            token = page.next_page_token
            if not token:
                break
        await stub.ListFlakyTests(ListFlakyTestsRequest(tenant_id="acme", repository="r", states=[3, 1]))
    assert found == list(KNOWN)
    assert [asked for _, asked, _ in minds.asked] == [
        ({FlakyStatus.ACTIVE, FlakyStatus.QUARANTINED}, 15, after) for after in ("", KNOWN[14], KNOWN[29])
    ] + [({FlakyStatus.FIXED, FlakyStatus.ACTIVE}, 100, "")]
    test = page.tests[0]
    assert (test.state, test.flaky_probability) == (flaky_test_pb2.FLAKY_STATE_QUARANTINED, 0.5)
    require_evidence(test.evidence)
    assert [(one.state, one.time.ToSeconds()) for one in test.history] == [(1, 1_600_000_000), (2, 1_600_000_100)]
    require_provenance(page.provenance)


def require_evidence(evidence: Any) -> None:
    assert (evidence.run_count, evidence.failure_count, evidence.flip_count, evidence.rerun_flip_count) == (
        100,
        12,
        9,
        4,
    )
    assert (evidence.flip_rate, evidence.outcome_entropy, evidence.runs_since_flip) == (0.25, 0.75, 3)
    assert evidence.last_flip_time.ToNanoseconds() / 1e9 == FACTS.last_flip_seconds


async def test_a_page_token_holds_for_its_list_only():
    minds = Minds()
    first = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=10)
    async with asking(minds) as (stub, _):
        token = (await stub.ListFlakyTests(first)).next_page_token
        asked = len(minds.asked)
        for changes in (
            {"tenant_id": "zeta"},
            {"repository": "shop/app"},
            {"states": [3]},
            {"page_token": token[:-1]},
            {"page_token": token[1:]},
            {"page_token": token + "A"},
            {"page_token": token.swapcase()},
            {"page_token": "!"},
            {"page_token": "AAAA"},
            {"page_token": "é" * 40},
        ):
            request = ListFlakyTestsRequest(tenant_id="acme", repository="shop/web", page_size=10, page_token=token)
            request.MergeFrom(ListFlakyTestsRequest(**changes))
            found = await refused(stub.ListFlakyTests(request))
            assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"]), changes
        assert len(minds.asked) == asked
        first.page_token, first.page_size = token, 20  # another size is another cut of the same list
        assert (await stub.ListFlakyTests(first)).tests[0].test_id == KNOWN[10]


async def test_a_failure_is_judged():
    minds = Minds()
    counts = {"attempt_count": 3, "passed_attempt_count": 0, "failed_test_count": 1, "executed_test_count": 50}
    run = {"repository": "shop/web", "diff": DIFF}
    request = of_run(ClassifyFailureRequest, run=run, test_id="t", failure_message="timed out", **counts)
    request.duration.FromMilliseconds(1_250)
    async with asking(minds) as (stub, _):
        response = await stub.ClassifyFailure(request)
        bare = await stub.ClassifyFailure(of_run(ClassifyFailureRequest, run={"repository": "r"}, test_id="t"))
    asked = minds.asked[0][1]
    assert (asked.run.test_ids, asked.run.told, asked.message, asked.seconds) == (
        ["t"],
        ChangeTold.DIFF,
        "timed out",
        1.25,
    )
    assert {name: getattr(asked, name) for name in counts} == counts
    nothing = minds.asked[1][1]
    assert {getattr(nothing, name) for name in (*counts, "seconds")} == {None}
    assert response.verdict == failure_verdict_pb2.FAILURE_VERDICT_FLAKY
    told = response.probabilities
    assert (told.real, told.flaky, told.infrastructure) == (0.25, 0.625, 0.125)
    assert list(response.evidence) == ["it passed when it was tried again"]
    require_evidence(response.history)
    assert response.next_step == failure_verdict_pb2.NEXT_STEP_RERUN_TEST
    assert response.basis.change == test_run_pb2.CHANGE_BASIS_DIFF
    require_provenance(response.provenance)
    assert not bare.HasField("history")
