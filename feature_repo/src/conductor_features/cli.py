"""``conductor features``: what is defined, what the online store holds, and Feast's apply and materialize."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from conductor_client.output import USAGE, OutputFormat, OutputOption, fail, print_record, print_rows
from conductor_features.settings import FeatureSettings
from conductor_features.views import VIEWS, View

if TYPE_CHECKING:
    from feast import FeatureStore

    from conductor_features.rows import FeatureRow, Missing

commands = typer.Typer(help="Feature views and the online store.", no_args_is_help=True)

_ViewArgument = Annotated[str, typer.Argument(help="View with its version, for example pipeline_builds_v1.")]
_RedisOption = Annotated[str | None, typer.Option("--redis-url", help="Online store; else CONDUCTOR_REDIS_URL.")]
_DatabaseOption = Annotated[str | None, typer.Option("--database-url", help="Warehouse; else CONDUCTOR_DATABASE_URL.")]
_GET_TIMEOUT_SECONDS = 2.0
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""No event is older."""


# Further commands come from the member that holds the history.
for _entry in sorted(entry_points(group="conductor.commands.features"), key=lambda entry: entry.name):
    commands.command(_entry.name)(_entry.load())


@commands.command("list", epilog="Example: conductor features list -o json")
def list_views(output: OutputOption = OutputFormat.TABLE) -> None:
    """List the feature views."""
    print_rows(
        [
            {
                "view": view.key,
                "entity": list(view.entity),
                "fields": len(view.fields),
                "maximum_age": view.maximum_age,
                "owner": view.owner,
                "description": view.description,
            }
            for view in VIEWS.values()
        ],
        output,
    )


@commands.command("show", epilog="Example: conductor features show pipeline_builds_v1")
def show_view(view: _ViewArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show a view: what it is of, who owns it, the event fields that feed it, and its fields."""
    found = _find(view)
    fields = [{"field": field.name, "unit": field.unit, "description": field.description} for field in found.fields]
    record: dict[str, object] = {
        "view": found.key,
        "description": found.description,
        "entity": list(found.entity),
        "version": found.version,
        "owner": found.owner,
        "maximum_age": found.maximum_age,
        "lineage": list(found.lineage),
    }
    if output is OutputFormat.JSON:
        print_record(record | {"fields": fields}, output)
        return
    print_record(record, output)
    print_rows(fields, output)


@commands.command(
    "get",
    epilog="Example: conductor features get pipeline_builds_v1 --entity tenant_id=acme --entity repository=acme/app "
    "--entity pipeline=ci",
)
def get_row(
    view: _ViewArgument,
    entity: Annotated[list[str], typer.Option("--entity", help="One join key as name=value; all of the view's.")],
    redis_url: _RedisOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what the online store holds of one entity, as the server reads it. Fails where there is no usable row."""
    from conductor_features.rows import Missing, from_microseconds

    found_view = _find(view)
    key = _parse_entity(found_view, entity)
    row = asyncio.run(_read(found_view, key, _settings(redis_url=redis_url).redis_url))
    if isinstance(row, Missing):
        fail(f"{view} of {' / '.join(key)}: {row.reason}")
    record: dict[str, object] = dict(zip(found_view.entity, key, strict=True))
    record |= {"event_time": row.event_time, "written_time": from_microseconds(row.written_time_us)}
    record |= zip(found_view.field_names, row.values.tolist(), strict=True)
    print_record(record, output)


@commands.command("apply", epilog="Example: conductor features apply --database-url postgresql://localhost/conductor")
def apply_definitions(
    database_url: _DatabaseOption = None, redis_url: _RedisOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Register the definitions with Feast. Repeating it changes nothing."""
    from conductor_features.feast_store import apply

    store, settings = _open_store(database_url, redis_url)
    with contextlib.redirect_stdout(sys.stderr):  # Feast prints what it does; ours is the answer
        apply(store)
    print_record({"views": list(VIEWS), "registry": str(settings.feast_registry)}, output)


@commands.command(
    "materialize",
    epilog="Examples: conductor features materialize --since 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z; "
    "conductor features materialize --rebuild",
)
def materialize(
    since: Annotated[
        str | None, typer.Option(help="ISO 8601; else as far back as each view's rows are served.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="ISO 8601; else now.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="All that the log holds, whatever its age: after a loss of Redis.")
    ] = False,
    database_url: _DatabaseOption = None,
    redis_url: _RedisOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Carry the latest rows of the feature log to the online store, for example into an empty Redis.

    Safe beside the tailing writer and the server: a row never replaces one of a later moment. The tailing writer
    refills a Redis that lost everything by itself; this also mends one that lost a part.
    """
    from conductor_features.feast_store import apply

    end = _moment("--until", until) or datetime.now(UTC)
    start = _moment("--since", since)
    if rebuild and start is not None:
        _usage("--rebuild is everything: it goes without --since")
    if rebuild:
        start = _BEGINNING
    if start is not None and start >= end:
        _usage("--since must be before --until")
    store, _ = _open_store(database_url, redis_url)
    starts = {view.key: start or end - view.maximum_age for view in VIEWS.values()}
    with contextlib.redirect_stdout(sys.stderr):
        apply(store)
        for key, view_start in starts.items():
            store.materialize(view_start, end, feature_views=[key])
    print_rows([{"view": key, "since": view_start, "until": end} for key, view_start in starts.items()], output)


def _find(key: str) -> View:
    if key not in VIEWS:
        _usage(f"no view {key!r}; there are {', '.join(VIEWS)}")
    return VIEWS[key]


def _parse_entity(view: View, pairs: list[str]) -> tuple[str, ...]:
    given = dict(pair.partition("=")[::2] for pair in pairs)
    if given.keys() != set(view.entity) or not all(given.values()):
        _usage(f"{view.key} needs {' '.join(f'--entity {name}=…' for name in view.entity)}")
    return tuple(given[name] for name in view.entity)


async def _read(view: View, entity: tuple[str, ...], redis_url: str) -> FeatureRow | Missing:
    from conductor_features.reader import OnlineReader, OnlineStoreUnavailable

    async with OnlineReader(redis_url, _GET_TIMEOUT_SECONDS) as reader:
        try:
            return (await reader.read([(view, entity)]))[0]
        except OnlineStoreUnavailable as error:
            fail(f"can't read the online store: {error.reason}")


def _settings(**flags: str | None) -> FeatureSettings:
    return FeatureSettings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]


def _open_store(database_url: str | None, redis_url: str | None) -> tuple[FeatureStore, FeatureSettings]:
    settings = _settings(database_url=database_url, redis_url=redis_url)
    if settings.database_url is None:
        _usage("say where the warehouse is: --database-url or CONDUCTOR_DATABASE_URL")
    from conductor_features.feast_store import open_store

    return open_store(settings.database_url, settings.redis_url, settings.feast_registry), settings


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _usage(f"{option} {text!r} is no time in ISO 8601")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _usage(message: str) -> NoReturn:
    fail(message, USAGE)
