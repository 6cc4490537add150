"""The same store over S3's protocol: a few lines of HTTP server stand in for MinIO; the client is the real one."""

import threading

import pytest

from conductor_model_store import CorruptModel, ModelStore, ModelStoreUnavailable


def test_the_whole_life_of_a_model(bucket, make_model):
    store = ModelStore.open("s3://bucket/some/prefix")
    watcher = ModelStore.open("s3://bucket/some/prefix")
    assert store.pointers() == {}
    first = store.publish(*make_model(1, tenant_id="Acme/x"))
    second = store.publish(*make_model(2, tenant_id="Acme/x"))
    assert store.publish(*make_model(2, tenant_id="Acme/x")) == second
    assert watcher.pointers() == {second.scope: second.pointer}
    assert watcher.load_pointer(second.pointer).graph == make_model(2)[1]
    assert store.rollback("build-duration", "Acme/x").version == first.version
    assert watcher.resolve("build-duration", "Acme/x").generation == 3
    assert all(key.startswith("some/prefix/") for key in bucket)
    blob = next(key for key in bucket if "blobs" in key and key.endswith(make_model(1)[0].graph.digest))
    bucket[blob] = bucket[blob][:-1]
    with pytest.raises(CorruptModel):
        watcher.load("build-duration", "Acme/x", first.version)


def test_publishers_at_the_same_time(bucket, make_model):
    generations, start = [], threading.Barrier(3, timeout=60)

    def publish(first):
        store = ModelStore.open("s3://bucket")
        start.wait()
        for number in range(5):
            generations.append(store.publish(*make_model(first + number)).pointer.generation)

    threads = [threading.Thread(target=publish, args=(100 * index,), daemon=True) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(generations) == list(range(1, 16))


def test_a_store_that_is_away_says_so(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(ModelStoreUnavailable):
        ModelStore.open("s3://bucket").pointers()
