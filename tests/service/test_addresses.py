"""Sockets are counted by the address of their peer; a proxy's word is taken for it if it is trusted."""

from __future__ import annotations

import json

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.raw import CLOSE, Raw, RawSocket


async def refused(client: RawSocket) -> bool:
    """Whether it is refused for now, with the time after which to return."""
    first = await client.frame()
    message = json.loads(first.payload) if first.opcode != CLOSE else {}
    if message.get("Type") != "Disconnect":
        return False
    assert message["Data"]["Code"] == 4429
    assert message["Data"]["Reconnect"] is True
    assert message["Data"]["RetryAfterMs"] > 0
    return await client.code() == 4429


async def welcome(client: RawSocket) -> bool:
    await client.send_text('{"type": "ping"}')
    return b"Pong" in (await client.frame()).payload


async def test_c17_an_address_has_no_more_sockets_than_allowed(
    database: Database, serve: Serve, connect: Connect, raw: Raw
) -> None:
    """An address that a client names itself is not trusted."""
    service = await serve(database, max_connections_per_address=2)
    company = await Calendar(database).company("u1")
    client = await connect(service, "u1", company)
    second = await raw.upgrade(service, "X-Forwarded-For: 192.0.2.1\r\n")
    for address in ("192.0.2.2", "192.0.2.3"):
        assert await refused(await raw.upgrade(service, f"X-Forwarded-For: {address}\r\n"))
    assert "MAX_CONNECTIONS_PER_ADDRESS" in service.log()
    assert service.log().count("an address has as many sockets") == 1
    assert '"address":"127.0.0.1"' in service.log()
    await second.drop()
    await Calendar(database).event(company)
    await client.expect("EventCreated")


async def test_c17_addresses_from_a_trusted_proxy_are_counted(
    database: Database, serve: Serve, raw: Raw
) -> None:
    """The last address that no proxy has, whatever the client put before it; IPv6 by /64."""
    service = await serve(
        database, max_connections_per_address=2, trusted_proxies="127.0.0.0/8, 10.0.0.1"
    )
    for forwarded in ("192.0.2.1", "198.51.100.1, 192.0.2.1", "192.0.2.1, 10.0.0.1"):
        client = await raw.upgrade(service, f"X-Forwarded-For: {forwarded}\r\n")
        if forwarded.endswith("10.0.0.1"):
            assert await refused(client)
        else:
            assert await welcome(client)
    for number in range(3):
        client = await raw.upgrade(service, f"X-Forwarded-For: 2001:db8::{number}\r\n")
        assert await (welcome(client) if number < 2 else refused(client))
    assert await welcome(await raw.upgrade(service, "X-Forwarded-For: 2001:db8:0:1::1\r\n"))


async def test_c17_a_trusted_proxy_may_reach_a_socket_of_ipv6_over_ipv4(
    database: Database, serve: Serve, raw: Raw
) -> None:
    """Its address is then ::ffff:127.0.0.1, and so may be one that it names."""
    service = await serve(
        database, "--host", "::", max_connections_per_address=1, trusted_proxies="127.0.0.1"
    )
    for forwarded in ("192.0.2.1", "192.0.2.2", "192.0.2.3, ::ffff:127.0.0.1"):
        assert await welcome(await raw.upgrade(service, f"X-Forwarded-For: {forwarded}\r\n"))
    assert await refused(await raw.upgrade(service, "X-Forwarded-For: ::ffff:192.0.2.1\r\n"))
