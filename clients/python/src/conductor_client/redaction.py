"""Secrets are taken out of what people and logs are told."""

import re

HIDDEN = "***"

_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^/?#\s'\"]*@", re.IGNORECASE)
_IN_PARAMETER = re.compile(
    r"([?&;\s](?:[a-z0-9_\-]*(?:password|passwd|secret|token|signature|credential|access_?key)[a-z0-9_\-]*)=)[^&;\s'\"]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9\-._~+/=]{8,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*")
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str) -> str:
    """The text without the secrets that can be told by their form.

    They are: user and password of a URL, parameters that are named after secrets, bearer tokens, JSON Web Tokens and
    private keys.
    """
    if "://" in text:
        text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _IN_PARAMETER.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)
    return _PRIVATE_KEY.sub(HIDDEN, text) if "PRIVATE KEY" in text else text
