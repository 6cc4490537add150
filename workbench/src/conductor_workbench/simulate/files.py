"""Write a simulation to files, and say what is in it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from conductor_workbench.events_file import write_events
from conductor_workbench.simulate.builds import Simulation, Truth, simulate


def write_simulation(
    events: Path | None,
    truth: Path | None,
    *,
    tenants: int,
    builds: int,
    days: int,
    seed: int,
    end: datetime | None = None,
) -> list[dict[str, object]]:
    """Simulate; write what a path is given for. Returns a row of figures per tenant."""
    settings = Simulation(tenants=tenants, builds=builds, days=days, seed=seed)
    simulated = list(simulate(settings if end is None else replace(settings, end=end)))
    if events is not None:
        write_events((event for queued, completed, _ in simulated for event in (queued, completed)), events)
    if truth is not None:
        truth.parent.mkdir(parents=True, exist_ok=True)
        truth.write_text("".join(json.dumps(asdict(fact)) + "\n" for _, _, fact in simulated), encoding="utf-8")
    by_tenant: defaultdict[str, list[Truth]] = defaultdict(list)
    for _, _, fact in simulated:
        by_tenant[fact.tenant_id].append(fact)
    return [
        {
            "tenant": tenant,
            "builds": len(facts),
            "passed": sum(fact.passed for fact in facts),
            "slowed": sum(fact.slowed for fact in facts),
            "median_seconds": round(float(np.median([fact.duration_seconds for fact in facts if fact.passed])), 1)
            if any(fact.passed for fact in facts)
            else None,
            "written": str(events) if events else "nothing (give --events)",
        }
        for tenant, facts in by_tenant.items()
    ]


def parse_end(text: str) -> datetime:
    """A moment from ISO 8601 (UTC unless it says otherwise) or "now". Raises ValueError."""
    if text == "now":
        return datetime.now(UTC).replace(microsecond=0)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
