"""Problem documents (RFC 9457): the refusals of HTTP requests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus

from starlette.responses import JSONResponse

from notifier.errors import Code


class HttpCode(StrEnum):
    """The codes of problems that only HTTP has; the others are those of the protocol."""

    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    ORIGIN_FORBIDDEN = "origin_forbidden"
    TOO_MANY = "too_many"


class Problem(Exception):
    """A refusal with a status. `detail` is one line for a person; `headers` are sent beside it."""

    def __init__(
        self,
        status: int,
        code: Code | HttpCode,
        detail: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The document. `code` is the protocol's word, for programs."""
        return JSONResponse(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
            },
            status_code=self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )
