"""What a signature of a model speaks of."""

from dataclasses import dataclass

from conductor_model_store.scope import ModelScope

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:conductor:model-version:v1"
"""Its predicate is empty: the subjects say all."""


@dataclass(frozen=True)
class SignedVersion:
    """A version as it is stored. Digests are SHA-256 in hexadecimal."""

    scope: ModelScope
    version: str
    manifest_digest: str
    graph_digest: str

    @property
    def name(self) -> str:
        """``models/build-duration/tenants/acme/versions/0123456789abcdef``."""
        return f"{self.scope.resource_name}/versions/{self.version}"

    @property
    def statement(self) -> dict[str, object]:
        """The in-toto statement (version 1)."""
        return {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": self.name, "digest": {"sha256": self.manifest_digest}},
                {"name": "graph", "digest": {"sha256": self.graph_digest}},
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {},
        }
