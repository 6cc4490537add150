"""Log lines: one for each record, with the ids of the call's trace, bounded, and of JSON where that is asked for."""

from __future__ import annotations

import io
import json
import logging

import pytest

from conductor_rpc import call_log, logs, names
from conductor_rpc.call import NO_DEADLINE, Call
from conductor_rpc.call_log import CallLog
from conductor_rpc.logs import JsonLines, LogFormat, LogSettings, TextLines, configure_logging, fields
from conductor_rpc.telemetry import Telemetry
from rpc.harness import bearer, request, serving
from rpc.traced import METHOD, Traced

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
LOGGER = logging.getLogger("tests.lines")


@pytest.fixture
def lines():
    """What is logged, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


def record(message, *arguments, **more):
    return logging.getLogger("a.b").makeRecord("a.b", logging.ERROR, "f", 1, message, arguments, None, extra=more)


def test_a_line_of_json_for_each_record(lines):
    LOGGER.error("two\nlines %s", "héllo", extra=fields(more=3))
    [line] = lines()
    assert line["message"] == "two\nlines héllo"
    assert (line["level"], line["logger"], line["more"]) == ("ERROR", "tests.lines", 3)
    assert line["time"].endswith("+00:00")
    assert "trace_id" not in line, "nobody's call"


def test_lines_are_bounded_and_an_exception_stands_in_its_line(lines):
    try:
        raise ValueError("x" * 100_000 + "the end")
    except ValueError:
        LOGGER.exception("y" * 100_000)
    [line] = lines()
    assert len(json.dumps(line)) < 20_000
    assert line["exception"].endswith("the end")


def test_nobody_writes_lines_of_text_but_us():
    """What is logged may hold what a caller sent."""
    line = TextLines().format(record("build %s", "x\n2026-01-01 00:00:00 INFO conductor: all is well\r\n"))
    assert "\n" not in line
    assert "\\n2026" in line


async def test_a_line_within_a_call_points_to_the_trace_which_is_kept(lines):
    traced = Traced()

    async def log(_):
        LOGGER.warning("odd")

    async with serving(traced.telemetry) as running, running.stub() as stub:
        running.predictions.behaviour = log
        await stub.PredictBuildDuration(request())
        await stub.PredictBuildDuration(request(), metadata=(("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-00"),))
    own, callers = [line for line in lines() if line["message"] == "odd"]
    kept = {f"{span.context.trace_id:032x}": span for span in traced.calls}
    assert callers["trace_id"] == TRACE_ID
    for line in (own, callers):
        assert line["method"] == METHOD
        assert f"{kept[line['trace_id']].context.span_id:016x}" == line["span_id"]
        assert kept[line["trace_id"]].attributes[names.KEPT_FOR] == names.LOGGED


async def test_a_slow_call_tells_its_stages_and_what_answered(lines):
    traced = Traced(slow_seconds=0)
    telemetry = traced.telemetry
    telemetry._call_log = CallLog(slow_seconds=0)

    async def work(_):
        with telemetry.stage(names.MODEL_RUN):
            telemetry.annotate({names.MODEL_VERSION: "v7"})

    async with serving(telemetry) as running, running.stub() as stub:
        running.predictions.behaviour = work
        await stub.PredictBuildDuration(request())
    [line] = [line for line in lines() if line["logger"] == "conductor.calls"]
    [span] = traced.calls
    assert line["trace_id"] == f"{span.context.trace_id:032x}"
    assert span.attributes[names.KEPT_FOR] == names.SLOW, "not because it was logged"
    assert (line["method"], line["code"], line[names.MODEL_VERSION]) == (METHOD, "OK", "v7")
    assert set(line["stages_ms"]) == {names.RECEIVE, names.ADMISSION, names.MODEL_RUN}
    assert 0 < line["stages_ms"][names.MODEL_RUN] < line["duration_ms"]


async def test_no_secret_and_no_tenant_is_logged(lines, secure, keys, authority):
    telemetry = Telemetry(call_log=CallLog(slow_seconds=0))
    token = keys.token()

    async def fail(_):
        LOGGER.warning("about to fail")
        raise RuntimeError

    async with serving(telemetry, **secure) as running, running.stub(authority.credentials()) as stub:
        running.predictions.behaviour = fail
        call = stub.PredictBuildDuration(request(), metadata=bearer(token))
        assert (await call.code()).name == "INTERNAL"
    found = lines()
    assert "fault call" in next(line["message"] for line in found if line["logger"] == "conductor.calls")
    text = json.dumps(found)
    assert token not in text
    assert token.split(".")[2] not in text
    assert "acme" not in text


def test_lines_about_slow_calls_are_bounded_and_those_left_out_are_counted(lines, monkeypatch):
    monkeypatch.setattr(call_log, "_MOST_AT_ONCE", 3)
    log = CallLog(slow_seconds=0)
    for _ in range(10):
        log.ended(Call(f"/{METHOD}", {}, NO_DEADLINE), 99.9, 100.0)
    assert len(lines()) == 3
    log.ended(Call(f"/{METHOD}", {}, NO_DEADLINE), 101.0, 101.5)
    assert lines()[-1]["left_out"] == 7


@pytest.mark.parametrize(("chosen", "terminal", "kind"), [
    (None, True, TextLines), (None, False, JsonLines), (LogFormat.JSON, True, JsonLines), ("text", False, TextLines),
])  # fmt: skip
def test_text_on_a_terminal_json_elsewhere_unless_said(monkeypatch, chosen, terminal, kind):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logs.sys, "stderr", io.StringIO())
    monkeypatch.setattr(logs.sys.stderr, "isatty", lambda: terminal, raising=False)
    configure_logging(LogSettings(log_format=chosen))
    assert type(root.handlers[0].formatter) is kind
