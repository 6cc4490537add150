"""Who is calling. Everything that does not hold is the same error, whichever part it was.

A call is one identity's, never a mixture. What stands in ``authorization``, a token or an API key, is the credentials;
only where nothing stands there, the client's certificate is. A certificate of another tenant contradicts the former.
"""

from __future__ import annotations

from conductor_rpc import names
from conductor_rpc.api_keys import PREFIX, KeyRing
from conductor_rpc.call import Call, Identity
from conductor_rpc.certificates import CertificateIdentities
from conductor_rpc.exceptions import CredentialsInvalid
from conductor_rpc.jwks import key_set
from conductor_rpc.settings import RpcSettings, SettingsInvalid
from conductor_rpc.tokens import RoleClaims, Tokens

_MAX_HEADER_CHARACTERS = 8192
_BEARER = "bearer "


class Authenticator:
    """Tells who is calling."""

    def __init__(
        self, tokens: Tokens | None, keys: KeyRing | None = None, certificates: CertificateIdentities | None = None
    ) -> None:
        """Each is one kind of credentials; None for a kind that is not taken."""
        self._tokens, self._keys, self._certificates = tokens, keys, certificates

    async def authenticate(self, call: Call) -> Identity:
        """Raises:
        CredentialsInvalid: there are no credentials, or they do not hold.
        """
        shown = self._certificates.identify(call.certificate) if self._certificates and call.certificate else None
        header = call.metadata.get(names.AUTHORIZATION)
        if header is None:
            if shown is None:
                raise CredentialsInvalid
            return shown
        identity = await self._bearer(header, call.certificate)
        if shown is not None and shown.tenant_id != identity.tenant_id:
            raise CredentialsInvalid
        return identity

    async def close(self) -> None:
        """Release what it holds."""
        if self._tokens is not None:
            await self._tokens.close()

    async def _bearer(self, header: str | bytes, certificate: bytes) -> Identity:
        if not isinstance(header, str) or len(header) > _MAX_HEADER_CHARACTERS:
            raise CredentialsInvalid
        if header[: len(_BEARER)].lower() != _BEARER:
            raise CredentialsInvalid
        credentials = header[len(_BEARER) :].strip()
        if credentials.startswith(PREFIX):
            if self._keys is None:
                raise CredentialsInvalid
            return self._keys.identify(credentials)
        if self._tokens is None:
            raise CredentialsInvalid
        return await self._tokens.identify(credentials, certificate)


def authenticator(settings: RpcSettings) -> Authenticator | None:
    """The authenticator that the settings describe; None for an insecure process.

    Raises:
        SettingsInvalid: the settings describe none.
    """
    if settings.insecure:
        return None
    keys, certificates = settings.api_keys_file, settings.certificate_identities_file
    try:
        return Authenticator(
            _tokens(settings),
            KeyRing(keys) if keys is not None else None,
            CertificateIdentities(certificates) if certificates is not None else None,
        )
    except (OSError, ValueError) as error:
        raise SettingsInvalid(str(error)) from error


def _tokens(settings: RpcSettings) -> Tokens | None:
    if settings.jwks is None or settings.issuer is None:
        return None
    return Tokens(
        key_set(settings.jwks, settings.jwks_refresh_seconds, settings.jwks_maximum_age_seconds),
        audience=settings.audience,
        issuer=settings.issuer,
        algorithms=frozenset(settings.token_algorithms),
        leeway_seconds=settings.token_leeway_seconds,
        roles=RoleClaims(settings.token_roles_claim, frozenset(settings.token_default_roles)),
    )
