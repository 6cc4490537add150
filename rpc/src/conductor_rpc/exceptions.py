"""What can go wrong, in the domain's own terms. Nothing here knows gRPC; ``errors.py`` holds the table to statuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks its rule."""

    field: str
    """Path of the field, for example ``build.change.added_line_count``."""
    description: str
    """The rule, as a sentence."""


class ConductorError(Exception):
    """An error that the caller is told of. Its text goes to the caller."""


class InvalidRequest(ConductorError):
    """Fields break their rules."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations[:3]))


class BatchTooLarge(ConductorError):
    """A batch holds more items than it may."""

    def __init__(self, field: str, count: int | None, limit: int) -> None:
        """``count``: None where nobody counted to the end."""
        self.field, self.limit = field, limit
        super().__init__(f"{field} holds {'too many' if count is None else count} items; the limit is {limit}")


class CredentialsInvalid(ConductorError):
    """No credentials, or ones that do not hold. Always the same text: which part did not hold is nobody's business."""

    def __init__(self) -> None:
        super().__init__("valid credentials are required: a bearer token, an API key or a client certificate")


class RoleRequired(ConductorError):
    """The credentials hold, and do not allow this method."""

    def __init__(self, roles: Iterable[str]) -> None:
        """``roles``: any one of them would do."""
        self.roles = tuple(sorted(roles))
        super().__init__(
            f"this call takes the role {' or '.join(self.roles)}" if self.roles else "no role allows this call"
        )


class TenantMismatch(ConductorError):
    """The request names another tenant than the credentials. The same text whether that tenant exists or not."""

    def __init__(self) -> None:
        super().__init__("the request's tenant is not the credentials' tenant")


class Overloaded(ConductorError):
    """The process has as much work as it takes on."""

    def __init__(self, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        super().__init__("the server has as much work as it takes on; try again later")


class TenantOverloaded(ConductorError):
    """The tenant has as many calls under way as its share."""

    def __init__(self, limit: int, retry_seconds: float) -> None:
        self.limit, self.retry_seconds = limit, retry_seconds
        super().__init__(f"the tenant has its share of {limit} calls under way; try again later")


class RateLimited(ConductorError):
    """The tenant asks more a second than it may."""

    def __init__(self, limit: float, retry_seconds: float) -> None:
        self.limit, self.retry_seconds = limit, retry_seconds
        super().__init__(f"the tenant may ask {limit:g} questions a second; try again later")


class NoPrediction(ConductorError):
    """No model, no history and no default to answer from."""

    def __init__(self) -> None:
        super().__init__("there is no model, no history and no default to answer from")


class ModelNotFound(ConductorError):
    """No such model is loaded for the tenant. The same text whether it exists elsewhere or not."""

    def __init__(self, name: str, version: str = "") -> None:
        wanted = f"version {version!r} of model {name!r}" if version else f"model {name!r}"
        super().__init__(f"{wanted} is not loaded for this tenant")


class ModelNotRun(ConductorError):
    """The model failed on the rows. Why is in the server's log: a graph's own words may tell of its making."""

    def __init__(self) -> None:
        super().__init__("the model could not be run on these rows")


class ModelUnknown(ConductorError):
    """The model store holds no such model, version or channel of the caller's."""


class ModelMoved(ConductorError):
    """Somebody else moved the channel at the same time."""


class ModelDamaged(ConductorError):
    """The version may not serve: damaged, or not signed by a trusted key."""


class ModelStoreDown(ConductorError):
    """The model store does not answer, or refuses to be written to."""

    def __init__(self) -> None:
        super().__init__("the model store does not answer, or can't be written to; try again later")


class ModelAdminRequired(ConductorError):
    """Moving a global model takes more than a role."""

    def __init__(self) -> None:
        super().__init__("moving a global model takes the scope models:admin")


class AuditUnavailable(ConductorError):
    """The audit log can't be written, so that no administrative call is carried out."""

    def __init__(self, *, carried_out: bool) -> None:
        """``carried_out``: only the outcome could not be written."""
        self.carried_out = carried_out
        done = "the call was carried out, but its outcome was not written" if carried_out else "nothing was done"
        super().__init__(f"the audit log can't be written: {done}")


class ModelAuthorityMissing(ConductorError):
    """This server has no key to sign moves of channels with."""

    def __init__(self) -> None:
        super().__init__(
            "this server has no key that is trusted to move channels; use `conductor models` where there is one, or "
            "give the server one (model_operator_key)"
        )


class WarehouseUnavailable(ConductorError):
    """The database does not answer; nothing was acknowledged."""

    def __init__(self, text: str = "the warehouse does not answer; publish again later") -> None:
        super().__init__(text)


class DeadlineTooShort(ConductorError):
    """The deadline had passed, or would have before an answer could be given."""

    def __init__(self) -> None:
        super().__init__("the deadline had passed, or would have before an answer could be given")


class Stopping(ConductorError):
    """The process is stopping; another one answers."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; another one answers")
