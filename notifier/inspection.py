"""The commands that inspect a database: `notifier check`, `notifier why` and `notifier init`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from notifier.database import sql
from notifier.errors import NotifierError, one_line
from notifier.settings import load


def check_command(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, for programs.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Print only what there is something to do about: for cron."),
    ] = False,
) -> None:
    """Check every link from trigger to client. Exits with 1 and lists the problems, if there are any."""
    from notifier.check import findings, links

    settings = load()
    sql.use_schema(settings.schema)
    found = asyncio.run(links.check(settings))
    shown = [finding for finding in found if finding.is_actionable or not quiet]
    if as_json:
        typer.echo(findings.as_json(shown))
    for finding in shown if not as_json else ():
        mark = {True: "ok", False: "NOT SOUND", None: "note"}[finding.sound]
        typer.echo(f"{mark}: {one_line(finding.line)}")
    if any(finding.sound is False for finding in found):
        raise NotifierError("one or more checks failed")


def why_command(
    *,
    company: Annotated[str, typer.Option(metavar="ID", help="Company ID.")],
    user: Annotated[
        str | None,
        typer.Option(metavar="ID", help="User ID: also explain what this user may see."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="T", help="The changed row: its table or entity …")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="K", help="… and its key; of several columns, a JSON array."),
    ] = None,
    tx: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=2**63 - 1, help="Or: the writer's transaction."),
    ] = None,
    position: Annotated[
        int | None, typer.Option(metavar="P", min=1, max=2**63 - 1, help="Or: the position.")
    ] = None,
) -> None:
    """Explain why a change was, or was not, delivered. Reads the database; prints no row values."""
    from notifier.why import explanation
    from notifier.why.question import Question

    question = Question(company=company, user=user, table=table, key=key, tx=tx, position=position)
    settings = load()
    sql.use_schema(settings.schema)
    found = asyncio.run(explanation.explain(settings, question))
    for fact in found.facts:
        typer.echo(one_line(fact))
    typer.echo(one_line(f"answer: {found.answer}"))
    if not found.is_found:
        raise NotifierError("the database does not show which of these it was")


def init_command(
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="Table whose rows are the companies. Default: the likeliest."
        ),
    ] = None,
) -> None:
    """Print a notifier.toml that suits the tables of your database. Changes nothing."""
    from notifier.database import proposal

    settings = load()
    sql.use_schema(settings.schema)
    text = asyncio.run(proposal.propose(settings.listen_database, tenant))
    sys.stdout.buffer.write(text.encode())  # whatever the locale is
