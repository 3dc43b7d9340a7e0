"""Takes the README's pictures of the live page from a running demo.

    .venv/bin/python -m docs.pictures

writes docs/img/page.png and docs/img/page-dark-phone.png. CHROMIUM= may name another Chromium.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright, expect

from tests.browser.live import ARGUMENTS, CHROMIUM, Demo, Sql, Window
from tests.services import ROOT

IMAGES = ROOT / "docs" / "img"
LARGEST_BYTES = 300_000
LUNCH, LAST = "Team lunch", "Retrospective"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1.5}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "color_scheme": "dark",
    "is_mobile": True,
    "has_touch": True,
}


async def write(sql: Sql) -> None:
    """Writes some changes as applications do."""
    await sql.person("Noor Haddad", "noor")
    await sql.run("DELETE FROM events WHERE title = 'Sketch review'", actor="dai")
    lunch = await sql.event(LUNCH, hour=12, actor="chloe")
    await sql.run(
        "UPDATE events SET starts_at = starts_at + interval '1 hour',"
        " ends_at = ends_at + interval '1 hour', location = 'Canteen', organizer_id = employees.id"
        " FROM employees WHERE events.id = $1 AND user_id = 'chloe'",
        lunch,
        actor="ben",
    )
    await sql.event(LAST, hour=15)


async def take(window: Window, name: str) -> None:
    """Takes one picture with noon in the middle and without animations."""
    path = IMAGES / name
    await window.event(LUNCH).evaluate("event => event.scrollIntoView({ block: 'center' })")
    await window.page.evaluate("scrollTo(0, 0)")
    await window.page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    assert size <= LARGEST_BYTES, f"{name} has {size:,} bytes"


async def photograph(browser: Browser, demo: Demo) -> None:
    desktop = await Window.open(browser, demo, **DESKTOP)
    phone = await Window.open(browser, demo, **PHONE)
    await write(Sql(demo))
    for window, name in ((desktop, "page.png"), (phone, "page-dark-phone.png")):
        await expect(window.entry(f"A SQL client added {LAST}")).to_have_count(1)
        await take(window, name)
        assert not window.faults, window.faults


async def open_browser(demo: Demo) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        await photograph(browser, demo)
        await browser.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="notifier-demo-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL, started by root, runs as another user
        demo = Demo(Path(directory))
        demo.start()
        try:
            asyncio.run(open_browser(demo))
        finally:
            demo.stop()


if __name__ == "__main__":
    main()
