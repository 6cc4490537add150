"""The echo server as a child process."""

from __future__ import annotations

import base64
from pathlib import Path

from conductor_workbench.bench.children import Child
from conductor_workbench.keys import EmbeddedKeys


class EchoProcess(Child):
    """Answers every request with ``response``. Listens once :meth:`listen` has told where."""

    def __init__(self, log: Path) -> None:
        super().__init__("conductor_workbench.bench.echo", log)

    def listen(self, response: bytes, keys: EmbeddedKeys | None) -> str:
        """Start to listen, with TLS where there are keys.

        Returns:
            ``host:port``.
        """
        settings = {
            "response": base64.b64encode(response).decode(),
            "certificate": keys.server_certificate.read_text() if keys else "",
            "key": keys.server_key.read_text() if keys else "",
        }
        return str(self.ask(settings)["target"])
