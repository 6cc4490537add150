"""What a feature view is. One definition serves the warehouse, Feast, the online store, training and the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property


@dataclass(frozen=True)
class Field:
    """One feature: a float64, NaN where it is unknown."""

    name: str
    description: str
    unit: str
    """For example "s", "1" for counts and ratios, "epoch s" for moments."""


@dataclass(frozen=True)
class View:
    """A group of features of one kind of entity, computed together as of a moment.

    A changed definition is a new version: rows of both can then be told apart everywhere.
    """

    name: str
    version: int
    entity: tuple[str, ...]
    """Join keys, all strings; the first is always ``tenant_id``."""
    fields: tuple[Field, ...]
    maximum_age: timedelta
    """Rows older than this are not served as features."""
    owner: str
    description: str
    lineage: tuple[str, ...]
    """The event fields that it is computed from."""

    def __post_init__(self) -> None:
        if not self.entity or self.entity[0] != "tenant_id":
            raise ValueError(f"view {self.name}: the first join key must be tenant_id")
        names = [*self.entity, *(field.name for field in self.fields)]
        if len(set(names)) != len(names):
            raise ValueError(f"view {self.name}: a name stands twice")

    @cached_property
    def key(self) -> str:
        """Name with version, for example ``pipeline_builds_v1``: names the view everywhere outside this package."""
        return f"{self.name}_v{self.version}"

    @cached_property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, in the order in which they are stored."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def field_index(self) -> Mapping[str, int]:
        """Position of each field."""
        return {name: index for index, name in enumerate(self.field_names)}

    @cached_property
    def log_table(self) -> str:
        """Table of the warehouse that the view's rows are appended to."""
        return f"feature_log_{self.key}"
