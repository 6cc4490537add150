"""The log of a process: lines of text for people, or lines of JSON for what collects logs.

A line is written in one piece, is bounded, and holds nothing that a caller sent as it was sent: line ends are escaped.
Secrets are hidden: an address in a library's error may hold a password.
Within a call it carries the ids of the call's trace, which is then kept.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from conductor_client.redaction import redacted
from conductor_client.settings import ConductorSettings
from conductor_rpc.call import current_call
from conductor_rpc.tracing import ids_of

_MOST_CHARACTERS = 8_192
"""Of a message, and of an exception's text, which is cut at its beginning: its end says what happened."""
_FIELDS = "conductor_fields"


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class LogSettings(ConductorSettings):
    """How a process logs."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least severe level that is logged."""
    log_format: LogFormat | None = None
    """`text` or `json`, a line for each record; None is text on a terminal, JSON elsewhere."""


def configure_logging(settings: LogSettings) -> None:
    """Log to standard error, one line per record; standard output is for results."""
    chosen = settings.log_format or (LogFormat.TEXT if sys.stderr.isatty() else LogFormat.JSON)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if chosen is LogFormat.JSON else TextLines())
    logging.basicConfig(handlers=[handler], level=settings.log_level)


def fields(**values: Any) -> dict[str, Any]:
    """More fields of a line in JSON, as the ``extra`` of a record; in a line of text they are left out."""
    return {_FIELDS: values}


class TextLines(logging.Formatter):
    """Time, level, logger, message; the text of an exception follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """The line without an exception's text."""
        record.message = _one_line(record.message)
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """An object on each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()[:_MOST_CHARACTERS]),
        }
        call = current_call()
        more = getattr(record, _FIELDS, {})
        if call is not None and not more:
            trace_id, span_id = ids_of(call)
            line |= {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}
            line["method"] = call.method.removeprefix("/")
        line |= more
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))[-_MOST_CHARACTERS:]
        return json.dumps(line, default=str)


def _one_line(text: str) -> str:
    return text[:_MOST_CHARACTERS].replace("\r", "\\r").replace("\n", "\\n")
