"""What the process that workers are forked from imports, so that they need not. Nobody else imports it.

Nothing runs in that process: no event loop, no gRPC, no session. It ends when the supervisor does.
"""

from __future__ import annotations

import gc
import signal

import conductor_model_store.signatures  # noqa: F401 - imported later else, and takes longest
import conductor_server.worker  # noqa: F401

# Who stops a service may signal all of its processes: workers drain, and this one still has to tell how they ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# The collector leaves alone what is there now, so workers go on sharing that memory.
gc.collect()
gc.freeze()
