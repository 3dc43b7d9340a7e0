"""The protocol as an AsyncAPI 3 document, made from the message types and the watched tables.

python -m notifier.web.asyncapi > docs/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import schema_components

from notifier import messages
from notifier.commands import COMMANDS
from notifier.errors import Closure
from notifier.watches import CALENDAR, Watch

VERSION = "1.0.0"
"""Of the protocol, not of the program."""

Schema: TypeAlias = dict[str, Any]

POSITION: Schema = {
    "type": "integer",
    "minimum": 1,
    "description": "Counts the company's messages 1, 2, 3, … without a gap.",
}

# --- what the server sends


class ResyncData(Struct, rename="pascal"):
    company_id: str
    reason: Literal["bulk", "truncate", "overflow", "epoch"]
    epoch: str


class Resync(Struct, rename="pascal", tag_field="Type", tag="Resync"):
    data: ResyncData
    position: Annotated[int, Meta(ge=1, description=POSITION["description"])]
    at: datetime | UnsetType = UNSET


DESCRIBED: dict[type[Struct], str] = {
    messages.AuthenticationResult: "Answers authenticate. Without success, a close follows.",
    messages.SetCompanyResult: (
        "Answers setCompany. Messages after `Position` follow; `Recovered` is there when a position"
        " was given."
    ),
    messages.SubscribeResult: (
        "Answers subscribe. Messages of the company after `Position` follow; `Recovered` is there"
        " when a position was given. Without success `Data` has only the company."
    ),
    messages.Skipped: (
        "The positions up to this one hold nothing for this subscription, because of its filter or"
        " of rows that are not visible to its user."
    ),
    messages.State: "Some of the rows that a company has at the position of the next StateEnd.",
    messages.StateEnd: "All rows were sent; the changes after the position follow.",
    messages.CompanyRevoked: "The user may not see the company any more; none of its messages follows.",
    messages.TokenExpiring: "The token ends soon: authenticate again on this socket.",
    messages.Pong: "Answers ping.",
    messages.Error: "A command could not be read or came too early, or an await failed.",
    messages.Disconnect: "Precedes a close; has its code, and whether and when to reconnect.",
    Resync: "Messages may be missing before it, none is missing after it: reload the state.",
}
"""What the server sends. Answers that are not listed get the description `Answers COMMAND.`"""

_SENT = DESCRIBED | {
    answer: f"Answers {command.__struct_config__.tag}."
    for command, (_, answer) in COMMANDS.items()
    if answer not in DESCRIBED
}

TRANSPORT_CLOSES = {
    1001: ("going away", True),
    1002: ("protocol error", False),
    1007: ("invalid UTF-8", False),
}
"""Close codes of the transport, without a Disconnect: their reason, and whether to reconnect."""


COLUMNS: dict[type, Schema] = {
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    str: {"type": "string"},
    UUID: {"type": "string", "format": "uuid"},
}


def document(watches: Sequence[Watch] = CALENDAR) -> Schema:
    """The document. Only the calendar's tables have all their columns in it, others their keys."""
    received = {_name(kind): _message(_name(kind), text) for kind, (text, _) in COMMANDS.items()}
    sent = {_name(kind): _message(_name(kind), text) for kind, text in _SENT.items()}
    schemas = _schemas([*COMMANDS]) | _schemas([*_SENT])
    for watch in watches:
        schemas[f"{watch.entity}Row"] = _row(watch)
        for name, summary, schema in _changes(watch):
            sent[name] = _message(name, summary)
            schemas[name] = schema
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Notifier",
            "version": VERSION,
            "description": "Committed changes of database rows, to the WebSocket clients of their"
            " company: typed, in order, never silently lost. Timestamps without a time zone are"
            " sent without an offset, unless naive_timestamps is set. The rules are in docs/protocol.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "plain": {"host": "localhost:8181", "protocol": "ws"},
            "secure": {"host": "localhost:8181", "protocol": "wss"},
        },
        "channels": {
            "socket": {
                "address": "/",
                "description": "One socket, text frames; each is one JSON object.",
                "messages": {name: _ref("components/messages", name) for name in received | sent},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
                "x-close-codes": [*_closes()],
            }
        },
        "operations": {**_receive_operations(), "send": _send_operation([*sent])},
        "components": {"messages": received | sent, "schemas": schemas},
    }


@cache
def text(watches: tuple[Watch, ...] = CALENDAR) -> str:
    """The document as it is served and checked in. The first call is slow."""
    return json.dumps(document(watches), ensure_ascii=False, indent=2) + "\n"


def _receive_operations() -> Schema:
    """The commands that the service receives, each with its answer."""
    return {
        _name(command): {
            "action": "receive",
            "channel": _ref("channels", "socket"),
            "summary": summary,
            "messages": [_ref("channels/socket/messages", _name(command))],
            "reply": {
                "channel": _ref("channels", "socket"),
                "messages": [_ref("channels/socket/messages", _name(answer))],
            },
        }
        for command, (summary, answer) in COMMANDS.items()
    }


def _send_operation(names: Sequence[str]) -> Schema:
    """The messages that the service sends on its own, not as a response."""
    answers = {_name(answer) for _, answer in COMMANDS.values()}
    return {
        "action": "send",
        "channel": _ref("channels", "socket"),
        "summary": "Messages that the service sends by itself.",
        "messages": [
            _ref("channels/socket/messages", name) for name in names if name not in answers
        ],
    }


def _schemas(kinds: Sequence[type[Struct]]) -> Schema:
    """The JSON schemas of message types and of what they are made of."""
    _, schemas = schema_components(kinds, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema.pop("description", None)  # docstrings are for readers of the code
    return dict(schemas)


def _changes(watch: Watch) -> Iterator[tuple[str, str, Schema]]:
    """Name, meaning and schema of the messages about a table's rows."""
    created, updated, deleted = watch.names
    keys = {"required": _keys(watch)}
    row = _ref("components/schemas", f"{watch.entity}Row")
    for name, done in ((created, "inserted"), (updated, "changed"), (deleted, "deleted")):
        if name is None:
            continue
        properties: Schema = {
            "Type": {"const": name},
            "Data": {"allOf": [row, keys]},
            "Position": POSITION,
            "At": {"type": "string", "format": "date-time"},
            "Tx": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "The writer's transaction: its pg_current_xact_id().",
            },
            "Actor": {
                "type": "string",
                "description": "Who made the change, where the writer has set it.",
            },
            "Partial": {"const": True, "description": "Too large to send: Data has only the keys."},
        }
        if name == updated:
            properties["Old"] = row
        required = ["Type", "Data", "Position", "At", "Tx"]
        schema = {"type": "object", "properties": properties, "required": required}
        yield name, f"A row of {watch.table} was {done}.", schema


def _row(watch: Watch) -> Schema:
    """The columns of a table's rows where it is one of the calendar's, otherwise the keys."""
    from notifier.database.calendar import Calendar  # noqa: PLC0415 - SQLAlchemy is large, and rarely needed

    properties: Schema = {}
    table = Calendar.metadata.tables.get(watch.table)
    for column in () if table is None else table.columns:
        if column.name not in watch.exclude:
            schema = COLUMNS[column.type.python_type]
            if column.nullable:
                schema = schema | {"type": [schema["type"], "null"]}
            properties[watch.property(column.name)] = schema
    for key in _keys(watch):
        properties.setdefault(key, {"type": ["string", "integer"]})
    if not isinstance(watch.key, str):
        properties[watch.property(watch.key)] = {"type": "array", "items": {}}
    return {"type": "object", "properties": properties}


def _keys(watch: Watch) -> list[str]:
    """The properties of key and company, which every message has."""
    return [*dict.fromkeys((watch.property(watch.key), watch.company_property))]


def _closes() -> Iterator[Schema]:
    """Every close code that a client may see, in order."""
    closes: dict[int, Schema] = {
        code: {"code": code, "reason": reason, "reconnect": reconnect}
        for code, (reason, reconnect) in TRANSPORT_CLOSES.items()
    }
    for closure in Closure.__subclasses__():
        closes[closure.code] = {
            "code": closure.code,
            "reason": closure.reason,
            "reconnect": closure.reconnect,
        }
    for _, close in sorted(closes.items()):
        yield close


def _message(name: str, summary: str) -> Schema:
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "payload": _ref("components/schemas", name),
    }


def _name(kind: type[Struct]) -> str:
    return kind.__name__


def _ref(section: str, name: str) -> Schema:
    return {"$ref": f"#/{section}/{name}"}


if __name__ == "__main__":
    sys.stdout.write(text())
