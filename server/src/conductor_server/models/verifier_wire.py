"""What the verifier and its child process say to each other. Apart, since the child imports what we must not."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<IQQf")
"""Bytes of the manifest, bytes of the graph, bytes of memory, seconds."""
MOST_EXTENSIONS = 3
"""So often a model gets its seconds again."""
