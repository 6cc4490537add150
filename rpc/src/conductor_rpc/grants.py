"""What a file may grant to whoever shows a key or a certificate."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from conductor_rpc.roles import SCOPES


class Grant(BaseModel):
    """A tenant, and what is allowed there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant_id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
    roles: frozenset[str]
    """Roles and further scopes, see ``roles.py``."""

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: frozenset[str]) -> frozenset[str]:
        if unknown := roles - SCOPES:
            raise ValueError(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}")
        return roles


def wrong_with(error: ValidationError) -> str:
    """What a file or an argument does not allow, in a line, without its values."""
    found = (
        f"{'.'.join(map(str, part['loc']))}: {part['msg'].removeprefix('Value error, ')}"
        for part in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(found)
