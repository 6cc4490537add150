"""Who moved a channel: DSSE signatures over a pointer's JSON, within the same file, so that a move stays one write.

What is signed is the pointer without its signatures, its predecessor's digest included: generations are a chain.
"""

from collections.abc import Mapping
from dataclasses import replace

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, Signature, Signer

from conductor_model_store.errors import UntrustedPointer
from conductor_model_store.records import Pointer
from conductor_model_store.signatures import accepted_key_ids
from conductor_model_store.signing_keys import shortened

PAYLOAD_TYPE = "application/vnd.conductor.model-pointer+json"


def sign_pointer(pointer: Pointer, signer: Signer) -> Pointer:
    """The pointer with our signature beside the others."""
    key = signer.public_key
    others = {key_id: Signature(key_id, value) for key_id, value in pointer.signatures}
    envelope = Envelope(pointer.payload, PAYLOAD_TYPE, others)
    if not accepted_key_ids(envelope, {key.keyid: key}):
        envelope.sign(signer)
    return replace(pointer, signatures=tuple((one.keyid, one.signature) for one in envelope.signatures.values()))


def check_pointer(key: str, pointer: Pointer, content: bytes, keys: Mapping[str, Key]) -> None:
    """Raise UntrustedPointer unless one of ``keys`` signed exactly this, and the file is as it was written."""
    if not pointer.signatures:
        raise UntrustedPointer(f"{key} is not signed")
    if pointer.to_json() != content:
        raise UntrustedPointer(f"{key} is not as it was written")
    signatures = {key_id: Signature(key_id, value) for key_id, value in pointer.signatures}
    if not keys.keys() & signatures.keys():
        by, trusted = shortened(signatures) or "nobody", shortened(keys) or "none"
        raise UntrustedPointer(f"{key} is signed by {by}, not by a key trusted to move channels ({trusted})")
    if not accepted_key_ids(Envelope(pointer.payload, PAYLOAD_TYPE, signatures), keys):
        raise UntrustedPointer(f"{key} bears a signature that its key did not make")
