"""axe finds nothing on the page in any of its states, and its policy allows nothing inline."""

from __future__ import annotations

from importlib.resources import files

import httpx
from playwright.async_api import expect

from tests.browser.conftest import Open
from tests.browser.live import HARBOR, Demo, Sql, Window
from tests.browser.test_live_page import PHONE

AXE = files("axe_playwright_python").joinpath("axe.min.js")


async def violations(window: Window) -> list[str]:
    """Each rule that is broken, with the elements that break it."""
    await window.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await window.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in found["violations"]
    ]


async def test_axe_finds_nothing_in_any_view(window: Open, sql: Sql) -> None:
    await sql.event("Seen by axe", hour=9)
    for scheme in ("light", "dark"):
        for size in ({}, PHONE):
            # Whoever is still glowing is not yet as it will be.
            ann = await window("ben", color_scheme=scheme, reduced_motion="reduce", **size)
            await ann.button("add").click()
            await expect(ann.page.locator("#feed li")).to_have_count(1)
            assert await violations(ann) == []
            await ann.button("Month").click()
            assert await violations(ann) == []
            await ann.button("New event").click()
            assert await violations(ann) == []
            await ann.button("Close").click()
            await ann.go_offline()
            assert await violations(ann) == []
            await ann.go_offline(False)
            await ann.button(HARBOR).click()
            await expect(ann.page.locator("#veil")).to_be_visible()
            assert await violations(ann) == []
            await ann.page.context.close()


async def test_the_policy_allows_nothing_inline_and_no_other_host(demo: Demo) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(demo.page)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "<style" not in answer.text
    assert "style=" not in answer.text
    assert "://" not in answer.text
