"""What every Conductor gRPC process shares: TLS, authentication, admission, deadlines, errors, telemetry, drain.

Start at ``server.py`` (start, serve, stop) and ``onion.py`` (what a call passes through, in order).
"""
