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
from securesystemslib.signer import Signer

from conductor_model_store.errors import InvalidKey, UntrustedModel
from conductor_model_store.signed_version import SignedVersion
from conductor_model_store.signing_keys import TrustedKeys, shortened

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, and who signs what is published."""

    signer: Signer | None = None
    """Signs; None: what is published is not signed."""
    keys: TrustedKeys | None = None
    """Public keys by id, any one of which makes a version trusted; None: signatures are not checked."""

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

    def check(self, signed: SignedVersion, content: bytes | None) -> None:
        """Raise UntrustedModel unless a trusted key has signed exactly this version. Does nothing without keys."""
        if self.keys is None:
            return
        if content is None:
            raise UntrustedModel(f"{signed.name} is not signed")
        envelope = read_envelope(signed.name, content)
        if not self.keys.keys() & envelope.signatures.keys():
            by, trusted = shortened(envelope.signatures) or "nobody", shortened(self.keys) or "none"
            raise UntrustedModel(f"{signed.name} is signed by {by}, not by a trusted key ({trusted})")
        try:
            envelope.verify(list(self.keys.values()), threshold=1)
        except UnverifiedSignatureError as error:
            raise UntrustedModel(f"{signed.name} bears a signature that its key did not make") from error
        if envelope.payload_type != PAYLOAD_TYPE or _parsed(envelope.payload) != signed.statement:
            raise UntrustedModel(f"{signed.name} bears the signature of something else")

    @property
    def _own(self) -> str:
        return shortened([self.signer.public_key.keyid]) if self.signer else ""

    def _has_signed(self, envelope: Envelope) -> bool:
        if self.signer is None:
            return False
        try:
            envelope.verify([self.signer.public_key], threshold=1)
        except UnverifiedSignatureError:
            return False
        return True


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
