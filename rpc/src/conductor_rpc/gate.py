"""Who is let in to be worked for: a place, and the tenant's rate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from conductor_rpc import names
from conductor_rpc.admission import Admission, Place
from conductor_rpc.call import Call
from conductor_rpc.concurrency_limit import AdaptiveLimit, FixedLimit, Limit
from conductor_rpc.exceptions import Overloaded, RateLimited, TenantOverloaded
from conductor_rpc.rate_limit import TenantRates
from conductor_rpc.settings import RpcSettings
from conductor_rpc.telemetry import Telemetry
from conductor_rpc.work import OTHER, Work

_MOST_COMING = 0.75
"""Of what is free."""
_REASONS = {Overloaded: "overloaded", TenantOverloaded: "tenant_overloaded", RateLimited: "rate_limited"}


class Gate:
    """Lets calls in, and learns from those that were answered how many it may let in."""

    def __init__(self, settings: RpcSettings, telemetry: Telemetry, work: Mapping[str, Work]) -> None:
        """``work``: what calls of a method are, by its full name with a slash at its beginning."""
        self._telemetry, self._work, self._settings = telemetry, work, settings
        self._rates = TenantRates(
            settings.tenant_questions_per_second, settings.tenant_burst_seconds, settings.tenant_rates
        )
        self.calls = Admission(_limit_of(settings), settings.batch_share)
        self.streams = Admission(FixedLimit(settings.max_stream_count), batch_share=1.0, lasting=True)
        """What is open for as long as its caller likes must not take the places of work."""
        telemetry.observe(names.IN_FLIGHT, lambda: self.calls.taken_count)
        telemetry.observe(names.CONCURRENCY_LIMIT, lambda: self.calls.limit.count(time.monotonic()))

    def room(self, coming_count: int) -> int:
        """How many more calls there is room for, while so many are coming that have no place yet.

        These may be of nobody, and never come: some room is kept free of them.
        """
        free = max(0, self.calls.limit.count(time.monotonic()) - self.calls.taken_count)
        return free - min(coming_count, int(free * _MOST_COMING))

    def places_of(self, method: str) -> Admission:
        """Where calls of a method with one request take their places."""
        return self.streams if self._work.get(method, OTHER).open_ended else self.calls

    def stream_item_count(self) -> int:
        """How many items one stream may have under way: a stream is held back where calls would be refused."""
        limit = self.calls.limit.count(time.monotonic())
        return max(1, self._settings.max_stream_item_count * limit // self._settings.max_in_flight_count)

    def admit(self, admission: Admission, call: Call, tenant_id: str, request: Any | None) -> Place:
        """A place for the call; ``request`` is None for a stream, whose questions come later.

        Raises:
            Overloaded: there is none.
            TenantOverloaded: the tenant has its share.
            RateLimited: the tenant asks too much.
        """
        work = self._work.get(call.method, OTHER)
        criticality = work.criticality_of(call.metadata)
        try:
            if request is None:
                return admission.admit(tenant_id, criticality)
            count = work.question_count(request)
            place = admission.admit(tenant_id, criticality, count)
            try:
                self._rates.take(tenant_id, count)
            except RateLimited:
                admission.release(place)
                raise
        except (Overloaded, TenantOverloaded, RateLimited) as refused:
            attributes = {names.REASON: _REASONS[type(refused)], names.CRITICALITY_CLASS: criticality.value}
            self._telemetry.count(names.REFUSALS, attributes)
            raise
        return place

    def release(self, admission: Admission, call: Call, place: Place, *, answered: bool) -> None:
        """Take the place back, and note how long the call took.

        One that was given up at its deadline took at least as long; one that failed for another reason says nothing.
        """
        if self._work.get(call.method, OTHER).alike and (answered or call.deadline.remaining_seconds() <= 0):
            now = time.monotonic()
            admission.limit.sample(now - call.began, admission.taken_count, now, answered=answered)
        admission.release(place)


def _limit_of(settings: RpcSettings) -> Limit:
    most = settings.max_in_flight_count
    if settings.concurrency_limit == "fixed":
        return FixedLimit(most)
    return AdaptiveLimit(settings.min_in_flight_count, most, settings.target_latency_seconds)
