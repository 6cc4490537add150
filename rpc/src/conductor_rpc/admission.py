"""How much work is taken on, and whose."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from conductor_rpc.concurrency_limit import Limit
from conductor_rpc.exceptions import Overloaded, TenantOverloaded
from conductor_rpc.work import Criticality

_RESERVED_SHARE = 0.25
_RETRY_SECONDS = (0.05, 0.15)
"""Spread, so that those who were refused together do not come back together."""
_QUESTIONS_PER_PLACE = 8
"""Of a call with many: each costs a fraction of a call with one."""


@dataclass(slots=True)
class Place:
    """What a call that was admitted holds."""

    tenant_id: str
    size: int


class Admission:
    """Bounds the calls under way, fairly by tenant; beyond the bound the answer is a refusal at once, never a queue.

    A quarter of the bound is kept free of any tenant's backlog. The rest is split evenly over the tenants that have
    calls under way, so one that floods is refused while the others' calls still find room. Batch work is let in only
    while there is plenty of room, so it is refused first. A call of many questions takes several places.

    Places that last can't be split anew as others come. Of them no tenant gets more than are left for all others
    (dynamic thresholds: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches",
    1998): each that takes all it may leaves half.
    """

    def __init__(self, limit: Limit, batch_share: float = 0.5, *, lasting: bool = False) -> None:
        """``batch_share``: of the limit, up to which batch work is let in. ``lasting``: places are held for long."""
        self.limit = limit
        self._batch_share, self._lasting = batch_share, lasting
        self._by_tenant: dict[str, int] = {}
        self.in_flight_count = 0
        self.taken_count = 0
        """Places: a call of many questions takes several."""

    def admit(
        self, tenant_id: str, criticality: Criticality = Criticality.INTERACTIVE, question_count: int = 1
    ) -> Place:
        """Take a place for one call; ``release`` gives it back.

        Raises:
            Overloaded: there is no place.
            TenantOverloaded: the tenant has its share already.
        """
        limit = self.limit.count(time.monotonic())
        room = limit if criticality is Criticality.INTERACTIVE else max(1, int(limit * self._batch_share))
        held = self._by_tenant.get(tenant_id, 0)
        shared = max(1, limit - int(limit * _RESERVED_SHARE))
        share = max(1, min(shared // (len(self._by_tenant) + (held == 0)), room))
        if self._lasting:
            share = max(1, min(share, (limit - self.taken_count + held) // 2))
        # A batch larger than all that its tenant may have gets in where it is the only one.
        size = min(-(-question_count // _QUESTIONS_PER_PLACE), share)
        if held + size > share:
            raise TenantOverloaded(share, random.uniform(*_RETRY_SECONDS))  # noqa: S311 - no secret
        if self.taken_count + size > room:
            raise Overloaded(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - no secret
        self._by_tenant[tenant_id] = held + size
        self.taken_count += size
        self.in_flight_count += 1
        return Place(tenant_id, size)

    def release(self, place: Place) -> None:
        """Give back the place of a call that was admitted."""
        self.in_flight_count -= 1
        self.taken_count -= place.size
        left = self._by_tenant[place.tenant_id] - place.size
        if left:
            self._by_tenant[place.tenant_id] = left
        else:
            del self._by_tenant[place.tenant_id]
