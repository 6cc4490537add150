"""Calls of one server: latency at fixed rates, and how many it can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from conductor_workbench.bench.children import Child
from conductor_workbench.bench.figures import Figures, significant, spread, windows
from conductor_workbench.bench.load import Endpoint, Measured, closed_loop, open_loop

IN_FLIGHT = 32
"""Requests under way when saturating."""
RATE_PER_S = 100.0
_SHARES = (0.5, 0.7)
_PATIENCE_SECONDS = 300.0
"""Beyond the time of a load, for warming up and for what is still under way at its end."""


@dataclass(frozen=True)
class Caller:
    """Measures one endpoint from the generator's process."""

    generator: Child
    endpoint: Endpoint
    process_id: int
    """The server's, to tell what a request costs it."""

    def at_rate(self, rate_per_s: float, seconds: float) -> Figures:
        """Open loop: latency from the moment that each request was due, whether the generator was late or not."""
        measured, cpu_ms = self._measure(open_loop(self.endpoint, rate_per_s, seconds))
        return {
            "rate_per_s": significant(rate_per_s),
            **_common(measured, cpu_ms),
            "generator_late": spread(measured.late_seconds, "ms", 1e3),
        }

    def saturate(self, seconds: float, in_flight: int = IN_FLIGHT) -> Figures:
        """Closed loop: answers a second in several windows, with so many requests always under way."""
        measured, cpu_ms = self._measure(closed_loop(self.endpoint, in_flight, seconds))
        return {
            "in_flight": in_flight,
            "throughput": windows(measured.windows_per_s, "per_s"),
            **_common(measured, cpu_ms),
        }

    def profile(self, seconds: float) -> Figures:
        """Saturation, then latency at 100 a second and at half and seven tenths of what saturation gave."""
        found = self.brief(seconds)
        return found | self.at_shares(found["saturation"], seconds)

    def at_shares(self, saturation: Figures, seconds: float) -> Figures:
        """Latency at half and seven tenths of what saturation gave."""
        most = saturation["throughput"]["median_per_s"]
        return {f"saturation_{share * 100:.0f}_percent": self.at_rate(share * most, seconds) for share in _SHARES}

    def brief(self, seconds: float) -> Figures:
        """Saturation, and latency at 100 a second."""
        return {"saturation": self.saturate(seconds), "rate_100": self.at_rate(RATE_PER_S, seconds)}

    def _measure(self, request: dict[str, Any]) -> tuple[Measured, float]:
        before = _cpu_seconds(self.process_id)
        measured = Measured(**self.generator.ask(request, request["seconds"] + _PATIENCE_SECONDS))
        return measured, (_cpu_seconds(self.process_id) - before) / measured.requests * 1e3


def _cpu_seconds(process_id: int) -> float:
    """Of a process and those below it: workers are."""
    process = psutil.Process(process_id)
    used = [found.cpu_times() for found in (process, *process.children(recursive=True))]
    return sum(times.user + times.system for times in used)


def _common(measured: Measured, cpu_ms: float) -> Figures:
    return {
        "latency": spread(measured.latency_seconds, "ms", 1e3),
        "errors": measured.errors,
        "server_cpu_ms_per_request": significant(cpu_ms),
        "generator_cpu_ms_per_request": significant(measured.cpu_seconds / measured.requests * 1e3),
    }
