"""Refused handshakes: each is counted by its reason, and logged once per reason and address."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from notifier import metrics
from notifier.access.admission import address_group

FORGET_SECONDS = 3600.0
LOGGED_LIMIT = 1000
"""At most this many lines are logged per FORGET_SECONDS; then a refusal can be logged again."""

DETAIL_CHARACTERS = 200
"""How much of a client's own words is logged."""

_log = structlog.get_logger("notifier.handshakes")


class Reason(StrEnum):
    """The label `reason` of notifier_handshakes_refused_total."""

    ORIGIN = "origin"
    PATH = "path"
    UPGRADE_REMOVED = "upgrade_removed"
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    BODY = "body"
    PIPELINED = "pipelined"
    UPGRADE = "upgrade"
    TIMEOUT = "timeout"
    NOT_HTTP = "not_http"
    PROXY_PROTOCOL = "proxy_protocol"
    TLS = "tls"
    HTTP2 = "http2"


EXPLANATIONS = {
    Reason.ORIGIN: "the Origin is not in ALLOWED_ORIGINS",
    Reason.PATH: "no WebSocket is served at this path; clients connect to the root",
    Reason.UPGRADE_REMOVED: (
        "a proxy removed the headers Upgrade and Connection; configure it to pass WebSocket upgrades"
    ),
    Reason.INVALID: "the request is not a WebSocket handshake (RFC 6455)",
    Reason.TOO_LARGE: "the request line and headers exceed 64 KiB, or there are more than 1,000 headers",
    Reason.BODY: "the body of the request, or its trailers, exceed 1 MiB; requests to Notifier take none",
    Reason.PIPELINED: (
        "more than 16 requests, or a WebSocket handshake, wait for the answer to the one before"
    ),
    Reason.UPGRADE: "the request has an Upgrade and a body, which a WebSocket handshake never has",
    Reason.TIMEOUT: "the request did not arrive within 10 s",
    Reason.NOT_HTTP: "the request is not HTTP/1.1",
    Reason.PROXY_PROTOCOL: (
        "the peer sends the PROXY protocol, which is not supported; switch it off"
        " (send-proxy, proxy_protocol) and use X-Forwarded-For with TRUSTED_PROXIES"
    ),
    Reason.TLS: "the peer speaks TLS to a port without it; use ws:// and http://, or SSL_CERTFILE",
    Reason.HTTP2: "the peer speaks HTTP/2 without TLS; configure HTTP/1.1 between proxy and service",
}
"""One line for the log and for the answer's body."""

for _reason in Reason:  # present from the start, so that rate() sees the first refusal
    metrics.HANDSHAKES_REFUSED.labels(_reason.value)


_STATUS = {
    Reason.BODY: b"413 Content Too Large",
    Reason.TOO_LARGE: b"431 Request Header Fields Too Large",
    Reason.HTTP2: b"505 HTTP Version Not Supported",
}


def answer(reason: Reason) -> bytes:
    """The response to a request that is not passed to the application; the connection is closed behind it."""
    body = f"{EXPLANATIONS[reason]}\n".encode()
    return (
        b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"content-length: %d\r\n\r\n%b" % (_STATUS.get(reason, b"400 Bad Request"), len(body), body)
    )


class Refusals:
    """Counts and logs refused handshakes of one node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: set[tuple[Reason, str]] = set()
        self._since = clock()

    def record(self, reason: Reason, host: str | None, **details: str) -> None:
        """A handshake from `host` was refused. `details` are the client's words."""
        metrics.HANDSHAKES_REFUSED.labels(reason.value).inc()
        now = self._clock()
        if now - self._since >= FORGET_SECONDS:
            self._logged.clear()
            self._since = now
        address = address_group(host) if host else "unknown"
        if (reason, address) in self._logged or len(self._logged) >= LOGGED_LIMIT:
            return
        self._logged.add((reason, address))
        _log.warning(
            "handshake refused",
            reason=reason.value,
            address=address,
            explanation=EXPLANATIONS[reason],
            **{name: text[:DETAIL_CHARACTERS] for name, text in details.items()},
        )
