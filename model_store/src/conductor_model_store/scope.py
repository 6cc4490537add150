"""Who a model is for, and the keys under which the store keeps its files.

Layout::

    blobs/sha256/<hex>
    models/<predictor>/<global | tenants/<quoted tenant>>/versions/<version>.binpb
    models/<predictor>/<global | tenants/<quoted tenant>>/versions/<version>.sig.json
    models/<predictor>/<global | tenants/<quoted tenant>>/channels/<channel>/<generation, 20 digits>.json

A tenant's name may hold anything: it is quoted (``conductor_storage.names``).
"""

import re
from dataclasses import dataclass

from conductor_model_store.errors import InvalidScope
from conductor_storage import quote_segment, unquote_segment

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VERSION = re.compile(r"[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GENERATION_DIGITS = 20
_GENERATION = re.compile(rf"[0-9]{{{_GENERATION_DIGITS}}}")

MODELS = "models"
"""Prefix of everything but blobs."""


@dataclass(frozen=True, order=True)
class ModelScope:
    """A predictor and the tenant that it serves; an empty tenant means the global model."""

    predictor: str
    tenant_id: str = ""

    def __post_init__(self) -> None:
        check_name(self.predictor, "predictor")
        quote_tenant(self.tenant_id)

    @property
    def resource_name(self) -> str:
        """``models/build-duration/global`` or ``models/build-duration/tenants/acme``, as provenance tells it."""
        return f"models/{self.predictor}/" + (f"tenants/{self.tenant_id}" if self.tenant_id else "global")

    @property
    def directory(self) -> str:
        """Key prefix of the scope's files, without a slash at the end."""
        place = f"tenants/{quote_tenant(self.tenant_id)}" if self.tenant_id else "global"
        return f"{MODELS}/{self.predictor}/{place}"

    def version_key(self, version: str) -> str:
        """Key of a version's manifest. Raises InvalidScope for what is no version."""
        if not _VERSION.fullmatch(version):
            raise InvalidScope(f"{version!r} is no model version: 16 hexadecimal digits")
        return f"{self.directory}/versions/{version}.binpb"

    def signature_key(self, version: str) -> str:
        """Key of a version's signatures. Raises InvalidScope for what is no version."""
        return self.version_key(version).removesuffix(".binpb") + ".sig.json"

    def channel_directory(self, channel: str) -> str:
        """Key prefix of a channel's pointers."""
        check_name(channel, "channel")
        return f"{self.directory}/channels/{channel}"

    def pointer_key(self, channel: str, generation: int) -> str:
        """Key of one generation of a channel's pointer. Raises InvalidScope for a number that no key can hold."""
        if not 0 < generation < 10**_GENERATION_DIGITS:
            raise InvalidScope(f"{generation} is no generation: there is a file of an impossible number in the store")
        return f"{self.channel_directory(channel)}/{generation:0{_GENERATION_DIGITS}d}.json"


@dataclass(frozen=True)
class ScopeKey:
    """A key below ``models/``, taken apart. ``tenant_id`` is None where only the file's content tells it."""

    directory: str
    predictor: str
    tenant_id: str | None
    version: str | None = None
    channel: str | None = None
    generation: int = 0


def parse_key(key: str) -> ScopeKey | None:
    """Take a key of the store apart; None for anything that the store didn't write."""
    parts = key.split("/")
    tenant_id: str | None = ""
    match parts:
        case ["models", predictor, "global", *rest]:
            directory = "/".join(parts[:3])
        case ["models", predictor, "tenants", quoted, *rest]:
            directory = "/".join(parts[:4])
            tenant_id = unquote_segment(quoted)
        case _:
            return None
    match rest:
        case ["versions", name] if name.endswith(".binpb") and _VERSION.fullmatch(name[:-6]):
            return ScopeKey(directory, predictor, tenant_id, version=name[:-6])
        case ["channels", channel, name] if name.endswith(".json") and _GENERATION.fullmatch(name[:-5]):
            return ScopeKey(directory, predictor, tenant_id, channel=channel, generation=int(name[:-5]))
    return None


def is_version(name: str) -> bool:
    """Whether a name is a version's: a channel can't look like one."""
    return _VERSION.fullmatch(name) is not None


def blob_key(digest: str) -> str:
    """Key of a blob by its SHA-256 in lower-case hexadecimal."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidScope(f"{digest!r} is no SHA-256: 64 lower-case hexadecimal digits")
    return f"blobs/sha256/{digest}"


def quote_tenant(tenant_id: str) -> str:
    """Quote a tenant's name to a single path segment; different names give different segments."""
    try:
        return quote_segment(tenant_id)
    except ValueError as error:
        raise InvalidScope(f"{tenant_id!r} is no tenant: it isn't valid Unicode") from error


def check_name(name: str, what: str) -> None:
    """Raise InvalidScope unless ``name`` can be a predictor or channel."""
    if not _NAME.fullmatch(name) or is_version(name):
        raise InvalidScope(f"{name!r} is no {what}: a lower-case letter, then letters, digits and hyphens, 63 at most")
