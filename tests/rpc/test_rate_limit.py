"""Token buckets: what they let through, whoever asks when."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_rpc.exceptions import RateLimited
from conductor_rpc.rate_limit import TenantRates

RATES, PAUSES = st.floats(0.1, 1000), st.floats(0, 2)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def let_in(rates: TenantRates, count: int = 1) -> bool:
    try:
        rates.take("acme", count)
    except RateLimited:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(RATES, st.floats(0.01, 3), st.lists(PAUSES, min_size=1, max_size=100))
def test_never_more_than_the_rate_and_a_burst(rate, burst_seconds, pauses):
    clock = Clock()
    rates = TenantRates(rate, burst_seconds, {}, clock)
    moments = []
    for pause in pauses:
        clock.now += pause / rate
        if let_in(rates):
            moments.append(clock.now)
    for first, begin in enumerate(moments):
        for last in range(first, len(moments)):
            most = rate * (moments[last] - begin) + max(1.0, rate * burst_seconds)
            assert last - first + 1 <= most + 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(RATES, st.floats(0.01, 3), st.lists(st.floats(1.0, 5.0), max_size=50))
def test_who_keeps_to_the_rate_is_never_refused(rate, burst_seconds, pauses):
    clock = Clock()
    rates = TenantRates(rate, burst_seconds, {}, clock)
    for pause in pauses:
        clock.now += pause / rate * (1 + 1e-9)
        assert let_in(rates)


@settings(max_examples=60, deadline=None)
@given(RATES, st.floats(0.01, 3), st.integers(1, 1000))
def test_who_waits_as_told_is_let_in(rate, burst_seconds, count):
    clock = Clock()
    rates = TenantRates(rate, burst_seconds, {}, clock)
    rates.take("acme", count)
    while True:
        try:
            rates.take("acme")
        except RateLimited as refused:
            told = refused.retry_seconds
            break
    clock.now += told * 0.9
    assert not let_in(rates)
    clock.now += told * 0.1 + 1e-6
    assert let_in(rates)


def test_tenants_have_rates_of_their_own_and_are_forgotten():
    clock = Clock()
    rates = TenantRates(1, 1, {"large": 100, "free": 0}, clock)
    for tenant, often in {"small": 1, "large": 100, "free": 1000}.items():
        for _ in range(often):
            rates.take(tenant)
    for tenant in ("small", "large"):
        with pytest.raises(RateLimited):
            rates.take(tenant)
    for number in range(30_000):
        clock.now += 0.01
        rates.take(f"passing-{number}")
    assert len(rates._full_at) <= 10_000


def test_a_call_costs_the_same_however_many_tenants_wait():
    """Those who wait can't be forgotten, so looking for whom to forget finds nobody."""

    def seconds(tenant_count: int) -> float:
        rates = TenantRates(1, 1, {}, Clock())
        for number in range(tenant_count):
            rates.take(f"waiting-{number}", 1000)
        began = time.process_time()
        for number in range(300):
            rates.take(f"next-{number}")
        return time.process_time() - began

    assert seconds(30_000) < 30 * seconds(3_000)
