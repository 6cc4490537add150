"""Writes the dashboards into the folder that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from conductor_dashboards.build import BOARDS, built

for board in BOARDS:
    (Path(sys.argv[1]) / f"{board.name}.json").write_text(built(board))
