"""Servers of NATS, as NATS_URL names them."""

from __future__ import annotations

from urllib.parse import ParseResult, urlparse


def parse(urls: str) -> list[ParseResult]:
    """The servers of NATS_URL, separated by commas. Raises ValueError, without the URL, which may hold a password."""
    servers = [urlparse(url.strip()) for url in urls.split(",") if url.strip()]
    for server in servers:
        try:
            _ = server.port
        except ValueError:  # its text has the port, which may be a part of a password
            raise ValueError("the port must be a number up to 65535") from None
        if server.scheme not in ("nats", "tls") or not server.hostname:
            raise ValueError("must be like nats://host:4222 or tls://host:4222")
        if server.path not in ("", "/") or server.query or server.fragment:
            raise ValueError("only a server and a user can be named, such as nats://host:4222")
    if not servers:
        raise ValueError("names no server")
    return servers
