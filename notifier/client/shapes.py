"""The shapes of the server's messages, as far as the client looks at them: docs/protocol.md, "Server to client"."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from notifier.client.progress import Unreadable
from notifier.client.reports import Row

Id: TypeAlias = str | int
Position: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text: TypeAlias = Annotated[str, Meta(pattern=r"\A[^\ud800-\udfff]*\Z")]
"""What the client sends back, or saves: half of a surrogate pair cannot be encoded."""


class _Shape(msgspec.Struct, rename="pascal"):
    """Properties that are not named may have any value: a later protocol may have more."""


class _Fault(_Shape):
    code: str
    message: str = ""


class _Named(_Shape):
    company_id: Id


class _MaybeNamed(_Shape):
    company_id: Id | UnsetType | None = UNSET


class _Place(_Named):
    position: Position
    epoch: Text
    at: Text | UnsetType | None = UNSET
    recovered: bool | UnsetType | None = UNSET


class _Authentication(_Shape):
    success: bool
    data: dict[str, Any] | UnsetType | None = UNSET
    error: _Fault | UnsetType = UNSET


class _Accepted(_Shape):
    data: _Place


class _Refused(_Shape):
    error: _Fault
    data: _MaybeNamed | UnsetType | None = UNSET


class _Revoked(_Shape):
    data: _Named


class _Reached(_Named):
    tx: str
    position: Position


class _Arrived(_Shape):
    data: _Reached


class _Awaited(_Shape):
    company_id: Id | UnsetType | None = UNSET
    tx: str | UnsetType | None = UNSET


class _Error(_Shape):
    error: _Fault
    data: _Awaited | UnsetType = UNSET


class _Closing(_Shape):
    code: int
    reason: str = ""
    reconnect: bool = True
    retry_after_ms: float | UnsetType | None = UNSET


class _Disconnect(_Shape):
    data: _Closing


class _Break(_MaybeNamed):
    reason: str = ""
    epoch: Text | UnsetType | None = UNSET


class _Resync(_Shape):
    position: Position
    data: _Break
    at: Text | UnsetType | None = UNSET


class _Change(_Shape):
    """Also a `Skipped`, and a message of a later protocol that has a position."""

    position: Position
    data: dict[str, Any]
    old: dict[str, Any] | UnsetType | None = UNSET
    at: Text | UnsetType | None = UNSET
    tx: str | UnsetType | None = UNSET
    actor: str | UnsetType | None = UNSET
    partial: bool | UnsetType | None = UNSET


class _Part(_Named):
    entity: str
    rows: list[dict[str, Any]]


class _State(_Shape):
    data: _Part


class _End(_Named):
    position: Position


class _StateEnd(_Shape):
    data: _End


_SHAPES: dict[str, type[_Shape]] = {
    "AuthenticationResult": _Authentication,
    "CompanyRevoked": _Revoked,
    "Arrived": _Arrived,
    "Error": _Error,
    "Disconnect": _Disconnect,
    "Resync": _Resync,
    "State": _State,
    "StateEnd": _StateEnd,
}


def check(message: Row) -> None:
    """Raises Unreadable for a message that the protocol does not have."""
    kind = message.get("Type")
    if not isinstance(kind, str):
        raise Unreadable
    shape = _SHAPES.get(kind)
    if kind in ("SetCompanyResult", "SubscribeResult"):
        if not isinstance(message.get("Success"), bool):
            raise Unreadable
        shape = _Accepted if message["Success"] else _Refused
    elif shape is None and "Position" in message:
        shape = _Change
    if shape is None:
        return  # of a later protocol
    try:
        msgspec.convert(message, shape)
    except msgspec.ValidationError as error:
        raise Unreadable from error
