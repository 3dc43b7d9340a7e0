"""The protocol over HTTP as an OpenAPI 3.1 document, with the messages of the AsyncAPI document.

python -m notifier.web.openapi > docs/openapi.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from notifier.commands import COMMANDS, ENTITIES, WHERE
from notifier.watches import CALENDAR, Watch
from notifier.web import asyncapi

Schema: TypeAlias = dict[str, Any]

COMMANDS_ONLY = {answer.__name__ for _, answer in COMMANDS.values()} - {"SubscribeResult"} | {
    "Error"
}
"""Answers to commands, which are never sent over HTTP; a stream begins with SubscribeResult."""

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": "7200",
}
"""As in `notifier/transport/cors.py`; a test compares them."""

NO_STORE = {"Cache-Control": {"required": True, "schema": {"const": "no-store"}}}

NO_METHOD = 405
"""The refusal of all methods that are not described."""

RETRY_AFTER = {
    "Retry-After": {
        "description": "How many seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
HEADERS = {
    401: {
        "WWW-Authenticate": {
            "description": "The challenge of RFC 6750.",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    NO_METHOD: {"Allow": {"required": True, "schema": {"const": "GET, HEAD, OPTIONS"}}},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
"""What a refusal has beside its body."""

PROBLEMS = {
    400: "The address, a parameter, the filter or Last-Event-ID is not valid, or the rows cannot be sent.",
    401: "There is no token, or it is not valid, or it has expired.",
    403: "The company does not exist, or the user may not see it; or the Origin is not allowed.",
    NO_METHOD: "The method is not GET, HEAD or OPTIONS.",
    406: "The client accepts neither text/event-stream nor application/json.",
    429: "Too many connections, or refusals that wait: wait for Retry-After seconds.",
    503: "The node is not ready, or shuts down: wait for Retry-After seconds.",
}


def document(watches: Sequence[Watch] = CALENDAR) -> Schema:
    """The document."""
    described = asyncapi.document(watches)["components"]
    names = [name for name in described["messages"] if _is_sent(described["schemas"][name])]
    schemas = _referenced(described["schemas"], names)
    schemas |= {
        "Message": {"oneOf": [_ref(name) for name in names]},
        "Page": _page(),
        "Problem": _problem(),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Notifier",
            "version": asyncapi.VERSION,
            "description": "Committed changes of database rows, over HTTP: as server-sent events or"
            " by long polls. The rules are in docs/http.md and docs/protocol.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": {
            "/companies/{companyId}/messages": {
                "parameters": [
                    {
                        "name": "companyId",
                        "in": "path",
                        "required": True,
                        "description": "The company's id, percent-encoded, its slashes too.",
                        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
                    }
                ],
                "get": _get(),
                "head": _head(),
                "options": _options(),
            }
        },
        "components": {
            "schemas": schemas,
            "responses": {str(status): _refusal(status) for status in PROBLEMS},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Or a cookie, where the operator has set TOKEN_COOKIE.",
                }
            },
        },
    }


@cache
def text(watches: tuple[Watch, ...] = CALENDAR) -> str:
    """The document as it is served and checked in. The first call is slow."""
    return json.dumps(document(watches), ensure_ascii=False, indent=2) + "\n"


def _get() -> Schema:
    return {
        "operationId": "messages",
        "summary": "A company's messages after a position: a stream of them, or a page.",
        "parameters": _parameters(),
        "responses": {
            "200": {
                "description": "The messages.",
                "headers": {
                    "Cache-Control": {
                        "required": True,
                        "schema": {"enum": ["no-store", "no-store, no-transform"]},
                    }
                },
                "content": {
                    "text/event-stream": {
                        "schema": {
                            "type": "string",
                            "description": "Each event has a Message as its data; one that has a"
                            " position has `epoch:position:at` as its id.",
                        }
                    },
                    "application/json": {"schema": _ref("Page")},
                },
            },
            **_refusals(),
        },
    }


def _head() -> Schema:
    return {
        "operationId": "head",
        "summary": "The status and the headers of `get`, which are there at once.",
        "parameters": _parameters(),
        "responses": {
            "200": {"description": "The user may see the company.", "headers": NO_STORE},
            **_refusals(),
        },
    }


def _options() -> Schema:
    return {
        "operationId": "options",
        "summary": "Whether pages of an Origin may send requests (CORS).",
        "security": [],
        "responses": {
            "204": {
                "description": "They may: it is in ALLOWED_ORIGINS, or there was no Origin.",
                "headers": {
                    **NO_STORE,
                    **{
                        name: {"required": True, "schema": {"const": value}}
                        for name, value in PREFLIGHT.items()
                    },
                },
            },
            "403": {"$ref": "#/components/responses/403"},
        },
    }


def _refusals() -> Schema:
    return {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in PROBLEMS
        if status != NO_METHOD
    }


def _parameters() -> list[Schema]:
    return [
        _parameter("after", "The last position that the client has.", "integer", minimum=0),
        _parameter("epoch", "The log that it counts in.", "string"),
        _parameter("at", "`At` of the message at `after`.", "string"),
        {
            "name": "entities",
            "in": "query",
            "style": "form",
            "explode": False,
            "schema": ENTITIES,
        },
        {
            "name": "where",
            "in": "query",
            "content": {"application/json": {"schema": WHERE}},
        },
        {
            "name": "state",
            "in": "query",
            "description": "Send the rows first, unless `after` can be resumed.",
            "schema": {"type": "boolean", "default": False},
        },
        _parameter(
            "wait",
            "How many seconds a long poll waits for a message.",
            "integer",
            minimum=0,
            maximum=55,
            default=25,
        ),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event; it takes the place of the parameters.",
            "schema": {"type": "string"},
        },
    ]


def _parameter(name: str, description: str, kind: str, **schema: int) -> Schema:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": kind, **schema},
    }


def _page() -> Schema:
    return {
        "type": "object",
        "properties": {
            "CompanyId": {"type": "string"},
            "Position": {
                "type": "integer",
                "minimum": 0,
                "description": "Of the last message, or the present one: the next `after`.",
            },
            "Epoch": {"type": "string"},
            "At": {"type": "string", "format": "date-time", "description": "The next `at`."},
            "Recovered": {
                "type": "boolean",
                "description": "Whether all messages after `after` follow; only there with `after`.",
            },
            "State": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "object"}},
                "description": "The rows at `Position`, by entity; only where `state` was requested.",
            },
            "Messages": {"type": "array", "items": _ref("Message")},
        },
        "required": ["CompanyId", "Position", "Epoch", "Messages"],
    }


def _problem() -> Schema:
    return {
        "type": "object",
        "description": "A problem document (RFC 9457).",
        "properties": {
            "type": {"const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {
                "type": "string",
                "description": "A word for programs: docs/http.md lists it.",
            },
        },
        "required": ["type", "title", "status", "detail", "code"],
    }


def _refusal(status: int) -> Schema:
    return {
        "description": PROBLEMS[status],
        "headers": {**NO_STORE, **HEADERS.get(status, {})},
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }


def _is_sent(schema: Schema) -> bool:
    """Whether a message is one of those that the service sends over HTTP."""
    kind = schema["properties"].get("Type", {})
    name = kind.get("const", next(iter(kind.get("enum", [])), None))
    return name is not None and name not in COMMANDS_ONLY


def _referenced(schemas: Schema, names: Sequence[str]) -> Schema:
    """The schemas of these names, and those that they refer to."""
    found: Schema = {}
    waiting = [*names]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = schemas[name]
            waiting += [reference.rpartition("/")[2] for reference in references(schemas[name])]
    return found


def references(schema: object) -> list[str]:
    """Every `$ref` in a schema."""
    match schema:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [each for value in schema.values() for each in references(value)]
        case list():
            return [each for value in schema for each in references(value)]
    return []


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


if __name__ == "__main__":
    sys.stdout.write(text())
