"""Firefox, driven by WebDriver BiDi (W3C), which it speaks itself: Playwright needs a Firefox of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.installed import skip
from tests.waiting import DEADLINE_SECONDS

SHOWN = """
new Promise((resolve) => {
  const look = () => document.body.innerText.includes(%s) && resolve(true);
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true });
  look();
})
"""


class Firefox:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._calls = 0
        self._tab = ""
        self.faults: list[str] = []
        """Exceptions that no script has caught."""

    async def goto(self, url: str) -> None:
        """Returns when the page has loaded."""
        await self._call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, or that of its promise: what JSON can hold."""
        answer = await self._call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(JSON.stringify)",
            target={"context": self._tab},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    async def shows(self, text: str) -> None:
        """Returns when the page shows the text."""
        try:
            await self.evaluate(SHOWN % json.dumps(text))
        except TimeoutError:
            shown = await self.evaluate("document.body.innerText")
            raise AssertionError(f"{text!r} is not in {shown!r}") from None

    async def begin(self) -> None:
        await self._call("session.new", capabilities={})
        await self._call("session.subscribe", events=["log.entryAdded"])
        self._tab = (await self._call("browsingContext.getTree"))["contexts"][0]["context"]

    async def end(self) -> None:
        await self._call("browser.close")

    async def _call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        command = {"id": self._calls, "method": method, "params": parameters}
        await self._connection.send(json.dumps(command))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (answer := json.loads(await self._connection.recv())).get("id") != self._calls:
                self._report(answer.get("params", {}))
        assert answer["type"] == "success", answer
        return answer["result"]

    def _report(self, entry: Any) -> None:
        if entry.get("type") != "javascript" or entry["level"] != "error":
            return
        # Firefox reports a lost connection as an error; some tests cause one.
        if not entry["text"].startswith(("Firefox can", "The connection to ws")):
            self.faults.append(entry["text"])


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Firefox]:
    """A Firefox without a window; skips where there is none."""
    program = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        skip("no Firefox")
    process = await asyncio.create_subprocess_exec(
        *(program, "--headless", "--no-remote", "--profile", str(profile)),
        *("--remote-debugging-port", "0", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            found, log = None, b""
            while found is None and (line := await process.stderr.readline()):
                log += line
                found = re.search(rb"WebDriver BiDi listening on (ws://\S+)", line)
        assert found is not None, log
        reading = asyncio.create_task(process.stderr.read())
        async with connect(f"{found[1].decode()}/session", max_size=None, proxy=None) as connection:
            running = Firefox(connection)
            await running.begin()
            yield running
            await running.end()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
