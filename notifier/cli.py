"""The command line. What goes wrong is one line on stderr and an exit status that is not 0."""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from notifier import __version__, logs
from notifier.access.tokens import sign
from notifier.client import Position
from notifier.client import listen as listening
from notifier.errors import NotifierError, SettingsError
from notifier.settings import load

app = typer.Typer(
    name="notifier",
    help="Committed changes of PostgreSQL rows, to the WebSocket clients of their company.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """The entry point: errors of ours become a line and a status."""
    try:
        app()
    except SettingsError as error:
        _fail(error, 2)
    except NotifierError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def _fail(error: NotifierError, status: int) -> None:
    print(f"notifier: {error}", file=sys.stderr)
    sys.exit(status)


def _say(line: str) -> None:
    _out.print(line, markup=False)


def _version(wanted: bool) -> None:
    if wanted:
        _say(f"notifier {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; each is a node.")] = 1,
    ssl_certfile: Annotated[Path | None, typer.Option(help="For wss://")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Relay changes and serve WebSocket clients."""
    from notifier import server

    settings = load(host=host, port=port, ssl_certfile=ssl_certfile, ssl_keyfile=ssl_keyfile)
    logs.set_up(settings.log_level, settings.log_format)
    server.run(settings, workers, lambda address: _say(f"listening on {address}"))


@app.command()
def migrate(
    calendar: Annotated[
        bool, typer.Option("--calendar", help="Also create companies, employees, events.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    grant: Annotated[
        str | None, typer.Option(help="A role that may then run `serve`, and nothing more.")
    ] = None,
) -> None:
    """Bring the database to what this version needs: schema `notifier` and the triggers."""
    from notifier.database import schema

    settings = load()
    asyncio.run(
        schema.migrate(
            settings.listen_database,
            calendar=calendar,
            watches=settings.watch,
            max_log_bytes=settings.max_log_bytes,
            dry_run=dry_run,
            grant=grant,
            tell=_say,
        )
    )
    if not dry_run:
        _say(f"schema notifier: {schema.newest()}, {len(settings.watch)} tables are watched")


@app.command()
def check() -> None:
    """Is the whole path sound? Exit status 1, and what is not, where it is not."""
    from notifier import check as checks

    sound = True
    for finding in asyncio.run(checks.check(load())):
        mark = {True: "ok", False: "NOT SOUND", None: "note"}[finding.sound]
        _say(f"{mark}: {finding.line}")
        sound = sound and finding.sound is not False
    if not sound:
        raise NotifierError("the path is not sound")


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8181,
    data: Annotated[Path | None, typer.Option(help="Where PostgreSQL keeps its files.")] = None,
) -> None:
    """Everything at once: an embedded PostgreSQL, a sample company, the server, a live page."""
    from notifier.demo import run as everything

    logs.set_up("warning", "auto")
    everything.run(port, data, _say)


@app.command()
def uninstall(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the triggers and the schema `notifier` out of the database; never a table of yours."""
    from notifier.database import schema

    settings = load()
    if not yes:
        if not sys.stdin.isatty():
            raise NotifierError("this drops the schema notifier; say --yes")
        typer.confirm("Drop the schema notifier and its triggers?", abort=True)
    asyncio.run(schema.uninstall(settings.listen_database, _say))


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The `sub` claim: an employees.user_id.")],
    company: Annotated[
        list[str] | None, typer.Option(help="For AUTHORIZATION=claim; may be repeated.")
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, help="Seconds.")] = 3600,
) -> None:
    """Print a token for development, signed with JWT_SECRET."""
    print(_signed(user, company, ttl))


@app.command()
def listen(
    *,
    url: Annotated[str, typer.Option(metavar="WS", help="wss://… of the notifier.")],
    company: Annotated[str, typer.Option(metavar="ID", help="Whose messages.")],
    token: Annotated[str | None, typer.Option(help="What says who you are.")] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Sign tokens for this user with JWT_SECRET.")
    ] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Resume after this position…")] = None,
    epoch: Annotated[str | None, typer.Option(help="…of this log.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A message a line, as it was received.")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="A file that remembers where to resume next time.")
    ] = None,
) -> None:
    """Print a company's messages as they are committed, until Ctrl-C."""
    if user is not None and token is None:
        get_token = functools.partial(_signed, user, [company], 3600)
    elif token is not None and user is None:
        get_token = functools.partial(str, token)
    else:
        raise SettingsError("say either --token or --user")
    if (after is None) != (epoch is None):
        raise SettingsError("--after and --epoch go together")
    position = None if after is None or epoch is None else Position(after, epoch)
    try:
        asyncio.run(
            listening.listen(
                url,
                company,
                get_token,
                position=position,
                state=state,
                as_json=as_json,
                renewable=user is not None,
            )
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise typer.Exit(141) from None


def _signed(user: str, companies: list[str] | None, ttl: int) -> str:
    settings = load()
    if settings.jwt_secret is None:
        raise SettingsError("NOTIFIER_JWT_SECRET is not set: only a secret can sign")
    issuers, audiences = settings.jwt_issuer, settings.jwt_audience
    return sign(
        user,
        companies,
        ttl,
        settings.jwt_secret.get_secret_value(),
        algorithm=settings.jwt_algorithms[0] if settings.jwt_algorithms else "HS256",
        issuer=issuers[0] if issuers else None,
        audience=audiences[0] if audiences else None,
    )
