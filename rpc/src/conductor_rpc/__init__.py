"""What every Conductor gRPC process shares: TLS, authentication, admission, deadlines, errors, telemetry, drain.

Start at ``server.py`` (start, serve, stop) and ``onion.py`` (what a call passes through, in order).
"""

import os

# gRPC reads it when it is imported. Without it, its core writes a line for each handshake that anybody breaks off.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
