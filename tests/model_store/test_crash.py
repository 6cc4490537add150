"""A publisher killed (SIGKILL) at any step leaves the old model in force, and the next publisher succeeds."""

import subprocess
import sys
import textwrap

import pytest

from conductor_model_store import CorruptModel, ModelStore
from conductor_model_store.scope import blob_key

# Runs in a process of its own: publishes through storage that kills the process at the step that it is told.
PUBLISHER = textwrap.dedent("""
    import os, signal, sys
    from conductor.model.v1.model_manifest_pb2 import ModelManifest
    from conductor_model_store import ModelStore
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

    ModelStore(Killing(ObstoreObjects(root))).publish(manifest, graph)
    print("published")
""")
WRITES = ["graph", "manifest", "pointer", "mark"]


def publish_and_die(root, step, torn, manifest, graph):
    arguments = [str(root), str(step), torn, manifest.SerializeToString().hex(), graph.hex()]
    return subprocess.run(
        [sys.executable, "-c", PUBLISHER, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("torn", ["whole", "torn"])
@pytest.mark.parametrize("step", range(len(WRITES)), ids=WRITES)
def test_killed_before_or_within_a_write(root, make_model, step, torn):
    old = ModelStore.open(root).publish(*make_model(1))
    manifest, graph = make_model(2)
    process = publish_and_die(root, step, torn, manifest, graph)
    assert process.returncode == -9, process.stderr

    store = ModelStore.open(root)
    pointer = store.resolve("build-duration")
    pointer_was_written = WRITES[step] == "mark"
    assert (pointer != old.pointer) == pointer_was_written
    assert store.pointers() == {old.scope: pointer}
    model = store.load_pointer(pointer)
    assert model.graph == (graph if pointer_was_written else make_model(1)[1])
    if WRITES[step] in {"graph", "manifest"} and torn == "torn":
        # What is half there never passes for whole.
        key = blob_key(manifest.graph.digest) if WRITES[step] == "graph" else next((root / "models").rglob("*.binpb"))
        assert (root / key).exists()
        versions = [stored.version for stored in store.versions("build-duration") if stored.version != old.version]
        for version in versions:
            with pytest.raises(CorruptModel):
                store.load("build-duration", None, version)

    again = store.publish(manifest, graph)
    assert store.load_pointer(store.resolve("build-duration")).graph == graph
    assert store.resolve("build-duration") == again.pointer


def test_the_publisher_of_this_test_can_succeed(root, make_model):
    process = publish_and_die(root, 99, "whole", *make_model(1))
    assert (process.returncode, process.stdout.strip()) == (0, "published"), process.stderr
    assert ModelStore.open(root).resolve("build-duration").generation == 1
