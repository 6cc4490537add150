"""Native partitions and hypertables hold the same, whoever writes."""

from __future__ import annotations

import random

import psycopg

from conductor_warehouse.ingestion import ingest
from warehouse.catalogue import TENANTS, random_events, state
from warehouse.variants import variant, variant_warehouse  # noqa: F401

EVENTS = random_events(17, 500)
EXPECTED: dict[str, str] = {}
"""The first variant's tables: the other's must be equal."""


def test_bound_to_their_tenants_and_in_any_order_events_end_the_same(
    variant_warehouse: psycopg.Connection,  # noqa: F811
    warehouse: psycopg.Connection,
) -> None:
    """Corrections delete through a tenant's views, which each variant plans in its own way."""
    ingest(warehouse, EVENTS)
    expected = state(warehouse)
    shuffled = random.Random(17).sample(EVENTS, len(EVENTS))
    for begin in range(0, len(shuffled), 40):
        for tenant in TENANTS:
            own = [event for event in shuffled[begin : begin + 40] if f'"tenantid": "{tenant}"'.encode() in event]
            ingest(variant_warehouse, own, tenant)
    assert state(variant_warehouse) == expected
    assert EXPECTED in ({}, expected)
    EXPECTED.update(expected)
