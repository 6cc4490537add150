"""Small models to publish."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from conductor.model.v1.model_manifest_pb2 import Blob, CandidateMetrics, ModelManifest
from conductor_model_store import ModelStore
from conductor_storage import ObstoreObjects
from model_store.places import Place
from model_store.s3_bucket import Bucket

Make = Callable[..., tuple[ModelManifest, bytes]]


def make_model(number: int, predictor: str = "build-duration", tenant_id: str = "") -> tuple[ModelManifest, bytes]:
    """A manifest and its graph; another number makes another model."""
    graph = f"graph {number}".encode() * 100
    manifest = ModelManifest(
        predictor=predictor,
        tenant_id=tenant_id,
        algorithm=f"median{number}",
        graph=Blob(digest=hashlib.sha256(graph).hexdigest(), size_bytes=len(graph)),
        candidates=[
            CandidateMetrics(candidate="last", row_count=10, mae_seconds=30, mape=0.3),
            CandidateMetrics(candidate="median7", chosen=True, row_count=10, mae_seconds=20, mape=0.2, coverage=0.9),
        ],
    )
    manifest.training_data.start_time.FromSeconds(1_700_000_000)
    return manifest, graph


@pytest.fixture(name="make_model")
def make_model_fixture() -> Make:
    return make_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(root: Path) -> ModelStore:
    return ModelStore.open(root)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """An S3 bucket, ``s3://bucket``; its objects by key."""
    objects: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneBucket", (Bucket,), {"objects": objects}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield objects
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.fixture(params=["files", "S3"])
def place(request: pytest.FixtureRequest, root: Path) -> Place:
    """The same test on both kinds of storage."""
    if request.param == "files":
        return Place(ObstoreObjects(root))
    bucket = request.getfixturevalue("bucket")  # first: it says where S3 is
    return Place(ObstoreObjects("s3://bucket/models"), bucket)
