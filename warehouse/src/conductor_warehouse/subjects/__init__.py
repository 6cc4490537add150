"""What events tell of: a module for each kind of subject. A new kind is a new module, listed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from conductor_features.views import VIEWS
from conductor_warehouse.events import Event
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.subjects import (
    builds,
    change_requests,
    deployments,
    incidents,
    quality,
    quarantines,
    tenants,
    tests,
    usage,
)

_MODULES = (tenants, builds, tests, quarantines, quality, usage, deployments, incidents, change_requests)
_WITH_FEATURES = (builds, tests, quarantines, quality, usage)


def wanted(events: Sequence[Event]) -> dict[str, Touched]:
    """The feature rows that the events themselves ask for, by the key of their view. Reads and writes nothing."""
    touched = {view.key: Touched() for view in VIEWS.values()}
    for module in _WITH_FEATURES:
        module.want(touched, [event for event in events if event.type in module.EVENT_TYPES])
    return touched


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store what the events tell of; returns what that means for each feature view, by its key.

    The order of events does not matter: of two that tell the same of a subject, the greatest (time, source, id) counts.
    """
    touched: dict[str, Touched] = {}
    for module in _MODULES:
        own = [event for event in events if event.type in module.EVENT_TYPES]
        if own:
            for key, what in module.store(connection, own).items():
                if key in touched:
                    touched[key].update(what)
                else:
                    touched[key] = what
    return touched
