"""Rows of several views side by side, for many entities at once: packed values become one array, uncopied.

A packed value (``codec.py``) is a whole number of 8-byte words, and its fields are float64: so the values of all views
of one request, one after the other, are one line of a matrix, and a field is a column of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from conductor_features.codec import EVENT_TIME_OFFSET, HEADER_BYTES, decode_or_reason, is_intact, value_bytes
from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import View

_WORD_BYTES = 8
_EVENT_TIME_WORD = EVENT_TIME_OFFSET // _WORD_BYTES
_HEADER_WORDS = HEADER_BYTES // _WORD_BYTES


class TableLayout:
    """Where the fields of some views stand in a line."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = tuple(views)
        counts = [len(view.fields) for view in self.views]
        widths = [value_bytes(count) // _WORD_BYTES for count in counts]
        self._begins = [sum(widths[:at]) for at in range(len(widths))]
        self._counts = counts
        self.width = sum(widths)
        """Words of a line."""
        self.event_time_words = np.array(self._begins, np.intp) + _EVENT_TIME_WORD
        """Column of each view's event time, an int64."""
        self._fillers = [bytes(HEADER_BYTES) + np.full(count, np.nan).tobytes() for count in counts]

    def field_word(self, view_at: int, field: int) -> int:
        """Column of a field of the view that stands at ``view_at``."""
        return self._begins[view_at] + _HEADER_WORDS + field

    def table(self, keys: Sequence[bytes], stored: Mapping[bytes, bytes | None], absent: Sequence[Missing]) -> RowTable:
        """Check and lay out what the store holds.

        Args:
            keys: of each line, a key for each view; lines may have keys in common.
            stored: what stands under them; None for nothing.
            absent: by view, what a row that is not there is.
        """
        missing: dict[tuple[int, int], Missing] = {}
        parts: list[bytes] = []
        checked: dict[bytes, bytes | Missing] = {}
        views = len(self.views)
        for at, key in enumerate(keys):
            part = checked.get(key)
            if part is None:
                part = checked[key] = self._checked(key, stored[key], at % views, absent)
            if isinstance(part, Missing):
                missing[at // views, at % views] = part
                part = self._fillers[at % views]
            parts.append(part)
        return RowTable(self, self._words(parts), missing)

    def _checked(self, key: bytes, value: bytes | None, view_at: int, absent: Sequence[Missing]) -> bytes | Missing:
        """A value that may be used, or why there is none."""
        if value is None:
            return absent[view_at]
        if is_intact(key, value, self._counts[view_at]):
            return value
        found = decode_or_reason(key, value, self._counts[view_at])
        return value if isinstance(found, FeatureRow) else Missing(f"corrupt: {found}")

    def without_rows(self, count: int, reason: Missing) -> RowTable:
        """``count`` lines of which nothing could be read."""
        missing = {(line, view_at): reason for line in range(count) for view_at in range(len(self.views))}
        return RowTable(self, self._words(self._fillers * count), missing)

    def _words(self, parts: Sequence[bytes]) -> NDArray[np.float64]:
        return np.frombuffer(b"".join(parts), "<f8").reshape(-1, self.width)


@lru_cache(maxsize=256)
def layout_of(views: tuple[View, ...]) -> TableLayout:
    """The same one for equal views: rows that are laid out alike are read and worked on together."""
    return TableLayout(views)


@dataclass(frozen=True)
class RowTable:
    """Lines of rows, one of each view."""

    layout: TableLayout
    words: NDArray[np.float64]
    """``[n, layout.width]``: fields where the layout says; between them what is no float. NaN in a missing row."""
    missing: Mapping[tuple[int, int], Missing]
    """By line and view, why there is no row."""

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def event_time_us(self) -> NDArray[np.int64]:
        """Event times in microseconds, ``[n, views]``; 0 where the row is missing."""
        return self.words.view("<i8")[:, self.layout.event_time_words]

    def take(self, lines: Sequence[int]) -> RowTable:
        """Some of the lines, some maybe several times."""
        if lines == [*range(len(self))]:
            return self
        missing = {
            (at, view_at): reason
            for at, line in enumerate(lines if self.missing else ())
            for view_at in range(len(self.layout.views))
            if (reason := self.missing.get((line, view_at))) is not None
        }
        return RowTable(self.layout, self.words[lines], missing)

    def row(self, line: int, view_at: int) -> FeatureRow | Missing:
        """One row by itself."""
        missing = self.missing.get((line, view_at))
        if missing is not None:
            return missing
        event_time = self.layout.event_time_words[view_at]
        begin = self.layout.field_word(view_at, 0)
        times = self.words[line].view("<i8")
        values = self.words[line, begin : begin + len(self.layout.views[view_at].fields)]
        return FeatureRow(int(times[event_time]), int(times[event_time + 1]), values)
