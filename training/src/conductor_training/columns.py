"""Input columns of models: where each comes from."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from conductor.model.v1.model_manifest_pb2 import FeatureField, InputColumn
from conductor_features.views import View


@dataclass(frozen=True)
class Column:
    """One column of the graph's input."""

    name: str
    view: View | None = None
    """The view that it comes from; None for a request column, which is named as the column."""
    field: str = ""
    elapsed: bool = False
    """Seconds from the moment that the field holds to the request."""
    required: bool = False
    nullable: bool = False
    default: float | None = None

    def to_proto(self) -> InputColumn:
        """The manifest's form, without the typical value."""
        column = InputColumn(name=self.name, required=self.required, nullable=self.nullable)
        if self.default is not None:
            column.default_value = self.default
        if self.view is None:
            column.request_column = self.name
            return column
        source = FeatureField(view=self.view.key, field=self.field)
        (column.elapsed_since if self.elapsed else column.feature).CopyFrom(source)
        age = Duration()
        age.FromTimedelta(self.view.maximum_age)
        column.maximum_age.CopyFrom(age)
        return column
