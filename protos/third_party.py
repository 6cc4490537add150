"""Lay out the third-party protos that ours import, from the installed wheels, in an ignored build folder.

Usage: python protos/third_party.py build/third_party
"""

import shutil
import sys
from importlib.metadata import files
from pathlib import Path

NEEDED = ("google/api/annotations.proto", "google/api/http.proto", "google/rpc/status.proto")


def main(target: Path) -> None:
    """Copy the protos into ``target``, keeping their import paths."""
    shutil.rmtree(target, ignore_errors=True)
    installed = {str(file): file.locate() for file in files("googleapis-common-protos") or ()}
    for name in NEEDED:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(installed[name]), destination)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
