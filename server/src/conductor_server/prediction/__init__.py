"""What is answered, and how: the domain. It knows no gRPC, no Redis and no ONNX; ``ports.py`` is what it needs."""
