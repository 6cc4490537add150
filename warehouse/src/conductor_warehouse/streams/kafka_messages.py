"""Kafka messages as events, by the Kafka binding of CloudEvents.

Structured: the value is the event as JSON. Binary: the value is the event's data, its attributes are headers ``ce_…``.
"""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Message

_ATTRIBUTE = "ce_"


def to_event(message: Message[Any, Any]) -> bytes:
    """The event as JSON. A message that holds none becomes a dead letter that shows it: a tombstone has no value."""
    value, headers = message.value(), _headers(message)
    if value is None:
        return _shown(message, headers)
    if f"{_ATTRIBUTE}specversion" not in headers:
        return value
    try:
        data = json.loads(value.decode())
    except (ValueError, RecursionError):
        return _shown(message, headers)
    attributes = {name.removeprefix(_ATTRIBUTE): text for name, text in headers.items() if name.startswith(_ATTRIBUTE)}
    return json.dumps(attributes | {"data": data}).encode()


def _headers(message: Message[Any, Any]) -> dict[str, str]:
    found: Any = message.headers() or []
    return {name: (value or b"").decode(errors="replace") for name, value in found}


def _shown(message: Message[Any, Any], headers: dict[str, str]) -> bytes:
    key, value = message.key(), message.value()
    return json.dumps(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": None if key is None else key.decode(errors="replace"),
            "headers": headers,
            "value": None if value is None else value.decode(errors="replace"),
        }
    ).encode()
