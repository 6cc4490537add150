"""What the model store hands out."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from conductor.model.v1.model_manifest_pb2 import ModelManifest
from conductor_model_store.errors import CorruptModel, InvalidScope
from conductor_model_store.scope import ModelScope


def check_weight(weight: float) -> float:
    """The weight; raises InvalidScope for what is no share."""
    if not 0 <= weight <= 1:
        raise InvalidScope(f"{weight} is no weight: a share from 0 to 1")
    return weight


@dataclass(frozen=True)
class Pointer:
    """Where a channel points, as one immutable file: moving the channel adds the next generation."""

    scope: ModelScope
    channel: str
    generation: int
    """Counts from 1 without gaps; the highest one is in force."""
    version: str
    """Empty where the channel was withdrawn: it points nowhere."""
    manifest_digest: str
    """SHA-256 of the manifest's bytes, in hexadecimal; empty where the channel was withdrawn."""
    published_time: datetime
    reason: str
    """Why the channel was moved: "publish", "promote", "rollback" or "withdraw"."""
    previous_generation: int = 0
    """The generation that a rollback goes back to; 0 for none."""
    weight: float = 0.0
    """Share of the entities that the channel answers, 0 to 1; of a canary or challenger only."""
    detail: str = ""
    """Why, in words; for people."""

    @property
    def withdrawn(self) -> bool:
        """Whether the channel points nowhere."""
        return not self.version

    def to_json(self) -> bytes:
        """Serialise for the store. What is not said is not written, so that earlier releases read it."""
        told = {"weight": self.weight, "detail": self.detail}
        return json.dumps(
            {
                "predictor": self.scope.predictor,
                "tenant_id": self.scope.tenant_id,
                "channel": self.channel,
                "generation": self.generation,
                "version": self.version,
                "manifest_digest": self.manifest_digest,
                "published_time": self.published_time.astimezone(UTC).isoformat(),
                "reason": self.reason,
                "previous_generation": self.previous_generation,
                **{name: value for name, value in told.items() if value},
            },
            indent=1,
        ).encode()

    @classmethod
    def from_json(cls, key: str, content: bytes) -> "Pointer":
        """Read what stands under ``key``. Raises CorruptModel if it is no pointer or another key's."""
        try:
            fields = json.loads(content)
            pointer = cls(
                scope=ModelScope(fields["predictor"], fields["tenant_id"]),
                channel=fields["channel"],
                generation=int(fields["generation"]),
                version=fields["version"],
                manifest_digest=fields["manifest_digest"],
                published_time=datetime.fromisoformat(fields["published_time"]),
                reason=fields["reason"],
                previous_generation=int(fields["previous_generation"]),
                weight=check_weight(float(fields.get("weight", 0.0))),
                detail=str(fields.get("detail", "")),
            )
            expected = pointer.scope.pointer_key(pointer.channel, pointer.generation)
            if not pointer.withdrawn:
                pointer.scope.version_key(pointer.version)
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptModel(f"{key} can't be read as a pointer: {error!r}") from error
        if expected != key:
            raise CorruptModel(f"{key} holds the pointer of {expected}")
        return pointer


@dataclass(frozen=True)
class ModelVersion:
    """A published version, and the pointer that publishing left in force on its channel."""

    scope: ModelScope
    version: str
    """The first 16 hexadecimal digits of the manifest's SHA-256."""
    manifest_digest: str
    pointer: Pointer


@dataclass(frozen=True)
class StoredVersion:
    """A version that the store holds, unread."""

    scope: ModelScope
    version: str
    stored_time: datetime


@dataclass(frozen=True)
class LoadedModel:
    """A version whose manifest and graph have been read and checked against their digests."""

    scope: ModelScope
    version: str
    manifest_digest: str
    manifest: ModelManifest
    graph: bytes
