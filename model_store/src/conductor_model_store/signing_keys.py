"""Keys that models are signed with: PEM files, Ed25519 or ECDSA on P-256."""

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from conductor_client.small_file import read_small
from conductor_model_store.errors import InvalidKey

PUBLIC_SUFFIX = ".pem"
_ANOTHER_KIND = "only Ed25519 and ECDSA on P-256 are taken"
_log = logging.getLogger(__name__)


class KeyAlgorithm(StrEnum):
    """Algorithms of the keys."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"


@dataclass(frozen=True)
class KeyPair:
    """Files of a key pair that was made, and the id that signatures name it by."""

    private_key: Path
    public_key: Path
    key_id: str


def read_signer(path: Path) -> CryptoSigner:
    """Read a private key (PEM, PKCS #8, without a password). Raises InvalidKey."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{path} is no private key in PEM without a password: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) or not _is_taken(key.public_key()):
        raise InvalidKey(f"{path}: {_ANOTHER_KIND}")
    return CryptoSigner(key)


def read_trusted_keys(places: Iterable[Path]) -> dict[str, Key]:
    """Read public keys (PEM), by key id; a folder stands for the ``*.pem`` files in it.

    Raises InvalidKey: there is no key at a place, or something else than a public key.
    """
    keys: dict[str, Key] = {}
    for place in places:
        files = sorted(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else [place]
        if not files:
            raise InvalidKey(f"{place} holds no public key (*{PUBLIC_SUFFIX})")
        for file in files:
            key = _read_public(file)
            keys[key.keyid] = key
    return keys


def generate_key_pair(
    directory: Path, name: str = "model-signing", algorithm: KeyAlgorithm = KeyAlgorithm.ED25519
) -> KeyPair:
    """Make ``<name>.key``, which only its owner may read, and ``<name>.pem`` in a folder.

    Raises InvalidKey where one of them exists (nothing is overwritten) or can't be written.
    """
    private_path, public_path = directory / f"{name}.key", directory / f"{name}{PUBLIC_SUFFIX}"
    signer = CryptoSigner.generate_ed25519() if algorithm is KeyAlgorithm.ED25519 else CryptoSigner.generate_ecdsa()
    private = serialization.load_pem_private_key(signer.private_bytes, password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
        if public_path.exists():
            raise FileExistsError(f"{public_path} exists")
        _create(private_path, signer.private_bytes, stat.S_IRUSR | stat.S_IWUSR)
        _create(public_path, public, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        raise InvalidKey(f"no key pair was made: {error}") from error
    return KeyPair(private_path, public_path, signer.public_key.keyid)


def shortened(key_ids: Iterable[str]) -> str:
    """Key ids to print: their first 16 digits, in order."""
    return ", ".join(key_id[:16] for key_id in sorted(key_ids))


TrustedKeys = Mapping[str, Key]
"""Public keys by their ids."""


class KeyFiles(Mapping[str, Key]):
    """Public keys as files and folders hold them now: `refresh` reads them again. Safe between threads."""

    def __init__(self, places: Iterable[Path]) -> None:
        """Read them. Raises InvalidKey: see `read_trusted_keys`."""
        self._places = tuple(places)
        self.now: Mapping[str, Key] = read_trusted_keys(self._places)
        """The keys; another object when they are others."""
        self._problem = ""

    def refresh(self) -> bool:
        """Read the files again; say whether the keys are others.

        A file that is gone takes its key with it, to the last one. One that can't be read, for example half-written,
        leaves everything as it was, which is logged once.
        """
        try:
            found = read_trusted_keys([place for place in self._places if _holds_keys(place)])
        except InvalidKey as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("the trusted keys stay as they were: %s", error)
            return False
        self._problem = ""
        if found.keys() == self.now.keys():
            return False
        gained, lost = shortened(found.keys() - self.now.keys()), shortened(self.now.keys() - found.keys())
        _log.warning("other keys are trusted now: added %s, removed %s", gained or "none", lost or "none")
        self.now = found
        return True

    def __getitem__(self, key_id: str) -> Key:
        return self.now[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


def _holds_keys(place: Path) -> bool:
    return any(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else place.exists()


def _read_public(path: Path) -> SSlibKey:
    try:
        key = serialization.load_pem_public_key(_read(path, read_small))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{path} is no public key in PEM: {error}") from error
    if not _is_taken(key):
        raise InvalidKey(f"{path}: {_ANOTHER_KIND}")
    return SSlibKey.from_crypto(key)


def _is_taken(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _read(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise InvalidKey(f"the key {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidKey(f"the key can't be read: {error}") from error


def _create(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
