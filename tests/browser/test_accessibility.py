"""axe finds no violation in any state of the page, and its policy forbids inline content."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Open
from tests.browser.live import HARBOR, Demo, Sql, Window
from tests.browser.test_live_page import PHONE

AXE = files("axe_playwright_python").joinpath("axe.min.js")


async def violations(window: Window) -> list[str]:
    """Each violated rule, with the elements that violate it."""
    await window.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await window.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in found["violations"]
    ]


@pytest.mark.parametrize("size", [{}, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation_in_any_view(
    window: Open, sql: Sql, scheme: str, size: dict[str, Any]
) -> None:
    await sql.event("Seen by axe", hour=9)
    # Without motion: axe must not measure colours in the middle of an animation.
    ben = await window("ben", color_scheme=scheme, reduced_motion="reduce", **size)
    await ben.button("Add").click()
    await expect(ben.page.locator("#feed li")).to_have_count(1)
    assert await violations(ben) == []
    await ben.button("Month").click()
    assert await violations(ben) == []
    await ben.button("New event").click()
    assert await violations(ben) == []
    await ben.button("Close").click()
    await ben.go_offline()
    assert await violations(ben) == []
    await ben.go_offline(False)
    await ben.button(HARBOR).click()
    await expect(ben.page.locator("#overlay")).to_be_visible()
    assert await violations(ben) == []


async def test_the_policy_forbids_inline_content_and_other_hosts(demo: Demo) -> None:
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
