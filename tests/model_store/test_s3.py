"""The same store over S3's protocol: a few lines of HTTP server stand in for MinIO; the client is the real one."""

import threading
from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from conductor_model_store import CorruptModel, ModelStore, ModelStoreUnavailable


class Bucket(BaseHTTPRequestHandler):
    """PUT with If-None-Match, GET, HEAD and the second version of LIST."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    lock = threading.Lock()

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            if self.headers.get("If-None-Match") == "*" and self.key in self.objects:
                return self.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            self.objects[self.key] = content
        return self.reply(200, b"", content)

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            return self.reply(200, self.listing(query.get("prefix", [""])[0]))
        if self.key not in self.objects:
            return self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return self.reply(200, self.objects[self.key], self.objects[self.key])

    def do_HEAD(self):
        self.do_GET()

    @property
    def key(self):
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def listing(self, prefix):
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{md5(content).hexdigest()}</ETag><Size>{len(content)}</Size></Contents>"  # noqa: S324
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def reply(self, status, body, content=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{md5(content).hexdigest()}"')  # noqa: S324
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket(monkeypatch) -> Iterator[dict[str, bytes]]:
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
    thread.join()


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
    generations, start = [], threading.Barrier(3)

    def publish(first):
        store = ModelStore.open("s3://bucket")
        start.wait()
        for number in range(5):
            generations.append(store.publish(*make_model(first + number)).pointer.generation)

    threads = [threading.Thread(target=publish, args=(100 * index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(generations) == list(range(1, 16))


def test_a_store_that_is_away_says_so(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(ModelStoreUnavailable):
        ModelStore.open("s3://bucket").pointers()
