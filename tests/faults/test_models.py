"""F7, F8: what arrives in the model store damaged, edited or by half never serves; the next good model does.

Every kind of damage on its own, and mutations by the hundred, are in tests/server/test_models.py; a publisher killed at
each step is in tests/model_store/test_crash.py. Here the whole system meets them under load.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from conductor_model_store import ModelStore, ModelVersion
from conductor_model_store.settings import ModelStoreSettings
from faults.scene import Asking, Reply, Scene, explain, labels, lacking, percentile, wrong
from machine import within

TENANT, PREDICTOR = "tenant-000", "build-duration"
REFUSED_SECONDS, LONGEST_SECONDS = 5.0, 60.0


@dataclass(frozen=True)
class Arrival:
    """The files of a published version, in the order in which they are written."""

    blob: Path
    manifest: Path
    signature: Path
    pointer: Path
    mark: Path


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path) -> None:
    content = path.read_bytes()
    assert b"inputs" in content
    path.write_bytes(content.replace(b"inputs", b"Inputs", 1))


DAMAGE: dict[str, tuple[Callable[[Arrival], None], str]] = {
    "a flipped bit in the graph": (lambda files: _flip(files.blob), "refused"),
    "a graph half written": (lambda files: _cut(files.blob), "refused"),
    "a graph that is not there": (lambda files: files.blob.unlink(), "refused"),
    "an edited manifest": (lambda files: _edit(files.manifest), "refused"),
    "a manifest half written": (lambda files: _cut(files.manifest), "refused"),
    "a model that is not signed": (lambda files: files.signature.unlink(), "refused"),
    "an edited signature": (lambda files: _flip(files.signature), "refused"),
    "a pointer half written": (lambda files: _cut(files.pointer), "passed over"),
}


@pytest.fixture
def original(scene: Scene) -> Iterator[str]:
    """The version that serves before and after; what a test left in the store is gone then."""
    kept = scene.directory / "kept-models"
    shutil.copytree(scene.models, kept)
    pointer = scene.store.resolve(PREDICTOR, TENANT)
    assert pointer is not None
    yield pointer.version
    shutil.rmtree(kept)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_never_serves_and_the_next_good_model_does(
    scene: Scene, original: str, tmp_path: Path, figure, damage: str
) -> None:
    spoil, told = DAMAGE[damage]

    async def during(asking: Asking, replies: list[Reply]) -> tuple[float, float, str]:
        arrival, version = _published_elsewhere(scene, tmp_path, original, damage)
        spoil(arrival)
        logged = scene.logs().count(told)
        _bring(scene, arrival, tmp_path)
        began = time.monotonic()
        while scene.logs().count(told) == logged:
            assert time.monotonic() - began < LONGEST_SECONDS
            await asyncio.sleep(0.05)
        refused = time.monotonic() - began
        assert within(refused, REFUSED_SECONDS)
        await asyncio.sleep(0.3)
        assert not wrong(scene, replies), explain(wrong(scene, replies))
        assert {reply.answer.model_version for reply in replies if reply.answer and _is_of(scene, reply)} == {original}
        # The next good publish is taken up.
        good = _publish(scene.store, original, f"{damage}, mended")
        assert good.version != version
        began = time.monotonic()
        await _served(scene, asking, good.version)
        taken_up = time.monotonic() - began
        scene.store.promote(PREDICTOR, TENANT, original)
        await _served(scene, asking, original)
        return refused, taken_up, good.version

    async with scene.asking() as asking:
        refused = taken_up = 0.0
        good = ""

        async def told_during(replies: list[Reply]) -> None:
            nonlocal refused, taken_up, good
            refused, taken_up, good = await during(asking, replies)

        replies = await asking.load(40, told_during)
    assert not lacking(replies), labels(replies)
    # The mended model says the same under its own name, the only other one that ever answered.
    ours = [reply.answer for reply in replies if reply.answer and _is_of(scene, reply)]
    assert {answer.model_version for answer in ours} == {original, good}
    others = [reply for reply in replies if reply.answer and reply.answer.model_version != good]
    found = wrong(scene, others)
    figure(wrong=f"{len(found)} of {len(others)}", p95=percentile(replies), refused=refused, taken_up=taken_up)
    assert not found, explain(found)


def _is_of(scene: Scene, reply: Reply) -> bool:
    return scene.questions[reply.question].tenant_id == TENANT


async def _served(scene: Scene, asking: Asking, version: str) -> None:
    number = next(n for n, question in enumerate(scene.questions) if question.tenant_id == TENANT)
    deadline = time.monotonic() + 60
    while True:
        reply = await asking.ask(number)
        if reply.answer and reply.answer.model_version == version:
            return
        assert time.monotonic() < deadline, labels([reply])
        await asyncio.sleep(0.02)


def _publish(store: ModelStore, original: str, name: str) -> ModelVersion:
    """The tenant's model again: other bytes, the same answers."""
    model = store.load(PREDICTOR, TENANT, original)
    graph = onnx.load_from_string(model.graph)
    graph.doc_string = name
    content = graph.SerializeToString()
    model.manifest.graph.size_bytes = len(content)
    model.manifest.graph.digest = _digest(content)
    return store.publish(model.manifest, content)


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _published_elsewhere(scene: Scene, tmp_path: Path, original: str, name: str) -> tuple[Arrival, str]:
    """A publish into a copy of the store, to be spoilt on its way."""
    copy = tmp_path / "models"
    shutil.copytree(scene.models, copy)
    known = set(copy.rglob("*"))
    keys = scene.platform.keys
    settings = ModelStoreSettings(model_store=str(copy), model_signing_key=keys.model_signing_key)
    version = _publish(settings.open(), original, name)
    new = [path for path in copy.rglob("*") if path.is_file() and path not in known]
    [blob] = [path for path in new if "blobs" in path.parts]
    [manifest] = [path for path in new if path.suffix == ".binpb"]
    [signature] = [path for path in new if path.name.endswith(".sig.json")]
    [pointer] = [path for path in new if path.suffix == ".json" and path != signature]
    [mark] = [path for path in copy.glob("*") if path.is_file()] or [None]
    assert mark is not None
    return Arrival(blob, manifest, signature, pointer, mark), version.version


def _bring(scene: Scene, arrival: Arrival, tmp_path: Path) -> None:
    for path in (arrival.blob, arrival.manifest, arrival.signature, arrival.pointer, arrival.mark):
        if path.exists():
            target = scene.models / path.relative_to(tmp_path / "models")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
