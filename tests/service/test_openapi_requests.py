"""Each response that docs/openapi.json names, from a running service: status, headers and body are as it describes them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from notifier.web import openapi
from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.http_streams import STREAM, address, stream
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS, until

PATH = "/companies/{companyId}/messages"
ORIGIN = "https://app.example"
POLL = "application/json"
NOWHERE = "postgresql://127.0.0.1:1/none"


class Described:
    """Compares responses with the document, and records which ones were seen."""

    def __init__(self) -> None:
        self.document = openapi.document()
        self.seen: set[tuple[str, int, str]] = set()

    @property
    def all(self) -> set[tuple[str, int, str]]:
        """Method, status and media type of each response in it; a HEAD has no body."""
        return {
            (method, int(status), kind)
            for method in ("get", "head", "options")
            for status, response in self._operation(method)["responses"].items()
            for kind in (self._resolved(response).get("content", {"": {}}))
            if method != "head" or kind != POLL
        }

    def _operation(self, method: str) -> dict[str, Any]:
        operation: dict[str, Any] = self.document["paths"][PATH][method]
        return operation

    def _resolved(self, response: dict[str, Any]) -> dict[str, Any]:
        name = response.get("$ref", "").rpartition("/")[2]
        return self.document["components"]["responses"][name] if name else response

    def schema(self, name: str) -> dict[str, Any]:
        reference = {"$ref": f"#/components/schemas/{name}"}
        return {**reference, "components": self.document["components"]}

    def check(self, answer: httpx.Response) -> None:
        """Fails where it differs from the document."""
        method, status = answer.request.method.lower(), answer.status_code
        kind = answer.headers.get("content-type", "").partition(";")[0]
        described = self._resolved(self._operation(method)["responses"][str(status)])
        for name, header in described["headers"].items():
            valid(header["schema"], typed(answer.headers[name], header["schema"]))
        if method == "head":
            assert answer.content == b""
            kind = "" if "content" not in described else kind
        if "content" in described:
            assert kind in described["content"]
            if method != "head" and kind != STREAM:
                name = described["content"][kind]["schema"]["$ref"].rpartition("/")[2]
                valid(self.schema(name), answer.json())
        else:
            assert answer.content == b""
        self.seen.add((method, status, kind))


def typed(value: str, schema: dict[str, Any]) -> object:
    """The value of a header."""
    return int(value) if schema.get("type") == "integer" else value


def valid(schema: dict[str, Any], value: object) -> None:
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert errors == [], (value, errors)


async def is_alive(service: Service) -> bool:
    with suppress(httpx.TransportError):
        return (await service.get("/livez")).is_success
    return False


async def test_each_response_is_as_the_document_describes_it(
    database: Database, serve: Serve
) -> None:
    service = await serve(database, state="on", allowed_origins=ORIGIN, max_connections_per_user=1)
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2")
    away = await serve(NOWHERE, ready=False)
    described = Described()

    client = httpx.AsyncClient(timeout=DEADLINE_SECONDS, verify=False)

    async def send(
        method: str = "GET", user: str = "u1", to: Service = service, **given: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(user)}", "Accept": POLL, "Origin": ORIGIN}
        headers |= given.pop("headers", {})
        return await client.request(
            method,
            address(to, given.pop("company", company)),
            headers={name: value for name, value in headers.items() if value},
            params=given,
        )

    await until(partial(is_alive, away))
    waiting = [  # each for a database that does not answer
        asyncio.create_task(send(method, to=away, headers={"Origin": ""}))
        for method in ("GET", "HEAD")
    ]
    present = (await send()).json()
    await calendar.event(company)
    place = {"after": present["Position"], "epoch": present["Epoch"], "at": present["At"]}
    pages: list[dict[str, Any]] = [
        {},
        {"state": "true"},
        place,
        {"after": 0, "epoch": "another", "wait": 0},
        {**place, "entities": "Employee", "wait": 0},
        {**place, "entities": "Event", "where": json.dumps({"Event": {"OrganizerId": [None]}})},
    ]
    for given in pages:
        described.check(await send(**given))

    refusals: list[tuple[int, dict[str, Any]]] = [
        (400, {"wait": 56}),
        (400, {"where": "{"}),
        (401, {"headers": {"Authorization": ""}}),
        (401, {"headers": {"Authorization": "Bearer none"}}),
        (403, {"company": "00000000-0000-0000-0000-000000000000"}),
        (403, {"headers": {"Origin": "https://evil.example"}}),
        (406, {"headers": {"Accept": "text/html"}}),
    ]
    for method in ("GET", "HEAD"):
        for status, given in refusals:
            answer = await send(method, **given)
            assert answer.status_code == status, given
            described.check(answer)
    described.check(await send("HEAD"))
    described.check(await send("OPTIONS", headers={"Access-Control-Request-Method": "GET"}))
    described.check(await send("OPTIONS", headers={"Origin": "https://evil.example"}))
    other = await send("DELETE")
    assert (other.status_code, other.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    valid(described.schema("Problem"), other.json())

    async with stream(service, "u2", company, state="true") as events:
        described.check(events.response)
        messages = [(await events.event()).message]
        while messages[-1]["Type"] != "StateEnd":
            messages.append((await events.event()).message)
        await calendar.event(company)
        messages.append((await events.event()).message)
        for method in ("GET", "HEAD"):
            described.check(await send(method, user="u2"))  # one connection too many
        await database.execute("DELETE FROM employees WHERE user_id = 'u2'")
        messages += [event.message for event in await events.rest()]
    assert {"SubscribeResult", "State", "EventCreated", "CompanyRevoked"} <= {
        message["Type"] for message in messages
    }
    for answer in await asyncio.gather(*waiting):
        assert answer.status_code == 503
        described.check(answer)
    await client.aclose()
    for message in messages:
        valid(described.schema("Message"), message)
    assert described.seen == described.all
