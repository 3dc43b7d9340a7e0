"""The commands that change what is installed in a database: `notifier migrate` and `notifier uninstall`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from notifier.errors import NotifierError, SettingsError, one_line
from notifier.settings import load


def migrate_command(
    calendar: Annotated[
        bool,
        typer.Option(
            "--calendar",
            help="Also create the tables companies, employees and events where they are missing.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")
    ] = False,
    grant: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Grant this role exactly what `notifier serve` needs."),
    ] = None,
    state: Annotated[
        bool, typer.Option("--state", help="With --grant: for STATE=on, SELECT on watched tables.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA.TABLE",
            help="Only these tables of new tenants, such as 'workspace_x.*'; nothing else is touched.",
        ),
    ] = None,
) -> None:
    """Install or upgrade the schema `notifier` and the triggers. Safe to repeat."""
    from notifier.database import revisions, schema, sql

    settings = load()
    sql.use_schema(settings.schema)
    if only is not None:
        if calendar or dry_run or grant is not None or state:
            raise SettingsError("--only goes with no other option")
        asyncio.run(
            schema.migrate_only(
                settings.listen_database, only, watches=settings.given_watches, report=_report
            )
        )
        return
    asyncio.run(
        schema.migrate(
            settings.listen_database,
            calendar=calendar,
            watches=settings.given_watches,
            naive_timestamps=settings.naive_timestamps,
            scopes=settings.scope,
            membership_query=settings.membership_query,
            user_query=settings.user_query,
            max_log_bytes=settings.max_log_bytes,
            doorbell=settings.doorbell,
            dry_run=dry_run,
            grant=grant,
            state=state,
            report=_report,
        )
    )
    if not dry_run:
        patterns = sum(watch.pattern is not None for watch in settings.watch)
        tables = f"{len(settings.watch) - patterns} tables"
        if patterns:
            tables += f" and {patterns} patterns"
        typer.echo(f"schema {settings.schema}: {revisions.newest()}, {tables} are watched")


def uninstall_command(
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
) -> None:
    """Remove the triggers and the schema `notifier`. Your tables stay."""
    from notifier.database import schema, sql

    settings = load()
    sql.use_schema(settings.schema)
    if not yes:
        if not sys.stdin.isatty():
            raise NotifierError(f"this drops the schema {settings.schema}; confirm with --yes")
        typer.confirm(f"Drop the schema {settings.schema} and its triggers?", abort=True)
    asyncio.run(schema.uninstall(settings.listen_database, _report))


def _report(line: str) -> None:
    typer.echo(one_line(line))
