"""The checks of NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import ParseResult

from notifier.check.findings import Finding
from notifier.errors import SettingsError
from notifier.nats.client import NatsClient
from notifier.nats.link import CONNECT_SECONDS, FLUSH_SECONDS, Link, Unusable, place, reason_of
from notifier.nats.path import link_of
from notifier.nats.subjects import company_subject, log_subject, subject_prefix
from notifier.settings import Settings

REMEDY = "see that it runs, and that NOTIFIER_NATS_URL and NOTIFIER_NATS_CREDENTIALS are right"
AUTHORIZE = "configure its authorization (docs/nats.md)"


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """For each server: whether this node can use it, and whether anonymous clients can."""
    try:
        link = link_of(settings)
    except SettingsError as error:
        yield Finding(False, str(error))
        return
    prefix = subject_prefix(settings.nats_prefix, settings.schema)
    for server in settings.nats_servers:
        where = f"NATS at {place(server)}"
        try:
            await _use(link, server, prefix)
        except Unusable as error:
            yield Finding(False, f"{where}: {error}", REMEDY)
            continue
        yield Finding(True, f"{where} can be used")
        anonymous = server._replace(netloc=place(server))
        try:
            await _use(Link([anonymous], None, "notifier check"), anonymous, prefix)
        except Unusable:
            yield Finding(True, f"{where} accepts no anonymous publishers")
        else:
            yield Finding(
                None,
                f"{where} accepts anonymous publishers: what they forge is refused by its signature,"
                " but they can read every message",
                AUTHORIZE,
            )


async def _use(link: Link, server: ParseResult, prefix: str) -> None:
    """Publishes and subscribes as a node does, with the empty company id. Raises Unusable."""
    client = NatsClient(lambda *_: None)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await link.open(client, server)
        await client.subscribe(log_subject(prefix))
        await client.subscribe(company_subject(prefix, ""))
        await client.publish(company_subject(prefix, ""), b"")
        if not await client.answers(FLUSH_SECONDS):
            client.end("no answer in time")
        refused = client.reason  # of a permission: the server answers, and the library goes on
    except Exception as error:  # whatever the library raises
        raise Unusable(client.reason or reason_of(error)) from error
    finally:
        await client.abort()
    if refused:
        raise Unusable(refused)
