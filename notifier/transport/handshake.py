"""A WebSocket handshake whose request an HTTP parser has already received."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote

_PARSED = (
    b"connection",
    b"host",
    b"origin",
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"upgrade",
)
"""The headers that websockets reads, but for those about a body, which is refused before. It refuses lines over 8 KiB and more than 128 headers."""


class Handshake(NamedTuple):
    """A request as the HTTP parser received it; header names are in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]

    def parsed_again(self) -> bytes:
        """The part of it that websockets must parse again."""
        path = b"/" if self.target.isascii() else self.target  # which websockets refuses
        lines = [b"%b %b HTTP/1.1" % (self.method, path)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] in _PARSED]
        return b"\r\n".join([*lines, b"", b""])

    def complete(self, scope: dict[str, Any]) -> None:
        """Puts the rest of it into the ASGI scope that was made of that part."""
        path, _, query = self.target.partition(b"?")
        scope["path"] = scope["root_path"] + unquote(path.decode("ascii"))
        scope["raw_path"] = scope["root_path"].encode() + path
        scope["query_string"] = query
        scope["headers"] = self.headers
