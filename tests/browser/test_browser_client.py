"""The README's example in a browser, without the demo page and client.js."""

from __future__ import annotations

import re

from playwright.async_api import Browser

from tests.browser.live import Demo, Sql, Window
from tests.services import ROOT


def example() -> str:
    """The example that existing clients were written from."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    return next(block for block in blocks if "New event created:" in block)


async def test_the_original_example_runs_unchanged(browser: Browser, demo: Demo, sql: Sql) -> None:
    """Only URL, token and company are replaced."""
    script = example()
    values = {"ws://localhost:8181": demo.socket, "<JWT>": demo.token("ann"), "<id>": demo.company}
    for placeholder, value in values.items():
        assert script.count(placeholder) == 1
        script = script.replace(placeholder, value)
    window = await Window.new(browser)
    await window.page.goto(f"{demo.page}livez")
    await window.page.evaluate(f"() => {{ {script} }}")
    await window.receives("SetCompanyResult")
    async with window.page.expect_console_message(lambda line: "New event" in line.text) as line:
        added = await sql.event("For the example")
    assert (await line.value).text == f"New event created: {added}"
