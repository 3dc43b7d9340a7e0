"""The command line. An error is one line on stderr and an exit status that is not 0."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from notifier import __version__, inspection, installation, logs, systemd
from notifier.client import listen
from notifier.client.reports import Position
from notifier.client.transports import Choice
from notifier.conformance.command import conformance_command
from notifier.errors import NotifierError, SettingsError, one_line
from notifier.settings import load
from notifier.token_source import sign_token, token_source
from notifier.types.language import Language

app = typer.Typer(
    name="notifier",
    help="Sends committed changes of PostgreSQL rows to the WebSocket clients of their company.",
    epilog="Every NOTIFIER_ variable is in the table of the README.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_log = structlog.get_logger("notifier")
_console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """The entry point. Turns our errors into one line and an exit status."""
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
    typer.echo(f"notifier: {one_line(str(error))}", err=True)
    sys.exit(status)


def _print(line: str) -> None:
    _console.print(line, markup=False)


def _version(requested: bool) -> None:
    if requested:
        _print(f"notifier {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


@app.command("serve")
def serve_command(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Address to listen on; :: for IPv6 and IPv4.  [env var: NOTIFIER_HOST; default: 0.0.0.0]",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port to listen on; 0 for any free one.  [env var: NOTIFIER_PORT; default: 8181]",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=64, help="Number of processes; each one is a node."),
    ] = 1,
    ssl_certfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certificate chain (PEM), to serve wss:// and https://.  [env var: NOTIFIER_SSL_CERTFILE]",
        ),
    ] = None,
    ssl_keyfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Private key (PEM, not encrypted) of the certificate.  [env var: NOTIFIER_SSL_KEYFILE]",
        ),
    ] = None,
) -> None:
    """Relay changes and serve WebSocket clients until SIGTERM."""
    from notifier import server
    from notifier import workers as processes

    warnings: list[str] = []
    settings = load(
        warn=warnings.append,
        are_options=True,
        host=host,
        port=port,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    logs.set_up(settings.log_level, settings.log_format)
    for line in warnings:
        _log.warning(line)

    def ready(address: str) -> None:
        _log.info("listening", address=address)
        systemd.report(systemd.READY)
        if settings.log_format != "json":
            _print(f"listening on {address}")

    if workers == 1:
        server.run(settings, ready)
    else:
        processes.run(settings, workers, ready)


app.command("migrate")(installation.migrate_command)
app.command("uninstall")(installation.uninstall_command)
app.command("check")(inspection.check_command)
app.command("why")(inspection.why_command)
app.command("init")(inspection.init_command)
app.command("conformance")(conformance_command)


@app.command("types")
def types_command(
    language: Annotated[
        Language, typer.Option("--language", help="Language of the generated code.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="FILE", help="Print nothing; exit with 1 if FILE has other types."
        ),
    ] = None,
) -> None:
    """Print the types of your tables' messages, to be compiled into a client."""
    from notifier.database import sql
    from notifier.types import command

    settings = load()
    sql.use_schema(settings.schema)
    text = asyncio.run(command.generate(settings, language))
    if file is None:
        sys.stdout.buffer.write(text.encode())  # whatever the locale is
    else:
        command.compare(file, text, language)


@app.command("demo")
def demo_command(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on.")
    ] = 8181,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for PostgreSQL's files; kept between runs."),
    ] = None,
    nodes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=9,
            help="Number of nodes, on the ports from PORT on; several share a NATS server.",
        ),
    ] = 1,
) -> None:
    """Run a demo: an embedded PostgreSQL, the server and a live page."""
    from notifier.demo import run

    logs.set_up("warning", "auto")
    run.run(port, data, _print, nodes)


@app.command("token")
def token_command(
    user: Annotated[
        str, typer.Option(metavar="ID", help="User ID, the claim `sub`: an employees.user_id.")
    ],
    company: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Company ID for AUTHORIZATION=claim. Repeatable."),
    ] = None,
    ttl: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="How long the token is valid.")
    ] = 3600,
) -> None:
    """Print a development token, signed with NOTIFIER_JWT_SECRET."""
    typer.echo(sign_token(user, company, ttl))


@app.command("listen")
def listen_command(
    *,
    url: Annotated[
        str,
        typer.Option(
            metavar="WS", envvar="NOTIFIER_URL", help="Address of the service: wss://… or ws://…"
        ),
    ],
    company: Annotated[
        list[str], typer.Option(metavar="ID", help="Company ID to follow; may be repeated.")
    ],
    token: Annotated[
        str | None,
        typer.Option(
            metavar="JWT",
            help="Access token (JWT); @FILE reads it from a file at each connection, - once from"
            " standard input."
            "  [env var: NOTIFIER_TOKEN]",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Instead: sign tokens for this user with NOTIFIER_JWT_SECRET."
        ),
    ] = None,
    after: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Resume after this position …")
    ] = None,
    epoch: Annotated[
        str | None, typer.Option(metavar="E", help="… of the log with this epoch.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="… where the message has this `At`.")
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Print only this type; may be repeated."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTITY.PROPERTY=VALUE",
            help="Only changes of this entity, of rows with this value before or after them; may be"
            " repeated: values of one property are alternatives. 7 is a number, '\"7\"' is text.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after this many messages.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Keep trying even if the first connection cannot work.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each message as it was received, one per line.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that stores the positions to resume from."),
    ] = None,
    transport: Annotated[
        Choice,
        typer.Option(
            metavar="NAME",
            help="websocket, sse or poll: only this one; auto: HTTP where no WebSocket gets through.",
        ),
    ] = "auto",
    http: Annotated[
        bool, typer.Option("--http", help="Over HTTP only: the same as --transport sse.")
    ] = False,
) -> None:
    """Print the messages of companies as they are committed, until Ctrl-C."""
    companies = list(dict.fromkeys(company))
    if token is None and user is None:
        token = os.environ.get("NOTIFIER_TOKEN") or None
    get_token: Callable[[], str]
    if user is not None and token is None:
        get_token = functools.partial(sign_token, user, companies, 3600)
    elif token is not None and user is None:
        get_token = token_source(token)
    else:
        raise SettingsError("give either --token (or NOTIFIER_TOKEN) or --user")
    if (after is None) != (epoch is None):
        raise SettingsError("--after and --epoch go together")
    if after is not None and len(companies) > 1:
        raise SettingsError("--after is the position of one company; use --state for several")
    position = None if after is None or epoch is None else Position(after, epoch, at)
    try:
        asyncio.run(
            listen.listen(
                url,
                companies,
                get_token,
                position=position,
                state=state,
                as_json=as_json,
                types=types or (),
                where=listen.parse_where(where or ()),
                limit=limit,
                renewable=user is not None or str(token).startswith("@"),
                retry=retry,
                transport="sse" if http else transport,
            )
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise typer.Exit(141) from None
