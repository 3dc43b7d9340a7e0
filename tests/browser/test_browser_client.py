"""The README's example, in a browser, without the page and its client."""

from __future__ import annotations

import re

from playwright.async_api import Browser

from tests.browser.live import Demo, Sql, Window
from tests.services import ROOT


def example() -> str:
    """The one that existing clients were written from."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    return next(block for block in blocks if "New event created:" in block)


async def test_the_original_example_runs_unchanged(browser: Browser, demo: Demo, sql: Sql) -> None:
    """Unchanged but for address, token and company."""
    script = example()
    ours = {"ws://localhost:8181": demo.socket, "<JWT>": demo.token("ann"), "<id>": demo.company}
    for theirs, value in ours.items():
        assert script.count(theirs) == 1
        script = script.replace(theirs, value)
    window = await Window.new(browser)
    await window.page.goto(f"{demo.page}livez")
    await window.page.evaluate(f"() => {{ {script} }}")
    await window.receives("SetCompanyResult")
    async with window.page.expect_console_message(lambda said: "New event" in said.text) as said:
        added = await sql.event("For the example")
    assert (await said.value).text == f"New event created: {added}"
