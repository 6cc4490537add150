"""The JSON form of events, read fast.

``json_format`` of protobuf is the authority on what proto JSON means, and is pure Python: 100 µs and more for an event,
30 µs for each test result. Here the usual spelling of each field is read by converters that are compiled once from the
message's descriptor. Whatever is not spelt the usual way is *declined*, and left to ``json_format``, which takes it or
says what is wrong with it. What is taken here equals what ``json_format`` would have made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

M = TypeVar("M", bound=Message)
_Convert = Callable[[Any], Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.(?:[0-9]{3}|[0-9]{6}))?Z").fullmatch
_SPAN = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?s").fullmatch
_INTEGER = re.compile(r"-?[0-9]{1,19}").fullmatch


class Declined(ValueError):
    """Not spelt the usual way: ask ``json_format``."""


def read_object(text: bytes) -> dict[str, Any]:
    """A JSON object; raises :class:`Declined` for anything else, and for JSON that is out of the ordinary."""
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Declined from error
    if type(content) is not dict:
        raise Declined
    return content


def to_message(content: Any, kind: type[M]) -> M:
    """The message that the content spells; raises :class:`Declined`."""
    try:
        return kind(**_converter(kind.DESCRIPTOR)(content))
    except (TypeError, ValueError, OverflowError) as error:
        raise Declined from error


def to_time(text: Any) -> Timestamp:
    """An RFC 3339 time in UTC; raises :class:`Declined` or ValueError."""
    if type(text) is not str or not _TIME(text):
        raise Declined
    past = datetime.fromisoformat(text) - _EPOCH
    return Timestamp(seconds=past.days * 86_400 + past.seconds, nanos=past.microseconds * 1000)


def _to_span(text: Any) -> dict[str, int]:
    found = _SPAN(text) if type(text) is str else None
    if found is None:
        raise Declined
    whole, fraction = found.groups()
    return {"seconds": int(whole), "nanos": int(fraction.ljust(9, "0")) if fraction else 0}


def _to_text(value: Any) -> str:
    if type(value) is not str:
        raise Declined
    return value


def _to_integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is str and _INTEGER(value):
        return int(value)
    raise Declined


def _to_number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise Declined


def _to_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Declined
    return value


_SCALARS: Mapping[int, _Convert] = {
    FieldDescriptor.TYPE_STRING: _to_text,
    FieldDescriptor.TYPE_INT32: _to_integer,
    FieldDescriptor.TYPE_INT64: _to_integer,
    FieldDescriptor.TYPE_DOUBLE: _to_number,
    FieldDescriptor.TYPE_BOOL: _to_boolean,
}
_MESSAGES: Mapping[str, _Convert] = {
    "google.protobuf.Timestamp": to_time,
    "google.protobuf.Duration": _to_span,
}


@lru_cache(maxsize=256)
def _converter(descriptor: Descriptor) -> _Convert:
    """Makes the arguments of the message's constructor from a JSON object."""
    if descriptor.full_name in _MESSAGES:
        return _MESSAGES[descriptor.full_name]
    fields: dict[str, tuple[str, _Convert]] = {}
    for field in descriptor.fields:
        fields[field.json_name] = fields[field.name] = (field.name, _field_converter(field))

    def convert(content: Any) -> dict[str, Any]:
        if type(content) is not dict:
            raise Declined
        arguments = {}
        for key, value in content.items():
            name, convert_value = fields[key] if key in fields else _decline()
            if name in arguments:
                raise Declined
            arguments[name] = convert_value(value)
        return arguments

    return convert


def _decline() -> tuple[str, _Convert]:
    raise Declined


def _field_converter(field: FieldDescriptor) -> _Convert:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        one = _converter(field.message_type)
    elif field.enum_type is not None:
        one = _enum_converter({value.name: value.number for value in field.enum_type.values})
    else:
        one = _SCALARS.get(field.type, _decline_value)
    return _list_converter(one) if field.is_repeated else one


def _decline_value(_: Any) -> Any:
    raise Declined


def _enum_converter(numbers: Mapping[str, int]) -> _Convert:
    def convert(value: Any) -> int:
        if type(value) is not str or value not in numbers:
            raise Declined
        return numbers[value]

    return convert


def _list_converter(one: _Convert) -> _Convert:
    def convert(values: Any) -> list[Any]:
        if type(values) is not list:
            raise Declined
        return [one(value) for value in values]

    return convert
