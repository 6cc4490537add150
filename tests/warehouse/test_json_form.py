"""The fast reader of proto JSON takes nothing that ``json_format`` would read differently, or refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from conductor_warehouse import json_form
from conductor_warehouse.events import EVENT_TYPES

_TEXT = st.text(max_size=6) | st.sampled_from(["", "a", "\x00", "\ud800", "é", "🙂"])
_NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, 1.0, 1.5, -0.0, 1e300])
)
_STRANGE = st.none() | st.booleans() | _NUMBERS | _TEXT | st.lists(st.none(), max_size=1) | st.just({})
_TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.125Z",
        "2026-01-01T00:00:00.123456Z",
        "2026-01-01T00:00:00.123456789Z",
        "2026-01-01T01:00:00+01:00",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00z",
        "２026-01-01T00:00:00Z",
    ]
)
_SPANS = st.sampled_from(
    [
        "0s",
        "1s",
        "1.5s",
        "-1s",
        "-0.5s",
        "1.0000000001s",
        "315576000000s",
        "315576000001s",
        "9999999999.999999999s",
        "1",
        "s",
    ]
) | st.decimals(0, 10**6, allow_nan=False, places=3).map(lambda value: f"{value}s")


def values_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        name = field.message_type.full_name
        known = {"google.protobuf.Timestamp": _TIMES, "google.protobuf.Duration": _SPANS}
        return known[name] if name in known else objects_of(field.message_type)
    if field.enum_type is not None:
        return st.sampled_from([value.name for value in field.enum_type.values]) | st.integers(-1, 9)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXT
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans() | st.sampled_from(["true", "false"])
    return _NUMBERS | _NUMBERS.map(str)


def objects_of(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that mostly look like the message, and now and then do not."""
    entries = [
        st.tuples(
            st.sampled_from([field.json_name, field.name]),
            _mostly(st.lists(values_of(field), max_size=3) if field.is_repeated else values_of(field), _STRANGE),
        )
        for field in descriptor.fields
    ]
    unknown = st.tuples(st.just("unheardOf"), _STRANGE)
    return st.lists(_mostly(st.one_of(entries), unknown), max_size=5).map(dict)


def _mostly(usual: st.SearchStrategy[Any], strange: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda number: strange if number == 9 else usual)


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_what_it_takes_json_format_takes_alike(kind: type[Any]) -> None:
    taken = 0

    @given(objects_of(kind.DESCRIPTOR))
    def check(content: dict[str, Any]) -> None:
        nonlocal taken
        try:
            content = json_form.read_object(json.dumps(content).encode(errors="surrogatepass"))
            found = json_form.to_message(content, kind)
        except json_form.Declined:
            return
        assert found == json_format.ParseDict(content, kind())
        taken += 1

    check()
    assert taken > 5


def test_the_examples_of_the_documentation_are_spelt_the_usual_way() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    examples = [json.loads(block.partition("```")[0]) for block in text.split("```json\n")[1:]]
    for example in examples:
        if example["type"] in EVENT_TYPES:
            json_form.to_message(example["data"], EVENT_TYPES[example["type"]])
