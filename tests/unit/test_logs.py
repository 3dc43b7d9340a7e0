"""What a fault of ours leaves in the log: where it was, and nothing of what a client said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FAULT = """
import asyncio, json, sys
from notifier import logs
from notifier.transport.endpoint import Endpoint
from notifier.transport.refusals import Refusals
from notifier.delivery.hub import Hub
from notifier.access.admission import Admission
from notifier.delivery.arrivals import Arrivals
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.services import Services
from notifier.access.tokens import Tokens

class Broken(Tokens):
    async def verify(self, token):
        spelled = token.upper()
        raise RuntimeError(f"a fault of ours, {len(spelled)} characters long")

async def main():
    logs.set_up("debug", sys.argv[1])
    text = json.dumps({"type": "authenticate", "token": "canary-token", "company": "canary-row"})
    parts = Services(Hub(None, 1, FilterCatalogue(None)), Broken(secret="s" * 32), None, Admission(9, 9), Arrivals(None, str), auth_timeout=9, leeway=9)
    events = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": text}])
    sent = []

    async def receive():
        return next(events)

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"authorization", b"canary-token")]}
    await Endpoint(parts, None, 1 << 20, Refusals())(scope, receive, send)
    print(sent)

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_c14_the_log_of_an_internal_error_has_nothing_of_a_clients_message(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULT, form], capture_output=True, text=True, check=True
    )
    assert "a fault of ours, 12 characters long" in done.stderr
    assert "Traceback" in done.stderr
    assert "4500" in done.stdout
    assert "a fault of ours" not in done.stdout
    assert "canary" not in done.stderr + done.stdout


DRIVER = """
import asyncio, logging, sys
import asyncpg
from notifier import logs

async def of_the_driver():
    await asyncpg.connect("https://127.0.0.1/")

async def of_ours():
    raise RuntimeError("a fault of ours")

async def main():
    logs.set_up("debug", "json")
    for fault in (of_the_driver, of_ours):
        try:
            await fault()
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "Fatal error on transport", "exception": error}
            )

asyncio.run(main())
"""


def test_an_error_within_the_driver_is_logged_without_its_traceback() -> None:
    """Asyncio logs it where a server sends what the driver does not expect. A fault of ours keeps its traceback."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], capture_output=True, text=True, check=True
    )
    drivers, ours = done.stderr.splitlines()
    assert "Fatal error on transport" in drivers
    assert "Traceback" not in drivers
    assert "Traceback" in ours


WORDS = r"""
import logging, sys
import structlog
from notifier import logs
from notifier.transport.refusals import Reason, Refusals

logs.set_up("debug", "text")
Refusals().record(Reason.PATH, "10.0.0.1", path="/\x1b]0;title\x07\x9b31m\u202e")
structlog.get_logger("x").warning("an event\x1b[2J", company="a\nb\x1b[2J", names=["\x1b[1m"])
logging.getLogger("x").warning("a library %s", "\x1b[5m")
try:
    raise ValueError("\x1b[6m")
except ValueError:
    structlog.get_logger("x").exception("failed")
"""


def test_no_word_of_a_client_controls_the_terminal_of_the_log() -> None:
    done = subprocess.run([sys.executable, "-c", WORDS], capture_output=True, check=True)
    text = done.stderr.decode()
    assert text.replace("\n", "").isprintable()
    assert r"path=/\x1b]0;title\x07\x9b31m\u202e" in text
    assert "Traceback (most recent call last):\n" in text


def test_nor_does_one_in_the_json_form_which_keeps_it() -> None:
    words = WORDS.replace('"debug", "text"', '"debug", "json"')
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True)
    first, *rest = done.stderr.decode().splitlines()
    assert all(line.isprintable() for line in (first, *rest))
    assert json.loads(first)["path"] == "/\x1b]0;title\x07\x9b31m\u202e"
