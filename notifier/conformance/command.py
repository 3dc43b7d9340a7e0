"""The command `notifier conformance`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from notifier.errors import NotifierError


def conformance_command(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="Starts the client; {url}, {company} and {token} in it are replaced. It has to print each"
            " message as a line of JSON, and `resync` where it reads its state again. Without"
            " COMMAND, clients are started by hand, and only what they send is checked.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=65535,
            help="Port to listen on without COMMAND; 0 for any free one.",
        ),
    ] = 0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this scenario. Repeatable.")
    ] = None,
) -> None:
    """Show the errors of a client of yours. Exits with 1 if there are any."""
    from notifier.conformance import run

    scenarios = run.choose(only or ())
    verdicts = asyncio.run(
        run.conformance(command, scenarios, typer.echo)
        if command
        else run.by_hand(port, scenarios, typer.echo)
    )
    wrong = [each for each in verdicts if each.wrong is not None]
    if wrong:
        raise NotifierError(f"{len(wrong)} of {len(verdicts)} scenarios went wrong")
