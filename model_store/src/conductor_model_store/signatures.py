"""Who vouches for a version: a DSSE envelope beside its manifest, holding an in-toto statement.

The statement's subjects are the manifest, under the resource name and version that it is stored as, and the graph that
the manifest names. The manifest's digest covers all else. Several keys may sign the same statement.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signer

from conductor_model_store.errors import InvalidKey, NoAuthority, UntrustedModel
from conductor_model_store.signed_version import SignedVersion
from conductor_model_store.signing_keys import KeyFiles, TrustedKeys, shortened

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, and who signs, for two purposes: to publish versions, and to move channels."""

    signer: Signer | None = None
    """Signs; None: what is published is not signed."""
    keys: TrustedKeys | None = None
    """Public keys by id, any one of which makes a version trusted; None: signatures are not checked."""
    operator: Signer | None = None
    """Signs moves of channels; None: ``signer`` does."""
    operator_keys: TrustedKeys | None = None
    """Public keys by id, any one of which makes a move count; None: ``keys`` do."""

    @property
    def mover(self) -> Signer | None:
        """Who signs moves of channels."""
        return self.operator or self.signer

    @property
    def mover_keys(self) -> Mapping[str, Key] | None:
        """Whose moves of channels count; the same object for as long as they are the same. None: anybody's."""
        keys = self.keys if self.operator_keys is None else self.operator_keys
        return keys.now if isinstance(keys, KeyFiles) else keys

    def refresh(self) -> bool:
        """Read the trusted keys' files again; say whether they are others now."""
        changed = [keys.refresh() for keys in (self.keys, self.operator_keys) if isinstance(keys, KeyFiles)]
        return any(changed)

    def require_authority(self) -> None:
        """Raise NoAuthority where a move that is made here would not count."""
        keys = self.mover_keys
        if keys is None or (self.mover is not None and self.mover.public_key.keyid in keys):
            return
        who = "is none" if self.mover is None else f"key {shortened([self.mover.public_key.keyid])} is not trusted so"
        raise NoAuthority(
            f"moving a channel takes a key that is trusted to, and here {who}: set CONDUCTOR_MODEL_OPERATOR_KEY, "
            "or use `conductor models` where there is one"
        )

    def require_own_signature_counts(self) -> None:
        """Raise UntrustedModel where what would be published now could not be loaded again."""
        if self.keys is None or (self.signer is not None and self.signer.public_key.keyid in self.keys):
            return
        who = "no signing key is set" if self.signer is None else f"key {self._own} is not among the trusted ones"
        raise UntrustedModel(f"nothing can be published or signed: {who} ({shortened(self.keys) or 'none'})")

    def sign(self, signed: SignedVersion, content: bytes | None) -> bytes:
        """The envelope with the signer's signature, beside those that the present one (``content``) holds.

        A present one that is damaged or of something else is replaced. Raises InvalidKey without a signer.
        """
        if self.signer is None:
            raise InvalidKey("there is no key to sign with: set CONDUCTOR_MODEL_SIGNING_KEY")
        payload = _json(signed.statement)
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        if content is not None:
            try:
                present = read_envelope(signed.name, content)
            except UntrustedModel:
                pass
            else:
                if (present.payload, present.payload_type) == (payload, PAYLOAD_TYPE):
                    envelope = present
        if not self._has_signed(envelope):
            envelope.sign(self.signer)
        return _written(envelope)

    def check(self, signed: SignedVersion, content: bytes | None) -> frozenset[str]:
        """Ids of the trusted keys that signed exactly this version; none where no keys are given to check by.

        Raises UntrustedModel: no trusted key did.
        """
        if self.keys is None:
            return frozenset()
        keys = dict(self.keys)
        if content is None:
            raise UntrustedModel(f"{signed.name} is not signed")
        envelope = read_envelope(signed.name, content)
        if not keys.keys() & envelope.signatures.keys():
            by, trusted = shortened(envelope.signatures) or "nobody", shortened(keys) or "none"
            raise UntrustedModel(f"{signed.name} is signed by {by}, not by a trusted key ({trusted})")
        accepted = accepted_key_ids(envelope, keys)
        if not accepted:
            raise UntrustedModel(f"{signed.name} bears a signature that its key did not make")
        if envelope.payload_type != PAYLOAD_TYPE or _parsed(envelope.payload) != signed.statement:
            raise UntrustedModel(f"{signed.name} bears the signature of something else")
        return accepted

    @property
    def _own(self) -> str:
        return shortened([self.signer.public_key.keyid]) if self.signer else ""

    def _has_signed(self, envelope: Envelope) -> bool:
        key = self.signer.public_key if self.signer else None
        return key is not None and bool(accepted_key_ids(envelope, {key.keyid: key}))


def accepted_key_ids(envelope: Envelope, keys: Mapping[str, Key]) -> frozenset[str]:
    """Ids of those of the keys that signed what the envelope holds."""
    accepted: set[str] = set()
    for key_id in keys.keys() & envelope.signatures.keys():
        try:
            accepted |= envelope.verify([keys[key_id]], threshold=1).keys()
        except UnverifiedSignatureError:
            continue
    return frozenset(accepted)


def read_envelope(name: str, content: bytes) -> Envelope:
    """Read an envelope, its signatures unchecked. ``name``: the version, for the error.

    Raises UntrustedModel unless it is written as `Trust.sign` writes it, to the byte: JSON and base64 leave room for
    changes that mean nothing, and a byte that was changed must not go unseen.
    """
    try:
        envelope = Envelope.from_dict(_parsed(content))
        as_written = _written(envelope) == content and all(map(_KEY_ID.fullmatch, envelope.signatures))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UntrustedModel(f"the signature of {name} can't be read: {error!r}") from error
    if not as_written:
        raise UntrustedModel(f"the signature of {name} is not as it was written")
    return envelope


def _written(envelope: Envelope) -> bytes:
    return _json(envelope.to_dict())


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, indent=1).encode()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
