"""How many questions a tenant may ask a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from conductor_rpc.exceptions import RateLimited

_MOST_REMEMBERED = 10_000
"""Tenants; those with a full bucket are forgotten beyond, or beyond twice as many as could not be."""


class TenantRates:
    """A token bucket for each tenant, kept as the moment at which it will be full again (GCRA, ITU-T I.371).

    Each process has its own: a tenant may ask n processes n times as much.
    """

    def __init__(
        self,
        per_second: float,
        burst_seconds: float,
        of_tenants: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What is allowed.

        Args:
            per_second: questions a second of a tenant; 0 for any number.
            burst_seconds: so many seconds' worth may come at once.
            of_tenants: the same of single tenants, instead of ``per_second``.
            clock: tells the time in seconds.
        """
        self._per_second, self._burst_seconds, self._of_tenants = per_second, burst_seconds, dict(of_tenants)
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._most = _MOST_REMEMBERED

    def take(self, tenant_id: str, question_count: int = 1) -> None:
        """Let a tenant ask so many questions. A batch is let in whole, and the next call waits the longer.

        Raises:
            RateLimited: it has asked too much; not before when it may ask again.
        """
        rate = self._of_tenants.get(tenant_id, self._per_second)
        if rate <= 0:
            return
        now = self._clock()
        full_at = max(self._full_at.get(tenant_id, now), now)
        # At least one question fits in, however low the rate.
        excess = full_at - now - max(self._burst_seconds - 1 / rate, 0.0)
        if excess > 1e-9:
            raise RateLimited(rate, excess)
        if len(self._full_at) >= self._most:
            self._full_at = {tenant: moment for tenant, moment in self._full_at.items() if moment > now}
            # So that all who came since share the cost of the next look.
            self._most = max(_MOST_REMEMBERED, 2 * len(self._full_at))
        self._full_at[tenant_id] = full_at + question_count / rate
