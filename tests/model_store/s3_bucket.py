"""A few lines of HTTP server that stand in for MinIO."""

import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket(BaseHTTPRequestHandler):
    """PUT with If-None-Match, GET, HEAD and the second version of LIST."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body in one packet: else each answer waits for a delayed acknowledgement
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
