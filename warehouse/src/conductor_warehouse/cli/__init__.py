"""``conductor ingest`` and ``conductor events|quality|repo|warehouse …``, a file for each group."""

from __future__ import annotations

from conductor_warehouse.cli.events import events_commands
from conductor_warehouse.cli.ingest import ingest
from conductor_warehouse.cli.quality import quality_commands
from conductor_warehouse.cli.repo import repo_commands
from conductor_warehouse.cli.warehouse import warehouse_commands

__all__ = ["events_commands", "ingest", "quality_commands", "repo_commands", "warehouse_commands"]
