"""The CORS protocol of the Fetch standard: pages of ALLOWED_ORIGINS may read responses."""

from __future__ import annotations

from starlette.datastructures import Headers

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": "7200",
}


class Cors:
    """`origins`: those that are allowed; None allows any. `credentials`: a cookie may carry the token."""

    def __init__(self, origins: tuple[str, ...] | None, *, credentials: bool) -> None:
        self._origins = None if origins is None else frozenset(origins)
        self._credentials = credentials

    def allows(self, headers: Headers) -> bool:
        """Browsers send an Origin to another site, which must be in the list; programs send none."""
        given = headers.getlist("origin")
        return not given or self._origins is None or self._names(given)

    def allows_cookie(self, headers: Headers) -> bool:
        """Whether the request comes from a page that is trusted with the user's cookie.

        Only a listed origin is, and the service's own: where any origin is allowed, none is listed. Any site can make a
        page whose origin is null.
        """
        if given := headers.getlist("origin"):
            return self._names(given) and given != [_OPAQUE]
        return headers.getlist("sec-fetch-site") == ["same-origin"]

    def headers(self, headers: Headers) -> dict[str, str]:
        """The headers of a response, also of a refusal."""
        given = headers.getlist("origin")
        if self._origins is None:
            return {"Access-Control-Allow-Origin": "*", **_EXPOSED}
        if not self._names(given):
            return {"Vary": "Origin"}
        answer = {"Access-Control-Allow-Origin": given[0], "Vary": "Origin", **_EXPOSED}
        if self._credentials and given != [_OPAQUE]:
            answer["Access-Control-Allow-Credentials"] = "true"
        return answer

    def _names(self, given: list[str]) -> bool:
        return self._origins is not None and len(given) == 1 and given[0] in self._origins


_OPAQUE = "null"
"""The origin of sandboxed frames and of files (HTML, section 7.1.1)."""

_EXPOSED = {"Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate"}
