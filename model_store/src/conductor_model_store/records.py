"""What the model store hands out."""

import hashlib
import json
from base64 import b64decode, b64encode
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
    """How the channel was moved: "publish", "promote", "rollback", "withdraw" or "sign"."""
    previous_generation: int = 0
    """The generation that a rollback goes back to; 0 for none."""
    weight: float = 0.0
    """Share of the entities that the channel answers, 0 to 1; of a canary or challenger only."""
    detail: str = ""
    """Why, in words; for people."""
    actor: str = ""
    """Who moved it, by their own account; what counts is who signed."""
    predecessor: str = ""
    """`digest` of the generation that was in force before; empty where a chain begins."""
    signatures: tuple[tuple[str, str], ...] = ()
    """Key id and signature in hexadecimal; unchecked here."""

    @property
    def payload(self) -> bytes:
        """What is signed: all but the signatures, as it is written."""
        return _json(self._fields())

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed, in hexadecimal: a signature more or less is still the same move."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def withdrawn(self) -> bool:
        """Whether the channel points nowhere."""
        return not self.version

    def to_json(self) -> bytes:
        """Serialise for the store. What is not said is not written, so that earlier releases read it."""
        signatures = [
            {"keyid": key_id, "sig": b64encode(bytes.fromhex(value)).decode()} for key_id, value in self.signatures
        ]
        return _json(self._fields() | ({"signatures": signatures} if signatures else {}))

    def _fields(self) -> dict[str, object]:
        told = {
            "weight": self.weight,
            "detail": self.detail,
            "actor": self.actor,
            "predecessor": self.predecessor,
        }
        return {
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
        }

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
                actor=str(fields.get("actor", "")),
                predecessor=str(fields.get("predecessor", "")),
                signatures=tuple(
                    (str(one["keyid"]), b64decode(one["sig"], validate=True).hex())
                    for one in fields.get("signatures", ())
                ),
            )
            expected = pointer.scope.pointer_key(pointer.channel, pointer.generation)
            if not pointer.withdrawn:
                pointer.scope.version_key(pointer.version)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
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
    signed_by: frozenset[str] = frozenset()
    """Ids of the trusted keys that signed it; none where signatures are not checked."""


def _json(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, indent=1).encode()
