"""A program with the Python client: commands on standard input, reports on standard output, one JSON object per
line. driver.mjs is the same with the JavaScript client.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from notifier.client import (
    ArrivalError,
    Client,
    Message,
    Recovered,
    Report,
    Resync,
    Skipped,
    Status,
    Subscription,
    connect,
)


def show(**report: Any) -> None:
    print(json.dumps(report), flush=True)  # noqa: T201


async def take(client: Client) -> None:
    report: Report
    async for report in client:
        company = report.company
        match report:
            case Message():
                show(company=company, kind="message", type=report.type, position=report.position)
            case Recovered():
                show(company=company, kind="recovered", position=report.position)
            case Skipped():
                show(company=company, kind="skipped", position=report.position)
            case Resync():
                show(company=company, kind="resync", reason=report.reason, position=report.position)
            case Status():
                show(company=company, kind="status", state=report.state, reason=report.reason)


async def wait(subscription: Subscription, tx: str) -> None:
    try:
        position = await subscription.arrived(tx)
    except ArrivalError as error:
        show(company=subscription.company, kind="failed", code=error.code)
    else:
        show(company=subscription.company, kind="arrived", position=position)


async def main(url: str, token: str) -> None:
    subscriptions: dict[str, Subscription] = {}
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    async with connect(url, lambda: token, min_delay=0.1) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(take(client))
        while line := await lines.readline():
            command = json.loads(line)
            verb, company = command.pop("verb"), command.pop("company")
            match verb:
                case "subscribe":
                    subscriptions[company] = client.subscribe(company, **command)
                case "unsubscribe":
                    subscriptions[company].unsubscribe()
                case "filter":
                    subscriptions[company].set_filter(**command)
                case _:
                    tasks.create_task(wait(subscriptions[company], command["tx"]))
        await client.close()


asyncio.run(main(*sys.argv[1:]))
