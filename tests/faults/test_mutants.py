"""F7: mutated graphs and manifests by the hundred, by the ten thousand in the long form, while everybody asks.

Those that are damaged after they were signed arrive on the channels of tenants who ask: not one may serve. Those that
were signed as they are have only the verifier in their way; one that answers its golden requests may serve, and nobody
asks it. No worker may end, and each is decided on in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store import ModelStore, ModelStoreUnavailable
from conductor_model_store.settings import ModelStoreSettings
from conductor_storage import ObstoreObjects
from conductor_workbench.faults import oracle
from conductor_workbench.faults.stand import TENANTS, Stand
from machine import within

MUTANT_OWNERS = [f"mutant-{number}" for number in range(8)]
ROUNDS = 8
REFUSED_SECONDS, LONGEST_SECONDS = 5.0, 60.0


class BadDisk(ObstoreObjects):
    """Stores something else than it was given, where it is told so."""

    spoilt_prefix = "\0"
    spoil: Callable[[bytes], bytes]

    def put(self, key: str, content: bytes) -> None:
        super().put(key, self.spoil(content) if key.startswith(self.spoilt_prefix) else content)


def mutated(chance: random.Random, content: bytes) -> bytes:
    """Other bytes: flipped, cut, left out, inserted, doubled, blanked."""
    found = bytearray(content)
    while bytes(found) == content:
        at = chance.randrange(len(found))
        length = min(chance.choice([1, 2, 8, 64]), len(found) - at)
        match chance.randrange(6):
            case 0:
                for _ in range(chance.choice([1, 1, 3, 8])):
                    found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
            case 1:
                del found[at:]
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = chance.randbytes(length)
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                found[at : at + length] = bytes([chance.choice([0, 0x7F, 0xFF])]) * length
        if not found:
            found = bytearray(content)
    return bytes(found)


class Mutants:
    """Publishes them."""

    def __init__(self, stand: Stand, chance: random.Random) -> None:
        self._chance, self._number = chance, 0
        settings = ModelStoreSettings(model_trusted_keys=(stand.keys.model_trusted_key,))
        trust = settings.trust(stand.keys.model_signing_key)
        # They need not outlive a power cut.
        self._disk = BadDisk(stand.directory / "models", unavailable=ModelStoreUnavailable, durable=False)
        self._disk.spoil = lambda content: mutated(chance, content)
        self._store = ModelStore(self._disk, trust=trust)
        for owner in MUTANT_OWNERS:
            self._store.publish(*self._good(owner))

    def damaged(self, owner: str) -> str:
        """A good model, whose graph or manifest the disk damages; returns the version."""
        manifest, graph = self._good(owner)
        version = oracle.version_name(manifest)
        of_graph = "blobs/"
        self._disk.spoilt_prefix = self._chance.choice([of_graph, _scope(owner).version_key(version)])
        try:
            return self._store.publish(manifest, graph).version
        finally:
            self._disk.spoilt_prefix = BadDisk.spoilt_prefix

    def signed(self, owner: str) -> str:
        """A mutant that was signed as it is; returns the version."""
        manifest, graph = self._good(owner)
        if self._chance.random() < 0.6:
            graph = mutated(self._chance, graph)
            _name(manifest, graph)
        else:
            manifest = self._mutated_manifest(manifest)
        return self._store.publish(manifest, graph).version

    def _mutated_manifest(self, manifest: ModelManifest) -> ModelManifest:
        content = manifest.SerializeToString(deterministic=True)
        while True:
            try:
                found = ModelManifest.FromString(mutated(self._chance, content))
            except DecodeError:
                continue
            found.predictor, found.tenant_id = manifest.predictor, manifest.tenant_id
            found.graph.CopyFrom(manifest.graph)
            if found != manifest:
                return found

    def _good(self, owner: str) -> tuple[ModelManifest, bytes]:
        """One that differs from all before, and answers as they do."""
        self._number += 1
        manifest, graph = oracle.model(owner, 1, TENANTS)
        model = onnx.load_from_string(graph)
        model.doc_string = str(self._number)
        graph = model.SerializeToString()
        _name(manifest, graph)
        return manifest, graph


def _name(manifest: ModelManifest, graph: bytes) -> None:
    manifest.graph.digest, manifest.graph.size_bytes = hashlib.sha256(graph).hexdigest(), len(graph)


def _scope(owner: str) -> Any:
    from conductor_model_store import ModelScope

    return ModelScope(oracle.PREDICTOR, owner)


async def test_mutants(stand: Stand, figure, rounds: Iterator[int], seed: int) -> None:
    chance = random.Random(seed)
    mutants = Mutants(stand, chance)
    told: Counter[str] = Counter()
    slowest = 0.0
    workers = stand.workers
    async with stand.asking(rate_per_s=30, kinds={"unary": 1, "stream": 1}, timeout_seconds=30.0, seed=seed) as replies:
        for _ in rounds:
            for _ in range(ROUNDS):
                for publish, owners in ((mutants.damaged, stand.versions), (mutants.signed, MUTANT_OWNERS)):
                    began, log_bytes = time.monotonic(), stand.log_bytes
                    versions = [publish(owner) for owner in owners]
                    decided = await _decided(stand, versions, log_bytes, began + LONGEST_SECONDS)
                    took = time.monotonic() - began
                    assert within(took, REFUSED_SECONDS)
                    slowest = max(slowest, took)
                    assert publish == mutants.signed or set(decided.values()) == {"refused"}
                    told.update(decided.values())
                assert stand.workers == workers
    for owner in stand.versions:
        stand.publish(owner, 0)
    figure(wrong=f"0 of {len(replies)}", mutants=sum(told.values()), slowest=slowest, **told)
    assert not replies.wrong_count, replies.wrong
    assert set(replies.counts) <= {"MODEL", "MODEL_DEGRADED", "HISTORY"}, replies.counts
    assert told["refused"] > 0.8 * told.total()


async def _decided(stand: Stand, versions: list[str], log_bytes: int, deadline: float) -> dict[str, str]:
    """What both workers say of each version, by their logs."""
    while True:
        lines = stand.logs(log_bytes).splitlines()
        found = {
            version: [
                line for line in lines if f"version {version}" in line and ("refused" in line or "serves" in line)
            ]
            for version in versions
        }
        if all(len(said) >= 2 for said in found.values()):
            return {version: "refused" if "refused" in said[-1] else "serves" for version, said in found.items()}
        assert time.monotonic() < deadline, {version: said for version, said in found.items() if len(said) < 2}
        await asyncio.sleep(0.05)
