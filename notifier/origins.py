"""Web origins (RFC 6454), as browsers send them in the Origin header."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\]")


def normalize(text: str) -> str:
    """An origin as a browser serializes it: `HTTPS://App.example:443/` is `https://app.example`.

    Accepts `null` (sandboxed frames, files). Raises ValueError, which names what is wrong.
    """
    if text.lower() == "null":
        return "null"
    if "*" in text:
        raise ValueError(f"{text!r}: patterns are not supported; * alone allows every origin")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not an origin such as https://app.example.com") from None
    host = parts.netloc.removesuffix(f":{port}") if port is not None else parts.netloc
    if not parts.scheme or not host or "://" not in text:
        raise ValueError(f"{text!r} is not an origin such as https://app.example.com")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in host:
        raise ValueError(f"{text!r}: an origin is scheme, host and port, without path or user")
    try:
        host = host if host.startswith("[") else host.encode("idna").decode()
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} is not an origin such as https://app.example.com")
    suffix = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host.lower()}{suffix}"
