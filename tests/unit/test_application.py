"""What a node answers at its paths, under prefixes, behind proxies that change the request."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from notifier.transport.refusals import Reason
from tests.unit.door import KEY, SECRET, UPGRADE, Door, open_door, refused, request

PAGES = ["", "/livez", "/metrics", "/client.js", "/client.d.ts", "/asyncapi.json"]


async def serves_everything(door: Door, prefix: str) -> None:
    """The socket and each page are below the prefix."""
    assert await door.status(request(prefix + "/")) == 101
    for page in PAGES:
        assert await door.status(request(prefix + (page or "/"), b"")) == 200, prefix + page


@pytest.mark.parametrize("root_path", ["/realtime", "realtime/", "/a/b"])
async def test_case_e1_everything_is_served_below_the_root_path_and_where_a_proxy_strips_it(
    root_path: str,
) -> None:
    async with open_door(root_path=root_path) as door:
        prefix = "/" + root_path.strip("/")
        await serves_everything(door, prefix)
        await serves_everything(door, "")
        assert await door.status(request(prefix)) == 101
        assert await door.status(request(prefix, b"")) == 200
        for other in (f"{prefix}x", f"{prefix}/x", f"/x{prefix}", "/x"):
            assert await door.status(request(other)) == 404
            assert await door.status(request(other, b"")) == 404


@pytest.mark.parametrize("page", ["/%6Detrics", "/%6c%69vez", "/read%79z"])
async def test_a_status_page_has_one_spelling(page: str) -> None:
    """A proxy may refuse it by its path, and compare that before it is decoded."""
    async with open_door(root_path="/realtime") as door:
        for path in (page, f"/realtime{page}", "/re%61ltime/metrics", "/%72ealtime/livez"):
            assert await door.status(request(path, b"")) == 404
        for path in ("/metrics?x=%6D", "/realtime/metrics?x=%6D"):
            assert await door.status(request(path, b"")) == 200

    def mounted(app: ASGIApp) -> ASGIApp:
        return Starlette(routes=[Mount("/é", app)])

    async with open_door(mounted) as door:
        assert await door.status(request(f"/%C3%A9{page}", b"")) == 404
        assert await door.status(request("/%C3%A9/metrics", b"")) == 200


async def test_case_e1_another_application_may_mount_it_below_a_path() -> None:
    def mounted(app: ASGIApp) -> ASGIApp:
        return Starlette(routes=[Mount("/ws", app)])

    async with open_door(mounted) as door:
        await serves_everything(door, "/ws")
        assert await door.status(request("/ws/x")) == 404
    async with open_door(mounted, root_path="/realtime") as door:
        await serves_everything(door, "/ws")
        await serves_everything(door, "/ws/realtime")


async def test_case_e1_a_server_may_name_the_prefix_without_putting_it_into_the_path() -> None:
    def named(app: ASGIApp) -> ASGIApp:
        async def outer(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "root_path": "/ws"}, receive, send)

        return outer

    async with open_door(named) as door:
        await serves_everything(door, "")
        await serves_everything(door, "/ws")


async def test_an_unknown_path_is_a_404_with_a_text_for_sockets_and_pages() -> None:
    async with open_door() as door:
        before = refused(Reason.PATH)
        with capture_logs() as logs:
            answer = await door.send(request("/nothing"))
            await door.send(request("/nothing"))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"root" in answer
        assert refused(Reason.PATH) == before + 2
        (line,) = [line for line in logs if line["event"] == "handshake refused"]
        assert (line["reason"], line["path"]) == ("path", "/nothing")
        assert line["address"] == "127.0.0.1"
        answer = await door.send(request("/nothing", b""))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"Not Found" in answer


@pytest.mark.parametrize(
    "headers",
    [
        KEY,
        b"Sec-WebSocket-Version: 13\r\n",
        b"Upgrade: WebSocket\r\n",
        b"Connection: close\r\nUpgrade: websocket\r\n" + KEY,
        b"Connection: keep-alive\r\nSec-WebSocket-Version: 13\r\n" + KEY,
    ],
    ids=["key", "version", "no Connection", "another Connection", "keep-alive"],
)
async def test_a_handshake_that_lost_its_upgrade_is_a_426_that_names_the_proxy(
    headers: bytes,
) -> None:
    async with open_door(root_path="/x") as door:
        before = refused(Reason.UPGRADE_REMOVED)
        for target in ("/", "/x", "/x/"):
            answer = await door.send(request(target, headers))
            assert answer.startswith(b"HTTP/1.1 426 ")
            assert b"proxy removed" in answer
            assert b"upgrade: websocket\r\n" in answer.lower()
        assert refused(Reason.UPGRADE_REMOVED) == before + 3


async def test_a_handshake_over_http_1_0_and_one_without_a_key_get_an_answer() -> None:
    async with open_door() as door:
        old = request(headers=KEY).replace(b"HTTP/1.1", b"HTTP/1.0")
        assert await door.status(old) == 426
        before = refused(Reason.INVALID)
        keyless = await door.send(request(headers=UPGRADE.replace(KEY, b"")))
        assert keyless.startswith(b"HTTP/1.1 400 ")
        assert b"Sec-WebSocket-Key" in keyless
        assert refused(Reason.INVALID) == before + 1


async def test_a_bare_health_check_of_haproxy_is_answered() -> None:
    async with open_door() as door:
        answer = await door.send(b"OPTIONS / HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"allow: GET, HEAD, OPTIONS" in answer
        assert await door.status(request("/readyz", b"", "OPTIONS")) == 405


@pytest.mark.parametrize("page", ["/client.js", "/client.d.ts", "/asyncapi.json"])
async def test_case_e10_what_other_origins_load_is_shared_and_revalidated(page: str) -> None:
    async with open_door() as door:
        first = await door.send(request(page, b""))
        head, _, body = first.partition(b"\r\n\r\n")
        assert b"access-control-allow-origin: *" in head.lower()
        (etag,) = [line[6:] for line in head.split(b"\r\n") if line.lower().startswith(b"etag: ")]
        for held in (etag, b"W/" + etag, b'"other", ' + etag, b"*"):
            again = await door.send(request(page, b"If-None-Match: " + held + b"\r\n"))
            assert again.startswith(b"HTTP/1.1 304 ")
            assert etag in again
            assert again.endswith(b"\r\n\r\n")
        other = await door.send(request(page, b'If-None-Match: "other"\r\n'))
        assert other.endswith(body)


async def test_the_description_of_the_protocol_names_no_secret() -> None:
    async with open_door() as door:
        answer = await door.send(request("/asyncapi.json", b""))
        description = answer.partition(b"\r\n\r\n")[2]
        assert json.loads(description)["asyncapi"].startswith("3.")
        for secret in (SECRET, "none@127.0.0.1"):
            assert secret.encode() not in description
