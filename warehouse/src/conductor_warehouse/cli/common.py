"""What the commands of the warehouse share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conductor_client.output import USAGE, OutputFormat, fail, print_record

if TYPE_CHECKING:
    from psycopg import Connection

    from conductor_warehouse.ingestion import IngestResult
    from conductor_warehouse.settings import WarehouseSettings

DatabaseOption = Annotated[
    str | None, typer.Option(help="The warehouse, postgresql://…; else CONDUCTOR_DATABASE_URL.", show_default=False)
]
TenantOption = Annotated[str | None, typer.Option(help="Only this tenant.", show_default=False)]


def open_settings(**flags: Any) -> WarehouseSettings:
    """Settings with a database; ends the command where they make no sense."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from conductor_warehouse.settings import DatabaseNotConfigured, WarehouseSettings

    try:
        settings = WarehouseSettings.from_flags(**flags)
        settings.require_database_url()
    except (ValidationError, SettingsError, DatabaseNotConfigured) as error:
        fail(str(error), USAGE)
    return settings


@contextmanager
def database_errors() -> Iterator[None]:
    """Ends the command with a clear text where the database does not answer or lacks tables."""
    import psycopg

    from conductor_warehouse.schema import SchemaMismatch

    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction):
        fail("the database lacks tables: run `conductor warehouse migrate`")
    except (psycopg.Error, SchemaMismatch) as error:
        fail(f"the warehouse: {error}")


@contextmanager
def open_connection(settings: WarehouseSettings) -> Iterator[Connection[Any]]:
    """A connection to the warehouse; errors end the command with a clear text."""
    import psycopg

    with database_errors(), psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        yield connection


def print_result(result: IngestResult, output: OutputFormat) -> None:
    """Tell what became of events."""
    record: dict[str, object] = {
        "received": result.received,
        "stored": result.stored,
        "duplicates": result.duplicates,
        "expired": result.expired,
        "parked": result.parked,
        "dead_letters": result.dead_letter_count,
        "feature_rows": result.feature_rows,
    }
    if output is OutputFormat.JSON:
        record["first_dead_letters"] = [
            {
                "tenant": letter.tenant_id,
                "event_source": letter.source,
                "event_id": letter.event_id,
                "reason": letter.reason,
            }
            for letter in result.dead_letters
        ]
    print_record(record, output)
    if output is OutputFormat.TABLE:
        for letter in result.dead_letters[:5]:
            typer.echo(f"  {letter.event_id or '(no id)'}: {letter.reason}", err=True)
        if result.dead_letter_count > 5:
            typer.echo("  … `conductor events dead-letter list` shows all", err=True)
        if result.parked:
            typer.echo("  batches that look wrong were parked: `conductor quality parked list`", err=True)
