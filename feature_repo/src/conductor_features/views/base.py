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
    listed_by: tuple[str, ...] = ()
    """Join keys that the online store lists the view's entities by, the tenant first. The one that is left out is the
    *member*: a list holds those that its *owner* has a row of. Empty where nobody asks for all that there are."""

    def __post_init__(self) -> None:
        if not self.entity or self.entity[0] != "tenant_id":
            raise ValueError(f"view {self.name}: the first join key must be tenant_id")
        names = [*self.entity, *(field.name for field in self.fields)]
        if len(set(names)) != len(names):
            raise ValueError(f"view {self.name}: a name stands twice")
        left = [name for name in self.entity if name not in self.listed_by]
        if self.listed_by and (
            self.listed_by[0] != "tenant_id" or len(left) != 1 or len(self.entity) - 1 != len(self.listed_by)
        ):
            raise ValueError(
                f"view {self.name}: listed by its tenant and all other join keys but one, which is the member"
            )

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
    def owner_positions(self) -> tuple[int, ...]:
        """Where in an entity stands what its list is found by; empty where there are no lists."""
        return tuple(self.entity.index(name) for name in self.listed_by)

    @cached_property
    def member_position(self) -> int:
        """Where in an entity its list's member stands; only for a view that is listed."""
        return next(at for at, name in enumerate(self.entity) if name not in self.listed_by)

    @cached_property
    def log_table(self) -> str:
        """Table of the warehouse that the view's rows are appended to."""
        return f"feature_log_{self.key}"
