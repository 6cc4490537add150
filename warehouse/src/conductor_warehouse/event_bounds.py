"""Bounds on an event's data that are held to before it is made a message: an empty item of a list costs its sender two
bytes, and us hundreds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from conductor_rpc import rules
from conductor_rpc.exceptions import ConductorError

MAXIMUM_CONTAINERS = 500_000
"""Objects and lists that one event's JSON may hold: ten times as many as the longest list of results has."""
_MAXIMUM_DIGITS = 400
"""More than any number that a double can be close to has."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str) -> Any:
    """What a JSON text spells.

    Raises:
        ValueError: it is no JSON, or could not be told on: NaN, endless numbers, unpaired surrogates.
        RecursionError: it is nested too deeply.
    """
    if text.count("{") + text.count("[") > MAXIMUM_CONTAINERS:
        raise ValueError(f"must hold at most {MAXIMUM_CONTAINERS} objects and lists")
    content = json.loads(text, parse_constant=_refuse_constant, parse_int=_integer)
    if _SURROGATE.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("must not hold unpaired surrogates") from None
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAXIMUM_DIGITS:
        raise ValueError(f"must not hold numbers of more than {_MAXIMUM_DIGITS} digits")
    return int(digits)


def require_bytes(content: bytes, kind: type[Message]) -> None:
    """Raises:
    ValueError: a list in the bytes of a message is too long.
    DecodeError: they are no message.
    """
    try:
        rules.require_bounds(content, kind)
    except ConductorError as error:
        raise ValueError(str(error)) from error


def require_lists(content: Any, kind: type[Message]) -> None:
    """Raises:
    ValueError: a list in the JSON form of a message is too long.
    """
    if not isinstance(content, dict):
        return
    for name, maximum in _maxima(kind).items():  # type: ignore[arg-type]  # classes are hashable
        items = content.get(name)
        if isinstance(items, list) and len(items) > maximum:
            raise ValueError(f"{name}: must hold at most {maximum} items")


@lru_cache(maxsize=64)
def _maxima(kind: Any) -> Mapping[str, int]:
    """The longest list by its name, in both spellings that JSON may have."""
    table = rules.TABLES.get(kind, {})
    maxima = {}
    for field in kind.DESCRIPTOR.fields:
        maximum = getattr(table.get(field.name), "maximum", None)
        if field.is_repeated and maximum is not None:
            maxima[field.name] = maxima[field.json_name] = maximum
    return maxima
