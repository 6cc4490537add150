"""Bounds on a message that are held to before it is decoded.

Two bytes are enough for an empty item of a list, which takes a hundred and more once it is decoded: a few megabytes of
them would take gigabytes, and half a minute. So the lists of a large message are counted on the wire. No more of it is
looked at than it takes to know that no list is too long; what the message means is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from conductor_rpc.exceptions import BatchTooLarge, InvalidRequest, Violation
from conductor_rpc.rules.engine import TABLES, Batch

SMALL_BYTES = 4 * 1024
"""A message up to this size can't hold enough to matter."""
_SMALL_PART_BYTES = 512
"""Nor can a message within a message up to this size, as there are not many."""
_MANY = 1024
"""The longest list that has no rule of its own, and the most fields of one message that this release does not know."""
_MOST_UNKNOWN = 16 * _MANY
"""Of a message with all that is in it: each is looked at by itself, for less than a microsecond."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
_MORE = 0x80
"""The bit of a varint's byte that says that it goes on."""
_FIXED_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_FLOAT,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_BOOL,
    }
)
"""Their list takes no more room decoded than packed."""


class _Field(NamedTuple):
    name: str
    maximum: int
    """How often it may stand there."""
    packed_bytes: int
    """How long its packed form may be; 0 for any length, or where it has none."""
    within: Any
    """What it holds, where that is a message; else None."""
    is_batch: bool


def require_bounds(content: bytes, message: type[Message]) -> None:
    """Hold the bytes of a message to its bounds.

    Raises:
        DecodeError: they are no message. Groups, which proto3 does not have, are none either.
        InvalidRequest: a list is too long, or something stands twice that may stand once.
        BatchTooLarge: a batch is.
    """
    if len(content) <= SMALL_BYTES:
        return
    try:
        _walk(content, 0, len(content), message.DESCRIPTOR, "", _MOST_UNKNOWN)
    except (IndexError, RecursionError):
        raise DecodeError from None


def _walk(content: bytes, at: int, end: int, descriptor: Any, path: str, most_unknown: int) -> int:
    """How many unknown fields it holds, with all that is in it."""
    fields = _fields(descriptor)
    seen: dict[int, int] = {}
    unknown_count = within_count = 0
    while at < end:
        tag = content[at]
        number, begin, length = _part(content, at, end)
        at = begin + length
        field = fields.get(number)
        if field is None:
            unknown_count += 1
            if unknown_count > _MANY:
                raise _invalid(path or "the request", f"must hold at most {_MANY} unknown fields")
            if unknown_count + within_count > most_unknown:
                raise _invalid("the request", f"must hold at most {_MOST_UNKNOWN} unknown fields in all")
            continue
        count = seen.get(number, 0) + 1
        if field.maximum > _MANY and field.within is None and tag & (_MORE | 7) == _LENGTH:
            alike_count, at = _alike(content, at, end, tag, field.maximum)
            count += alike_count
        seen[number] = count
        if count > field.maximum:
            raise _too_many(field, path)
        if 0 < field.packed_bytes < length:
            raise _invalid(path + field.name, f"must hold at most {_MANY} items")
        if field.within is not None and length > _SMALL_PART_BYTES:
            index = f"[{count - 1}]" if field.maximum > 1 else ""
            left = most_unknown - unknown_count - within_count
            within_count += _walk(content, begin, begin + length, field.within, f"{path}{field.name}{index}.", left)
    return unknown_count + within_count


def _part(content: bytes, at: int, end: int) -> tuple[int, int, int]:
    """The field that begins there: number, where the value begins, and its length; 0 for a varint's."""
    tag, at = _varint(content, at)
    kind = tag & 7
    if kind == _LENGTH:
        length, at = _varint(content, at)
    elif kind == _VARINT:
        length, at = 0, _varint(content, at)[1]
    elif kind in _FIXED_BYTES:
        length = _FIXED_BYTES[kind]
    else:
        raise DecodeError
    if at + length > end:
        raise DecodeError
    return tag >> 3, at, length


def _alike(content: bytes, at: int, end: int, tag: int, most: int) -> tuple[int, int]:
    """How many more texts follow of the same list, up to a few too many, and where the last one ends.

    A list of ten thousand is passed in a fifth of the time that its items would take one by one.
    """
    count = 0
    while at < end and content[at] == tag and count <= most:
        length = content[at + 1]
        if length < _MORE:
            at += length + 2
        elif (more := content[at + 2]) < _MORE:
            at += (length & 0x7F | more << 7) + 3
        else:
            break
        count += 1
    if at > end:
        raise DecodeError
    return count, at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    byte = content[at]
    if byte < _MORE:  # nearly all are that short
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for position in range(at + 1, at + _LONGEST_VARINT):
        byte = content[position]
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            return value, position + 1
        shift += 7
    raise DecodeError


@lru_cache(maxsize=256)
def _fields(descriptor: Any) -> Mapping[int, _Field]:
    table: Mapping[str, Any] = next((table for kind, table in TABLES.items() if descriptor == kind.DESCRIPTOR), {})
    return {field.number: _field(field, table.get(field.name)) for field in descriptor.fields}


def _field(field: FieldDescriptor, rule: Any) -> _Field:
    maximum = getattr(rule, "maximum", _MANY) if field.is_repeated else 1
    within = field.message_type if field.type == FieldDescriptor.TYPE_MESSAGE else None
    varints = field.is_repeated and within is None and field.type not in _FIXED_TYPES
    packs = varints and field.type not in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
    packed_bytes = _LONGEST_VARINT * _MANY if packs else 0
    return _Field(field.name, maximum, packed_bytes, within, isinstance(rule, Batch))


def _too_many(field: _Field, path: str) -> InvalidRequest | BatchTooLarge:
    name = path + field.name
    if field.is_batch:
        return BatchTooLarge(name, None, field.maximum)
    if field.maximum == 1:
        return _invalid(name, "must stand there once")
    return _invalid(name, f"must hold at most {field.maximum} items")


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
