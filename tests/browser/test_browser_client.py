"""client.js, and the README's example without it, in a browser."""

from __future__ import annotations

import re
from typing import Any

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
    await sql.position()  # what was written before is no message of the example
    window = await Window.new(browser)
    await window.page.goto(f"{demo.page}livez")
    await window.page.evaluate(f"() => {{ {script} }}")
    await window.receives("SetCompanyResult")
    async with window.page.expect_console_message(lambda line: "New event" in line.text) as line:
        added = await sql.event("For the example")
    assert (await line.value).text == f"New event created: {added}"


FIRST_STATES = """
    (options) => new Promise(async (resolve) => {
        const { connect } = await import("/client.js");
        const states = [];
        connect({
            ...options,
            getToken: () => options.token,
            onStatus: ({ state, reason }) => {
                states.push(reason ? `${state}: ${reason}` : state);
                if (state !== "connecting") resolve(states);
            },
        });
    })
"""


async def first_states(browser: Browser, demo: Demo, **options: Any) -> Any:
    """What a client on the demo's page reports, until it is not connecting any more."""
    window = await Window.new(browser)
    await window.page.goto(demo.page)
    return await window.page.evaluate(FIRST_STATES, options)


async def test_case_e6_a_socket_that_the_pages_policy_blocks_stops_the_client(
    browser: Browser, demo: Demo
) -> None:
    """The policy allows the page's own origin only. Chromium neither throws nor sends a close."""
    states = await first_states(browser, demo, url="ws://127.0.0.1:9/", token="t")
    assert states == ["connecting", "stopped: cannot connect"]


async def test_a_relative_url_is_the_pages_own_server(browser: Browser, demo: Demo) -> None:
    states = await first_states(
        browser, demo, url="/", token=demo.token("ann"), companyId=demo.company
    )
    assert states == ["connecting", "live"]
