"""Answers about tests as JSON tells them: enums by name, tests with their names."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any

from conductor_client.testing.failures import FailurePredictions, OrderedTest, OrderHead
from conductor_client.testing.selections import Selection

_COLUMNS = frozenset({"test_ids", "probabilities", "reason_numbers", "selected"})


def plain(value: Any) -> Any:
    """A typed answer as dicts and lists."""
    if isinstance(value, IntEnum):
        return value.name.lower()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def predictions_json(found: FailurePredictions) -> dict[str, Any]:
    """How likely each test is to fail."""
    return _rest(found) | {"tests": plain(list(found))}


def selection_json(found: Selection) -> dict[str, Any]:
    """Which tests to run: ``selected`` by their ids in order, ``tests`` all with their reasons."""
    return _rest(found) | {"selected": found.selected_ids, "tests": plain(list(found))}


def order_json(head: OrderHead, tests: Iterable[OrderedTest]) -> dict[str, Any]:
    """In which order to run tests."""
    return plain(head) | {"tests": plain(list(tests))}  # type: ignore[no-any-return]


def _rest(answer: Any) -> dict[str, Any]:
    """All but the columns."""
    return {field.name: plain(getattr(answer, field.name)) for field in fields(answer) if field.name not in _COLUMNS}
