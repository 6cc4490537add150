"""Complete a released contract for `buf breaking`.

A released contract (protos/released/*.binpb) holds our files only; what they import is taken from the current
build, so that nothing of others' is committed.

Usage: python protos/with_imports.py RELEASED CURRENT OUTPUT   (each a FileDescriptorSet)
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def main(released: Path, current: Path, output: Path) -> None:
    """Write ``released`` plus the files of ``current`` that are not ours to ``output``."""
    ours = FileDescriptorSet.FromString(released.read_bytes())
    everything = FileDescriptorSet.FromString(current.read_bytes())
    imports = [file for file in everything.file if not file.name.startswith("conductor/")]
    output.write_bytes(FileDescriptorSet(file=[*imports, *ours.file]).SerializeToString())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
