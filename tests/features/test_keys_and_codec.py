"""The layout of the online store: nothing ambiguous, nothing changed goes unnoticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conductor_features.codec import CorruptValue, decode, decode_block, encode, value_bytes
from conductor_features.keys import PREFIX, entity_key, parse_key
from conductor_features.rows import FeatureRow, from_microseconds, to_microseconds

TEXT = st.text(max_size=12) | st.text(alphabet="0123456789:\x00a", max_size=6)
ENTITY = st.tuples(TEXT.filter(bool)) | st.lists(TEXT, min_size=1, max_size=4).filter(lambda parts: parts[0]).map(tuple)
SIGNED = st.integers(-(2**63), 2**63 - 1)
BITS = st.lists(st.integers(0, 2**64 - 1), max_size=40)


def values_of(bits: list[int]) -> np.ndarray:
    return np.array(bits, dtype=np.uint64).view(np.float64)


@given(TEXT, ENTITY, TEXT, ENTITY)
@example("v", ("a", "team-a"), "v", ("a", "team", "-a"))
@example("v", ("a",), "v", ("team-a",))
@example("v", ("a", "1:b"), "v", ("a", "", "b"))
@example("v", ("a\x00", "b"), "v", ("a", "\x00b"))
@example("11:x", ("a",), "1", ("a", "x"))
def test_different_entities_have_different_keys(
    view: str, entity: tuple[str, ...], other_view: str, other: tuple[str, ...]
) -> None:
    assert (entity_key(view, entity) == entity_key(other_view, other)) == ((view, entity) == (other_view, other))


@given(TEXT, ENTITY)
def test_a_key_tells_its_entity(view: str, entity: tuple[str, ...]) -> None:
    assert parse_key(entity_key(view, entity)) == (view, entity)


def test_the_tenant_stands_first() -> None:
    assert entity_key("pipeline_builds_v1", ("acme", "Ünit")) == b"cf1:4:acme18:pipeline_builds_v15:\xc3\x9cnit"


@pytest.mark.parametrize("key", [b"", b"other", PREFIX, b"cf1:4:acme", b"cf1:04:acme1:v", b"cf1:4:acme9:v", b"cf1:x"])
def test_other_keys_are_not_ours(key: bytes) -> None:
    with pytest.raises(ValueError):
        parse_key(key)


@pytest.mark.parametrize("entity", [(), ("",), ("", "a"), ("\ud800",)])
def test_an_entity_needs_a_tenant_and_text(entity: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        entity_key("v", entity)


@given(ENTITY, SIGNED, SIGNED, BITS)
def test_a_row_survives_bit_for_bit(entity: tuple[str, ...], event: int, written: int, bits: list[int]) -> None:
    key, values = entity_key("v", entity), values_of(bits)
    value = encode(key, FeatureRow(event, written, values))
    assert len(value) == value_bytes(len(bits))
    row = decode(key, value, len(bits))
    assert (row.event_time_us, row.written_time_us) == (event, written)
    assert row.values.tobytes() == values.tobytes()
    block, event_times, ok = decode_block([key], [value], len(bits))
    assert ok.tolist() == [True] and event_times.tolist() == [event] and block.tobytes() == values.tobytes()


@given(BITS, st.data())
def test_any_flipped_bit_is_noticed(bits: list[int], data: st.DataObject) -> None:
    key = entity_key("v", ("acme", "repository"))
    value = bytearray(encode(key, FeatureRow(1_700_000_000_000_000, 0, values_of(bits))))
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    assert_refused(key, bytes(value), len(bits))


def test_each_bit_of_a_value_is_covered() -> None:
    key = entity_key("v", ("acme",))
    good = encode(key, FeatureRow(1_700_000_000_000_000, 2, np.array([1.5, np.nan])))
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert_refused(key, bytes(bad), 2)


@given(BITS, st.data())
def test_a_cut_or_lengthened_value_is_noticed(bits: list[int], data: st.DataObject) -> None:
    key = entity_key("v", ("acme",))
    value = encode(key, FeatureRow(1, 2, values_of(bits)))
    assert_refused(key, value[: data.draw(st.integers(0, len(value) - 1))], len(bits))
    assert_refused(key, value + data.draw(st.binary(min_size=1, max_size=16)), len(bits))


@given(ENTITY, ENTITY)
@example(("a",), ("team-a",))
def test_a_value_under_another_key_is_refused(mine: tuple[str, ...], other: tuple[str, ...]) -> None:
    if mine != other:
        value = encode(entity_key("v", mine), FeatureRow(1, 2, np.array([3.0])))
        assert_refused(entity_key("v", other), value, 1, "belongs to another key")
        assert_refused(entity_key("w", mine), value, 1, "belongs to another key")


def test_a_value_of_another_width_or_format_is_refused() -> None:
    key = entity_key("v", ("acme",))
    value = encode(key, FeatureRow(1, 2, np.array([3.0])))
    assert_refused(key, value, 2, "1 fields instead of 2")
    assert_refused(key, b"", 1, "too few")


def assert_refused(key: bytes, value: bytes, field_count: int, reason: str | None = None) -> None:
    with pytest.raises(CorruptValue, match=reason):
        decode(key, value, field_count)
    values, event_times, ok = decode_block([key], [value], field_count)
    assert not ok.any() and np.isnan(values).all() and not event_times.any()


@given(SIGNED.map(lambda number: number % 10**17 - 10**16))
def test_microseconds_are_exact(microseconds: int) -> None:
    assert to_microseconds(from_microseconds(microseconds)) == microseconds
