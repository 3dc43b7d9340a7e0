"""The commands of the protocol: what clients send, declared once for decoding and for AsyncAPI.

A new command is a Struct here, a member of `Command`, and an entry in COMMANDS; its answer is in
messages.py, and `Session.receive` has a case for it. One without a company is excepted in `decode`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields

from notifier import messages
from notifier.companies import COMPANY_LIMIT
from notifier.errors import Code

MESSAGE_BYTES = 64 * 1024
"""The largest message of a client; a token with many companies is large."""


class Authenticate(Struct, frozen=True, tag_field="type", tag="authenticate"):
    token: Annotated[str, Meta(description="A JWT.")]


class CompanyRequest(Struct, frozen=True, rename="camel"):
    company_id: Annotated[str, Meta(min_length=1, max_length=COMPANY_LIMIT)] | int
    after: Annotated[int, Meta(ge=0, description="The last position it has.")] | None = None
    epoch: Annotated[str, Meta(description="The log that it counts in.")] | None = None
    at: (
        Annotated[str, Meta(description="`At` of its last message, or of the last answer.")] | None
    ) = None


ENTITIES = {
    "description": "Only changes of these entities.",
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
}
WHERE = {
    "description": "Only rows with these values: entity, property, the values that pass.",
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {
            "type": "array",
            "items": {"type": ["string", "number", "boolean", "null"]},
            "minItems": 1,
            "maxItems": 100,
        },
    },
}


class SetCompany(Struct, frozen=True, tag_field="type", tag="setCompany"):
    data: CompanyRequest


class FilteredRequest(CompanyRequest, frozen=True, rename="camel"):
    # Any: a filter that is wrong is answered with bad_filter, whatever is wrong with it.
    entities: Annotated[Any, Meta(extra_json_schema=ENTITIES)] = None
    where: Annotated[Any, Meta(extra_json_schema=WHERE)] = None
    state: (
        Annotated[bool, Meta(description="Send the rows first, unless `after` can be resumed.")]
        | None
    ) = None


class Subscribe(Struct, frozen=True, tag_field="type", tag="subscribe"):
    data: FilteredRequest


class CompanyName(Struct, frozen=True, rename="camel"):
    company_id: Annotated[str, Meta(min_length=1, max_length=COMPANY_LIMIT)] | int


class Unsubscribe(Struct, frozen=True, tag_field="type", tag="unsubscribe"):
    data: CompanyName


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    pass


TX = "The `pg_current_xact_id()` of a transaction, as text or as a number."
LARGEST_TX = 10**20 - 1
"""Of 20 digits, as the longest text has. msgspec has no bounds beyond 64 bits, so `decode` compares."""


class TransactionRequest(CompanyName, frozen=True, rename="camel"):
    tx: (
        Annotated[str, Meta(pattern="^[0-9]{1,20}$", description=TX)]
        | Annotated[int, Meta(ge=0, description=TX, extra_json_schema={"maximum": LARGEST_TX})]
    )


class Await(Struct, frozen=True, tag_field="type", tag="await"):
    data: TransactionRequest


Command: TypeAlias = Authenticate | SetCompany | Subscribe | Unsubscribe | Await | Ping

COMMANDS: dict[type[Struct], tuple[str, type[Struct]]] = {
    Authenticate: (
        "Presents the client's token; again with a fresh one, it extends the first.",
        messages.AuthenticationResult,
    ),
    SetCompany: (
        "Subscribes to a company, from a position on if one is given; leaves all others.",
        messages.SetCompanyResult,
    ),
    Subscribe: (
        "Subscribes to one more company, from a position on if one is given.",
        messages.SubscribeResult,
    ),
    Unsubscribe: ("Leaves one company.", messages.UnsubscribeResult),
    Await: (
        "Waits until every message of a transaction in a company was sent.",
        messages.Arrived,
    ),
    Ping: ("Requests a sign of life.", messages.Pong),
}
"""What each does, and the message that answers it."""


class Unreadable(Exception):
    """A client's message is not a command; `code` and `message` are those of the Error in response."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode(text: str | bytes) -> Command:
    """The command in a client's message. Keys are matched without regard to case.

    Raises Unreadable.
    """
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Unreadable(Code.MALFORMED, "a message must be JSON") from error
    if not isinstance(decoded, dict):
        raise Unreadable(Code.MALFORMED, "a message must be a JSON object")
    given = _lowered(decoded)
    name = given.get("type")
    if not isinstance(name, str):
        raise Unreadable(Code.MALFORMED, "a message must have a type, a string")
    declared = _DECLARED.get(name)
    if declared is None:
        raise Unreadable(Code.UNKNOWN_TYPE, "unknown type")
    try:
        command = cast("Command", msgspec.convert(_spelled(given, declared), declared))
    except msgspec.ValidationError as error:
        raise Unreadable(Code.MALFORMED, f"{name}: {error}") from error
    if not isinstance(command, Authenticate | Ping) and not is_storable(
        str(command.data.company_id)
    ):
        raise Unreadable(Code.MALFORMED, "data.companyId cannot be the id of a company")
    if isinstance(command, Await) and int(command.data.tx) > LARGEST_TX:
        raise Unreadable(Code.MALFORMED, "data.tx has more than 20 digits")
    return command


def _lowered(given: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in given.items()}


def _spelled(given: dict[str, Any], declared: type[Struct]) -> dict[str, Any]:
    """The fields that are declared, in that spelling. Null means that a field was left out.

    The keys of `given` are in lower case.
    """
    found: dict[str, Any] = {}
    for lowered, name, nested in _names(declared):
        value = given.get(lowered)
        if nested is not None and isinstance(value, dict):
            found[name] = _spelled(_lowered(value), nested)
        elif value is not None:
            found[name] = value
    return found


@cache
def _names(declared: type[Struct]) -> list[tuple[str, str, type[Struct] | None]]:
    """A struct's fields: each name in lower case and as in JSON, and the struct of its value, if any."""
    tag = declared.__struct_config__.tag_field
    names: list[tuple[str, str, type[Struct] | None]] = []
    if tag is not None:
        names.append((tag.lower(), tag, None))
    for field in fields(declared):
        is_struct = isinstance(field.type, type) and issubclass(field.type, Struct)
        name = field.encode_name
        names.append((name.lower(), name, field.type if is_struct else None))
    return names


_DECLARED: dict[object, type[Struct]] = {kind.__struct_config__.tag: kind for kind in COMMANDS}


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What PostgreSQL's text does not have: NUL and lone surrogates."""


def is_storable(company: str) -> bool:
    """Whether a text can be a company's id. An integer may have too many digits."""
    return len(company) <= COMPANY_LIMIT and not _UNSTORABLE.search(company)
