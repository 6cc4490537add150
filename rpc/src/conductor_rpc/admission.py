"""How much work is taken on, and whose."""

from __future__ import annotations

from conductor_rpc.exceptions import Overloaded, TenantOverloaded

_RESERVED_SHARE = 0.25
_RETRY_SECONDS = 0.1


class Admission:
    """Bounds the calls under way, fairly by tenant; beyond the bound the answer is a refusal at once, never a queue.

    A quarter of the bound is kept free of any tenant's backlog. The rest is split evenly over the tenants that have
    calls under way, so one that floods is refused while the others' calls still find room.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shared = max(1, limit - int(limit * _RESERVED_SHARE))
        self._by_tenant: dict[str, int] = {}
        self.in_flight_count = 0

    def admit(self, tenant_id: str) -> None:
        """Take a place for one call; ``release`` gives it back.

        Raises:
            Overloaded: there is no place.
            TenantOverloaded: the tenant has its share already.
        """
        held = self._by_tenant.get(tenant_id, 0)
        share = max(1, self._shared // (len(self._by_tenant) + (held == 0)))
        if held >= share:
            raise TenantOverloaded(share, _RETRY_SECONDS)
        if self.in_flight_count >= self._limit:
            raise Overloaded(_RETRY_SECONDS)
        self._by_tenant[tenant_id] = held + 1
        self.in_flight_count += 1

    def release(self, tenant_id: str) -> None:
        """Give back the place of a call that was admitted."""
        self.in_flight_count -= 1
        if self._by_tenant[tenant_id] == 1:
            del self._by_tenant[tenant_id]
        else:
            self._by_tenant[tenant_id] -= 1
