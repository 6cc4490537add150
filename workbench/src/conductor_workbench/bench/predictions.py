"""The prediction server, beside an empty server that is driven by the same generator with messages of the same size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from conductor_workbench.bench import echo, tensors
from conductor_workbench.bench.calls import IN_FLIGHT, Caller
from conductor_workbench.bench.children import Child
from conductor_workbench.bench.echo_process import EchoProcess
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.load import Endpoint
from conductor_workbench.bench.scene import BATCH_SIZE, Scene
from conductor_workbench.bench.server_process import ServerProcess
from conductor_workbench.bench.tensors import tensor_request
from conductor_workbench.bench.tracing import measure_tracing

_UNARY = "/conductor.prediction.v1.PredictionService/PredictBuildDuration"
_STREAM = "/conductor.prediction.v1.PredictionService/StreamBuildDurationPredictions"
_BATCH = "/conductor.prediction.v1.PredictionService/BatchPredictBuildDurations"
MANY_ROWS = 2000
_CONNECTIONS = 8
"""To several workers: the kernel shares them out by chance."""
MOST_ITEMS = 128
"""Under way on one stream, as the server takes them unless told otherwise."""
_HEALTH = "/grpc.health.v1.Health/Check"

Say = Callable[[str], None]


class PredictionMeasurements:
    """Measures one scene's server with one generator."""

    def __init__(self, scene: Scene, generator: Child, seconds: float, say: Say) -> None:
        self._scene, self._generator, self._seconds, self._say = scene, generator, seconds, say
        self._keys = scene.platform.keys
        self._secure = Endpoint(
            target=scene.platform.prediction_target,
            method=_UNARY,
            payloads=scene.unary_payloads(),
            root_certificates=self._keys.ca_certificate.read_text(),
            headers=scene.headers(),
        )
        self._streamed = replace(self._secure, method=_STREAM, streamed=True)

    def unary(self) -> Figures:
        """Unary predictions with TLS and tokens, as installed: at rates, saturated, and without explanations."""
        self._say("Unary predictions")
        found = self._caller(self._secure).profile(self._seconds)
        plain = replace(self._secure, payloads=self._scene.unary_payloads(contribution_count=0))
        return found | {"without_contributions": self._caller(plain).brief(self._seconds)}

    def streamed(self) -> Figures:
        """The same predictions as items of one stream: at rates, and saturated with as many under way and more."""
        self._say("Streamed predictions")
        caller = self._caller(self._streamed)
        return caller.profile(self._seconds) | {"most_items": caller.saturate(self._seconds, in_flight=MOST_ITEMS)}

    def saturated(self, *, streamed: bool) -> Figures:
        """Predictions, as many as it can take, by calls or on a stream."""
        return self._caller(self._streamed if streamed else self._secure).saturate(self._seconds)

    def health(self) -> Figures:
        """Health checks at 100 a second."""
        self._say("Health checks")
        endpoint = replace(self._secure, method=_HEALTH, payloads=(b"",), headers=())
        return self._caller(endpoint).at_rate(100.0, self._seconds / 2)

    def batch(self) -> Figures:
        """Batches of 256, one after the other, with the explanations that a request has unless it says otherwise."""
        found: Figures = {"size": BATCH_SIZE}
        for name, count in (("with_contributions", None), ("without_contributions", 0)):
            self._say(f"Batches of {BATCH_SIZE}, {name.replace('_', ' ')}")
            payload = self._scene.batch_payload(count)
            caller = self._caller(replace(self._secure, method=_BATCH, payloads=(payload,)))
            figures = caller.saturate(self._seconds, in_flight=1)
            rows = figures["latency"]["count"] * BATCH_SIZE
            busy_seconds = figures["latency"]["mean_ms"] / 1e3 * figures["latency"]["count"]
            found[name] = figures | {"rows_per_s": significant(rows / busy_seconds), "request_bytes": len(payload)}
            found[name] |= caller.at_shares(figures, self._seconds)
        return found

    def tensors(self) -> Figures:
        """Raw tensors by the Open Inference Protocol: a row, with many calls at once; 2,000 rows in one call."""
        self._say("Raw tensors")
        found: Figures = {}
        for rows, in_flight in ((1, IN_FLIGHT), (MANY_ROWS, 1)):
            payload = tensor_request(self._scene.model, rows)
            caller = self._caller(replace(self._secure, method=tensors.METHOD, payloads=(payload,)))
            figures = caller.saturate(self._seconds, in_flight=in_flight)
            found[f"rows_{rows}"] = figures | {"request_bytes": len(payload)} | caller.at_shares(figures, self._seconds)
        return found

    def two_workers(self) -> Figures:
        """The same of two processes that share the port: predictions by calls and streamed, batches, tensors."""
        log = self._scene.logs / "two-workers.log"
        with ServerProcess(self._scene.platform.environment, log, keys=self._keys, workers=2) as server:

            def caller(endpoint: Endpoint) -> Caller:
                shared = replace(endpoint, target=server.target, connections=_CONNECTIONS)
                return Caller(self._generator, shared, server.pid)

            self._say("Two workers")
            batch = replace(self._secure, method=_BATCH, payloads=(self._scene.batch_payload(None),))
            rows = replace(self._secure, method=tensors.METHOD)
            return caller(self._secure).profile(self._seconds) | {
                "streamed": caller(self._streamed).saturate(self._seconds),
                "batch": caller(batch).saturate(self._seconds, in_flight=_CONNECTIONS),
                **{
                    f"tensors_rows_{count}": caller(
                        replace(rows, payloads=(tensor_request(self._scene.model, count),))
                    ).saturate(self._seconds, in_flight=in_flight)
                    for count, in_flight in ((1, IN_FLIGHT), (MANY_ROWS, _CONNECTIONS))
                },
            }

    def insecure(self) -> Figures:
        """Unary predictions of a server without TLS and tokens."""
        self._say("Unary predictions without TLS and tokens")
        log = self._scene.logs / "insecure.log"
        with ServerProcess(self._scene.platform.environment, log, keys=None) as server:
            endpoint = replace(self._secure, target=server.target, root_certificates="", headers=())
            return Caller(self._generator, endpoint, server.pid).brief(self._seconds)

    def traced(self) -> Figures:
        """Unary predictions of servers that trace, beside one that does not."""
        self._say("Unary predictions with tracing")
        return measure_tracing(self._scene, self._secure, self._generator, self._seconds)

    def echo(self, *, secure: bool) -> Figures:
        """The floor."""
        self._say(f"Empty echo server {'with' if secure else 'without'} TLS")
        answer = self._scene.answers()[0].SerializeToString()
        keys = self._keys if secure else None
        with EchoProcess(self._scene.logs / "echo.log") as server:
            endpoint = replace(self._secure, target=server.listen(answer, keys), method=echo.METHOD)
            if not secure:
                endpoint = replace(endpoint, root_certificates="", headers=())
            found = Caller(self._generator, endpoint, server.pid).brief(self._seconds)
        sizes = {"request_bytes": len(self._secure.payloads[0]), "response_bytes": len(answer)}
        return found | sizes

    def _caller(self, endpoint: Endpoint) -> Caller:
        return Caller(self._generator, endpoint, self._scene.platform.pid("serve"))
