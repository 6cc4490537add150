"""Publishers at the same time: every one gets a generation of its own, none is lost."""

import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack

import ending
from conductor_model_store import ModelStore, PointerMoved

PUBLISHER = textwrap.dedent("""
    import hashlib, sys
    from conductor.model.v1.model_manifest_pb2 import Blob, ModelManifest
    from conductor_model_store import ModelStore

    root, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    blob = Blob(digest=hashlib.sha256(b"graph").hexdigest(), size_bytes=5)
    store = ModelStore.open(root)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        manifest = ModelManifest(predictor="build-duration", algorithm=f"{name}-{number}", graph=blob)
        print(store.publish(manifest, b"graph").pointer.generation)
""")


def test_processes(root):
    count, names = 15, ["one", "two", "three"]
    command, pipes = [sys.executable, "-c", PUBLISHER, str(root)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ending.process([*command, name, str(count)], text=True, **pipes)) for name in names
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:  # all are up: now they run against each other
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    generations = [int(line) for output in outputs for line in output.split()]
    assert sorted(generations) == list(range(1, count * len(names) + 1))
    store = ModelStore.open(root)
    assert len({pointer.version for pointer in store.history("build-duration")}) == count * len(names)
    assert store.resolve("build-duration").generation == count * len(names)


def test_threads(store, make_model):
    generations, start = [], threading.Barrier(4, timeout=60)

    def publish(first):
        start.wait()
        for number in range(10):
            generations.append(store.publish(*make_model(first + number)).pointer.generation)

    threads = [threading.Thread(target=publish, args=(1000 * index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(generations) == list(range(1, 41))


def test_a_rollback_that_loses_the_race_says_so_instead_of_undoing_something_unseen(root, store, make_model):
    store.publish(*make_model(1))
    store.publish(*make_model(2))

    class Overtaken:
        """Storage where another process publishes just before our pointer is written."""

        def __getattr__(self, name):
            return getattr(store._objects, name)

        def put_if_absent(self, key, content):
            store.publish(*make_model(3))
            return store._objects.put_if_absent(key, content)

    try:
        ModelStore(Overtaken()).rollback("build-duration")
    except PointerMoved as error:
        assert "meanwhile" in str(error)
    else:
        raise AssertionError("the rollback went through")
    assert store.load_pointer(store.resolve("build-duration")).manifest == make_model(3)[0]
