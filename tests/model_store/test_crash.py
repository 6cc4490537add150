"""A publisher killed (SIGKILL) at any step leaves the old model in force, and the next publisher succeeds."""

import hashlib
import signal
import subprocess
import sys
import textwrap

import pytest

import programs
from conductor_model_store import CorruptModel, ModelNotFound, UntrustedModel
from conductor_model_store.scope import blob_key
from conductor_model_store.settings import ModelStoreSettings
from conductor_model_store.signing_keys import generate_key_pair

# Runs in a process of its own: publishes through storage that kills the process at the step that it is told.
PUBLISHER = textwrap.dedent("""
    import os, signal, sys
    from conductor.model.v1.model_manifest_pb2 import ModelManifest
    from conductor_model_store import ModelStore
    from conductor_model_store.settings import ModelStoreSettings
    from conductor_storage import ObstoreObjects

    root, step, torn = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "torn"
    manifest, graph = ModelManifest.FromString(bytes.fromhex(sys.argv[4])), bytes.fromhex(sys.argv[5])

    class Killing:
        def __init__(self, objects):
            self.objects, self.writes = objects, 0
        def write(self, name, key, content):
            if self.writes == step:
                if torn:  # storage that isn't atomic after all
                    self.objects.put(key, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.writes += 1
            return getattr(self.objects, name)(key, content)
        def put(self, key, content):
            return self.write("put", key, content)
        def put_if_absent(self, key, content):
            return self.write("put_if_absent", key, content)
        def __getattr__(self, name):
            return getattr(self.objects, name)

    trust = ModelStoreSettings().trust(ModelStoreSettings().model_signing_key)
    ModelStore(Killing(ObstoreObjects(root)), trust=trust).publish(manifest, graph)
    print("published")
""")
WRITES = ["graph", "manifest", "signature", "pointer", "mark"]


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """Keys by configuration, of this process and of those that it starts."""
    pair = generate_key_pair(tmp_path / "keys")
    monkeypatch.setenv("CONDUCTOR_MODEL_SIGNING_KEY", str(pair.private_key))
    monkeypatch.setenv("CONDUCTOR_MODEL_TRUSTED_KEYS", str(pair.public_key))


def opened(root):
    return ModelStoreSettings(model_store=str(root)).open()


def arguments(root, step, torn, manifest, graph):
    return [str(root), str(step), torn, manifest.SerializeToString().hex(), graph.hex()]


@pytest.mark.parametrize("torn", ["whole", "torn"])
@pytest.mark.parametrize("step", range(len(WRITES)), ids=WRITES)
def test_killed_before_or_within_a_write(root, make_model, step, torn):
    old = opened(root).publish(*make_model(1))
    manifest, graph = make_model(2)
    assert programs.run(PUBLISHER, *arguments(root, step, torn, manifest, graph)) == -signal.SIGKILL

    store = opened(root)
    pointer = store.resolve("build-duration")
    pointer_was_written = WRITES[step] == "mark"
    assert (pointer != old.pointer) == pointer_was_written
    assert store.pointers() == {old.scope: pointer}
    model = store.load_pointer(pointer)
    assert model.graph == (graph if pointer_was_written else make_model(1)[1])
    if WRITES[step] in {"graph", "manifest", "signature"} and torn == "torn":
        # What is half there never passes for whole.
        new = hashlib.sha256(manifest.SerializeToString(deterministic=True)).hexdigest()[:16]
        half, refusal = {
            "graph": (blob_key(manifest.graph.digest), ModelNotFound),  # the manifest was never written
            "manifest": (old.scope.version_key(new), CorruptModel),
            "signature": (old.scope.signature_key(new), UntrustedModel),
        }[WRITES[step]]
        assert (root / half).exists()
        with pytest.raises(refusal):
            store.load("build-duration", None, new)

    again = store.publish(manifest, graph)
    assert store.load_pointer(store.resolve("build-duration")).graph == graph
    assert store.resolve("build-duration") == again.pointer


def test_the_publisher_of_this_test_can_succeed(root, make_model):
    command = [sys.executable, "-c", PUBLISHER, *arguments(root, 99, "whole", *make_model(1))]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout.strip()) == (0, "published"), process.stderr
    assert opened(root).resolve("build-duration").generation == 1
