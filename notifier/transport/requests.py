"""Parses requests for a company's messages: address, token and accepted form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.datastructures import Headers

from notifier.commands import FilteredRequest, is_storable
from notifier.errors import Code
from notifier.transport.cors import Cors
from notifier.transport.problems import HttpCode, Problem

DEFAULT_WAIT, LONGEST_WAIT = 25, 55
"""How many seconds a long poll waits; below the 60 s after which many proxies give up."""

MAX_PARAMETERS = 100

MAX_ACCEPT = 1000
"""Characters of Accept: one of 64 KiB would take a tenth of a second, before the token is looked at."""

STREAM, POLL = "text/event-stream", "application/json"

_WAIT = re.compile("[0-9]{1,4}")
_POSITION = re.compile("0|[1-9][0-9]*")

CHALLENGE = {"WWW-Authenticate": "Bearer"}


def company_request(segment: str, query: bytes, headers: Headers) -> tuple[FilteredRequest, int]:
    """The request in an address, and the seconds that a long poll waits. Raises Problem."""
    if query.count(b"&") >= MAX_PARAMETERS:
        raise _malformed(f"more than {MAX_PARAMETERS} parameters")
    try:
        company = unquote(segment, errors="strict")
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise _malformed("the address is not percent-encoded UTF-8") from None
    entities = [value for name, value in pairs if name == "entities"]
    single = [pair for pair in pairs if pair[0] != "entities"]
    given = dict(single)
    if len(given) < len(single):
        raise _malformed("a parameter is there twice")
    if not is_storable(company):
        raise _malformed("this cannot be the id of a company")
    fields: dict[str, str] = {"companyId": company}
    last = headers.get("last-event-id")
    if last:
        fields |= _place(last)
    else:
        fields |= {name: given[name] for name in ("after", "epoch", "at") if given.get(name)}
        if "at" in fields:
            # A "+" that is not percent-encoded is decoded as a space, which no At has.
            fields["at"] = fields["at"].replace(" ", "+")
    if not _POSITION.fullmatch(fields.get("after", "0")):
        raise _malformed("after is a position: a whole number from 0 on")
    try:
        request = msgspec.convert(fields, FilteredRequest, strict=False, str_keys=True)
        # A company may be named like a number; it stays the text that the address has.
        request = msgspec.structs.replace(
            request,
            company_id=company,
            entities=_names(entities),
            where=_json(given.get("where")),
            state=given.get("state") == "true",
        )
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from None
    if given.get("state") not in (None, "true", "false"):
        raise _malformed("state is true or false")
    wait = given.get("wait", str(DEFAULT_WAIT))
    if not _WAIT.fullmatch(wait) or int(wait) > LONGEST_WAIT:
        raise _malformed(f"wait is a number of seconds from 0 to {LONGEST_WAIT}")
    return request, int(wait)


def _names(values: Sequence[str]) -> list[str] | None:
    """The entities in parameters that each have several, separated by commas; None without any."""
    if not values:
        return None
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _json(text: str | None) -> Any:
    """The value of a JSON text; None without one. Raises Problem."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except ValueError as error:
        raise Problem(400, Code.BAD_FILTER, f"where is not JSON: {error}") from None
    except RecursionError:
        raise Problem(400, Code.BAD_FILTER, "where is nested too deeply") from None


def _place(last_event_id: str) -> dict[str, str]:
    """The epoch, the position and the proof in the id of an event."""
    epoch, _, rest = last_event_id.partition(":")
    position, _, at = rest.partition(":")
    if not epoch or not _POSITION.fullmatch(position):
        raise _malformed("Last-Event-ID is not the id of one of these events")
    return {"epoch": epoch, "after": position} | ({"at": at} if at else {})


def bearer_token(headers: Headers, cookie: str | None, cors: Cors) -> str:
    """The token in Authorization (RFC 6750, 2.1), or in the cookie of that name. Raises Problem."""
    given = headers.getlist("authorization")
    if given:
        scheme, _, token = given[0].partition(" ")
        if len(given) == 1 and scheme.lower() == "bearer" and token.strip():
            return token.strip()
        raise Problem(401, Code.NOT_AUTHENTICATED, "Authorization must be: Bearer <JWT>", CHALLENGE)
    if cookie is not None and (token := _cookie(headers, cookie)):
        if cors.allows_cookie(headers):
            return token
        raise Problem(
            401,
            Code.NOT_AUTHENTICATED,
            "the cookie is accepted only from an allowed Origin, or from the same origin",
            CHALLENGE,
        )
    raise Problem(401, Code.NOT_AUTHENTICATED, "send Authorization: Bearer <JWT>", CHALLENGE)


def _cookie(headers: Headers, name: str) -> str:
    """The value of a cookie; empty where the request has no such cookie, or several."""
    found = []
    for header in headers.getlist("cookie"):
        for pair in header.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                found.append(value.strip('"'))
    return found[0] if len(found) == 1 else ""


def media_type(headers: Headers) -> str:
    """STREAM or POLL, whichever the client prefers (RFC 9110, 12.5.1). Raises Problem."""
    accept = ", ".join(headers.getlist("accept"))
    if not accept.strip():
        return POLL
    if len(accept) > MAX_ACCEPT:
        raise _malformed(f"Accept has more than {MAX_ACCEPT:,} characters")
    quality = {STREAM: 0.0, POLL: 0.0}
    specific = {STREAM: -1, POLL: -1}
    for part in accept.split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        for offered in (STREAM, POLL):
            ranges = ("*/*", offered.partition("/")[0] + "/*", offered)
            if name in ranges and ranges.index(name) > specific[offered]:
                quality[offered], specific[offered] = weight, ranges.index(name)
    if not any(quality.values()):
        raise Problem(406, HttpCode.NOT_ACCEPTABLE, f"Accept must allow {STREAM} or {POLL}")
    return STREAM if quality[STREAM] > quality[POLL] else _tie(quality, specific)


def _tie(quality: dict[str, float], specific: dict[str, int]) -> str:
    """STREAM if only it is named, though both are accepted alike; otherwise POLL, which any client can read."""
    named = quality[STREAM] == quality[POLL] and specific[STREAM] > specific[POLL]
    return STREAM if named else POLL


def _malformed(detail: str) -> Problem:
    return Problem(400, Code.MALFORMED, detail)
