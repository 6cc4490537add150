"""Requests to ``TestIntelligenceService``, and what every answer and refusal must tell."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest

from rpc.harness import failure
from server.testing_fakes import ORIGIN

RUN = {"repository": "shop/web", "commit_sha": "abc", "test_ids": ["b", "a", "c"]}
DIFF = b"diff --git a/src/a.py b/src/a.py\n--- a/src/a.py\n+++ b/src/a.py\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
BROKEN = DIFF + b"diff --git a/b.py b/b.py\n--- a/b.py\n+++ b/b.py\n@@ -1,5 +1,5 @@\n x\n"
START = datetime(2026, 1, 10, 12, tzinfo=UTC)


def of_run(kind: Any, *, run: Any = RUN, **fields: Any) -> Any:
    return kind(tenant_id="acme", run=run, **fields)


def require_provenance(provenance: Any) -> None:
    assert (provenance.method, provenance.variant) == (2, 1)
    assert (provenance.model_name, provenance.model_version, provenance.model_digest) == ORIGIN.model
    assert list(provenance.missing_features) == list(ORIGIN.missing_features)
    assert len(provenance.prediction_id) == 32
    assert abs(provenance.prediction_time.ToSeconds() - time.time()) < 60


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)
