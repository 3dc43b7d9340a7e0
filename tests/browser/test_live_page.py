"""The live page of a running demo, in Chromium."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, Route, expect

from tests.browser.conftest import Open
from tests.browser.live import HARBOR, NORTHWIND, Demo, Sql, Window
from tests.browser.prefix import PrefixProxy
from tests.waiting import until

PHONE_WIDTH = 390
PHONE = {
    "viewport": {"width": PHONE_WIDTH, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}


async def test_two_windows_show_each_others_writes(window: Open, sql: Sql) -> None:
    ann, ben = await window("ann"), await window("ben")
    await ann.button("New event").click()
    await ann.field("Title").fill("Two windows")
    await ann.field("Location").fill("Balcony")
    await ann.field("Starts").fill("2031-03-26T10:00")
    await ann.field("Ends").fill("2031-03-26T11:00")
    await ann.button("Save").click()

    await expect(ben.entry("Ann Baker added Two windows")).to_be_visible()
    await expect(ann.entry("You added Two windows")).to_be_visible()
    for side in (ann, ben):  # the event is in another week; the link leads there
        await side.entry("added").get_by_role("button", name="Two windows").click()
    await expect(ben.event("Two windows")).to_contain_text("Balcony")
    await expect(ben.event("Two windows")).to_have_class("event hue-0 lit")

    before = await ann.event("Two windows").locator(".time").inner_text()
    await ben.event("Two windows").get_by_role("button").press("Shift+ArrowDown")
    await expect(ann.entry("Ben Okafor moved Two windows")).to_be_visible()
    await expect(ann.event("Two windows").locator(".time")).not_to_have_text(before)
    await expect(ben.event("Two windows").get_by_role("button")).to_be_focused()

    await ben.event("Two windows").get_by_role("button").press("Enter")
    await ben.button("Cancel event").click()
    await expect(ann.entry("Ben Okafor cancelled Two windows")).to_be_visible()
    await expect(ann.event("Two windows")).to_have_count(0)
    await ben.reaches(await sql.position())


async def test_a_write_with_psql_is_seen(window: Open, sql: Sql) -> None:
    ann = await window()
    added = await sql.event("By hand")
    await expect(ann.event("By hand")).to_be_visible()
    await expect(ann.entry("A SQL client added By hand")).to_be_visible()
    await sql.run("UPDATE events SET title = 'By pen' WHERE id = $1", added, actor="ben")
    await expect(ann.entry("Ben Okafor renamed By pen")).to_contain_text("was “By hand”")
    await expect(ann.event("By hand")).to_have_count(0)
    await sql.run("DELETE FROM events WHERE id = $1", added)
    await expect(ann.event("By pen")).to_have_count(0)


async def test_back_online_every_missed_change_is_delivered(window: Open, sql: Sql) -> None:
    ann = await window()
    position, states = await sql.position(), await ann.has_loaded_both()
    await ann.go_offline()
    for number in range(3):
        await sql.event(f"Missed {number}", hour=11 + number)
    async with ann.page.expect_response(lambda response: response.request.method == "POST"):
        await ann.button("Add").click()
    await expect(ann.event("Missed")).to_have_count(0)
    await ann.reaches(position)

    await ann.go_offline(False)
    await expect(ann.event("Missed")).to_have_count(3)
    await expect(ann.entry("4 missed changes were delivered")).to_contain_text(
        f"№ {position + 1} to {position + 4}."
    )
    await expect(ann.entry("while you were offline")).to_have_count(4)
    await ann.reaches(position + 4)
    assert ann.states == states, "the state was not reloaded: the client recovered"


async def test_a_network_failure_is_recovered(window: Open, sql: Sql) -> None:
    ann = await window()
    await ann.page.context.set_offline(True)
    await ann.page.evaluate("() => dispatchEvent(new Event('offline'))")
    await expect(ann.page.locator("#link")).to_have_attribute("data-state", "waiting")
    await sql.event("Without a net")
    await ann.page.context.set_offline(False)
    await expect(ann.event("Without a net")).to_be_visible()
    await expect(ann.entry("One missed change was delivered")).to_be_visible()
    await ann.is_live()


async def test_a_token_is_renewed_on_the_live_socket(
    browser: Browser, demo: Demo, sql: Sql
) -> None:
    lives = [2.0, 3600.0]
    ann = await Window.new(browser)

    async def answer(route: Route) -> None:
        await route.fulfill(body=demo.token("ann", ttl=lives.pop(0)))

    await ann.page.route("**/demo/token*", answer)
    await ann.page.goto(demo.page)
    await ann.is_live()
    await ann.sends("authenticate", times=2)
    await ann.receives("AuthenticationResult", times=2)
    await sql.event("Renewed")
    await expect(ann.event("Renewed")).to_be_visible()
    assert len(ann.sockets) == 1
    assert lives == []


async def test_an_expired_token_is_replaced_and_nothing_is_lost(
    browser: Browser, demo: Demo, sql: Sql
) -> None:
    ann = await Window.new(browser)
    fresh = False

    async def answer(route: Route) -> None:
        if fresh or not ann.sockets:
            await route.fulfill(body=demo.token("ann", ttl=3600 if fresh else 0))
        else:
            await route.fulfill(status=503, body="{}")

    await ann.page.route("**/demo/token*", answer)
    await ann.page.goto(demo.page)
    await ann.has_states_of(2)  # it may be live for too short a time to be seen
    await expect(ann.page.locator("#link")).to_have_attribute("data-state", "waiting")
    await sql.event("While expired")
    fresh = True
    await expect(ann.event("While expired")).to_be_visible()
    await expect(ann.entry("One missed change was delivered")).to_be_visible()
    assert len(ann.sockets) == 2


async def test_access_is_not_denied_before_the_node_has_answered(
    browser: Browser, demo: Demo
) -> None:
    ann, connects = await Window.new(browser), asyncio.Event()

    async def answer(route: Route) -> None:
        await connects.wait()
        await route.continue_()

    await ann.page.route("**/demo/token*", answer)
    await ann.page.goto(demo.page)
    chosen = ann.page.locator("#me option:checked")
    await expect(chosen).to_have_text("ann")
    connects.set()
    await ann.is_live()
    await expect(chosen).to_have_text("Ann Baker")


async def test_a_user_who_loses_access_sees_nothing_more(window: Open, sql: Sql) -> None:
    gus_id = await sql.person("Gus Grey", "gus")
    await sql.event("Before")
    gus, ann = await window("gus"), await window("ann")
    await expect(gus.event("Before")).to_be_visible()
    await sql.run("DELETE FROM employees WHERE id = $1", gus_id, actor="ann")
    overlay = gus.page.locator("#overlay")
    await expect(overlay).to_contain_text("Gus Grey has just lost access to Northwind Studio")
    await expect(gus.page.locator("#link")).to_have_attribute("data-state", "idle")
    await expect(gus.page.locator("#grid .event:not(.gone)")).to_have_count(0)
    await expect(gus.button("New event")).to_be_disabled()
    await expect(gus.page.locator("#me option:checked")).to_have_text("Gus Grey (no access)")

    await sql.event("After")
    await expect(ann.event("After")).to_be_visible()
    await expect(gus.event("After")).to_have_count(0)
    await overlay.get_by_role("button").click()
    await gus.is_live()
    await expect(gus.event("After")).to_be_visible()
    await expect(overlay).to_be_hidden()


async def test_after_a_switch_only_the_other_company_is_shown(window: Open, sql: Sql) -> None:
    ann, ben = await window("ann"), await window("ben")
    await sql.event("Of Northwind")
    await expect(ann.event("Of Northwind")).to_be_visible()
    await ann.button(HARBOR).click()
    await ann.is_live()
    await expect(ann.event("Of Northwind")).to_have_count(0)
    await sql.event("Also of Northwind")
    await expect(ben.event("Also of Northwind")).to_be_visible()
    await sql.event("Of Harbor", company=HARBOR)
    await expect(ann.event("Of Harbor")).to_be_visible()
    await expect(ann.event("Northwind")).to_have_count(0)

    await ben.button(HARBOR).click()
    await expect(ben.page.locator("#overlay")).to_contain_text("receives none of its messages")
    await expect(ben.event("Of Harbor")).to_have_count(0)
    await ben.button(NORTHWIND).click()
    await ben.is_live()
    await expect(ben.event("Also of Northwind")).to_be_visible()
    await expect(ben.page.locator("#overlay")).to_be_hidden()


async def test_both_companies_are_followed_on_one_connection(window: Open, sql: Sql) -> None:
    ann = await window("ann")
    await ann.sends('"subscribe"', times=2)
    await ann.has_states_of(2)
    await sql.event("At the harbour", company=HARBOR)
    await expect(ann.entry("A SQL client added At the harbour")).to_contain_text(HARBOR)
    await expect(ann.page.locator("#companies .badge")).to_have_text("1")
    await expect(ann.event("At the harbour")).to_have_count(0)
    await sql.event("At the studio")
    await expect(ann.event("At the studio")).to_be_visible()

    await ann.button(HARBOR).click()
    await expect(ann.event("At the harbour")).to_be_visible()
    await expect(ann.event("At the studio")).to_have_count(0)
    await expect(ann.page.locator("#companies .badge")).to_have_count(0)
    await ann.is_live()
    assert (ann.states, len(ann.sockets)) == (2, 1)


async def test_losing_one_company_leaves_the_other(window: Open, sql: Sql) -> None:
    for company in (NORTHWIND, HARBOR):
        await sql.person("Hal Hart", "hal", company)
    hal = await window("hal")
    await sql.event("Last seen", company=HARBOR)
    await expect(hal.entry("added Last seen")).to_be_visible()
    await sql.run(
        "DELETE FROM employees WHERE user_id = 'hal'"
        " AND company_id = (SELECT id FROM companies WHERE name = $1)",
        HARBOR,
    )
    await expect(hal.entry("Hal Hart has just lost access.")).to_contain_text(HARBOR)
    await sql.event("Not for Hal", company=HARBOR)
    await sql.event("Still for Hal")
    await expect(hal.event("Still for Hal")).to_be_visible()
    await hal.is_live()
    await hal.button(HARBOR).click()
    await expect(hal.page.locator("#overlay")).to_contain_text("Hal Hart")
    await expect(hal.entry("Not for Hal")).to_have_count(0)


async def test_an_own_change_is_pending_until_it_has_arrived(window: Open, sql: Sql) -> None:
    ann, ben = await window("ann"), await window("ben")
    added = await sql.event("Moved along", hour=12)
    await expect(ann.event("Moved along")).to_be_visible()
    await ann.event("Moved along").get_by_role("button").press("Shift+ArrowDown")
    await ann.sends('"await"')
    await ann.receives('"Arrived"')
    await expect(ann.event("Moved along")).not_to_have_class(re.compile("pending"))

    await ann.go_offline()
    await ann.event("Moved along").get_by_role("button").press("Enter")
    await ann.field("Title").fill("Moved on")
    await ann.button("Save").click()
    await expect(ann.event("Moved on")).to_have_class(re.compile("pending"))
    await expect(ann.event("Moved on").get_by_role("button")).to_have_accessible_name(
        re.compile("pending$")
    )
    await expect(ben.entry("Ann Baker renamed Moved on")).to_be_visible()
    await expect(ann.entry("Moved on")).to_have_count(0)

    await ann.go_offline(False)
    await ann.receives('"Arrived"', times=2)
    await expect(ann.event("Moved on")).not_to_have_class(re.compile("pending"))
    await expect(ann.entry("You renamed Moved on")).to_be_visible()
    await sql.run("DELETE FROM events WHERE id = $1", added)
    await expect(ann.event("Moved on")).to_have_count(0)


async def test_a_private_event_reaches_only_its_people(window: Open, sql: Sql) -> None:
    ann, ben, chloe = [await window(user) for user in ("ann", "ben", "chloe")]
    today = await sql.today()
    await ann.button("New event").click()
    await ann.field("Title").fill("Appraisal")
    await ann.field("Starts").fill(f"{today}T14:00")
    await ann.field("Ends").fill(f"{today}T15:00")
    await ann.field("Private: only you and the organizer see it").check()
    await ann.button("Save").click()
    await expect(ann.event("Appraisal")).to_contain_text("private")
    position = await sql.position()
    for other in (ann, ben, chloe):
        await other.reaches(position)  # two of them by a Skipped

    await ann.event("Appraisal").get_by_role("button").click()
    await expect(ann.field("Private: only you and the organizer see it")).to_be_checked()
    await ann.page.locator("#event [name=OrganizerId]").select_option(label="Ben Okafor")
    await ann.button("Save").click()
    await expect(ben.entry("Ann Baker added Appraisal")).to_be_visible()
    await ann.event("Appraisal").get_by_role("button").click()
    await ann.field("Location").fill("Attic")
    await ann.button("Save").click()
    await expect(ben.event("Appraisal")).to_contain_text("Attic · private")
    await ann.event("Appraisal").get_by_role("button").click()
    await ann.page.locator("#event [name=OrganizerId]").select_option(label="Ann Baker")
    await ann.button("Save").click()
    await expect(ben.event("Appraisal")).to_have_count(0)
    await chloe.reaches(await sql.position())
    assert not any("Appraisal" in frame for frame in chloe.received)
    await ben.page.reload()
    await ben.is_live()
    await expect(ben.event("Appraisal")).to_have_count(0)


async def test_a_restart_of_the_server_is_recovered(window: Open, demo: Demo, sql: Sql) -> None:
    ann = await window()
    position, states = await sql.position(), await ann.has_loaded_both()
    demo.stop()
    await expect(ann.page.locator("#link")).to_have_attribute("data-state", "waiting")
    demo.start()
    await sql.event("After the restart")
    await expect(ann.event("After the restart")).to_be_visible()
    await ann.is_live()
    await ann.reaches(position + 1)
    assert ann.states == states, "the state was not reloaded: the client recovered"


async def test_without_websockets_the_page_goes_on_over_http(window: Open, sql: Sql) -> None:
    ann = await window()
    states = await ann.has_loaded_both()
    transport, switch = ann.page.locator("#transport"), ann.page.get_by_role("switch", name="Block")
    await expect(transport).to_have_text("WebSocket")
    await switch.check()
    await expect(transport).to_have_text("Server-sent events")
    await sql.event("By stream")
    await expect(ann.event("By stream")).to_be_visible()
    await switch.uncheck()
    await expect(transport).to_have_text("WebSocket")
    await sql.event("By socket")
    await expect(ann.event("By socket")).to_be_visible()
    assert ann.states == states, "both changes of the transport have resumed"


async def test_a_bulk_change_reloads_the_state(window: Open, sql: Sql) -> None:
    ann = await window()
    await ann.button(HARBOR).click()
    await ann.is_live()
    position = await sql.position(HARBOR)
    await sql.run(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " SELECT id, 'One of many', now() + interval '2 years', now() + interval '2 years'"
        " FROM companies, generate_series(1, 1500) WHERE name = $1",
        HARBOR,
    )
    await expect(ann.entry("State reloaded")).to_contain_text(
        "many rows changed in one transaction"
    )
    await ann.reaches(position + 1)
    await sql.run("DELETE FROM events WHERE title = 'One of many'")
    await expect(ann.entry("State reloaded")).to_have_count(2)


async def test_an_event_is_dragged_to_another_hour_and_day(window: Open, sql: Sql) -> None:
    ann, ben = await window("ann"), await window("ben")
    await sql.event("Dragged", hour=12, actor="ben")
    item = ann.event("Dragged")
    await expect(item).to_be_visible()
    await item.scroll_into_view_if_needed()
    box = await item.bounding_box()
    column = await item.locator("..").bounding_box()
    assert box is not None
    assert column is not None
    mouse = ann.page.mouse
    await mouse.move(box["x"] + 20, box["y"] + 6)
    await mouse.down()
    await mouse.move(box["x"] + 22, box["y"] + 30, steps=3)
    await mouse.move(box["x"] + 20, box["y"] + 6 + column["height"] / 24, steps=3)
    await mouse.up()
    await expect(ben.entry("Ann Baker moved Dragged")).to_contain_text(
        re.compile("12:00.13:00 → 13:00.14:00")
    )
    await expect(ann.page.locator("#event")).to_be_hidden()
    await expect(item.locator(".time")).to_contain_text("13:00")


async def test_a_form_shows_a_change_by_another_user(window: Open, sql: Sql) -> None:
    ann = await window()
    added = await sql.event("Open here")
    await ann.event("Open here").get_by_role("button").click()
    note = ann.page.locator("#event .note")
    await sql.run("UPDATE events SET location = 'Attic' WHERE id = $1", added, actor="ben")
    await expect(note).to_have_text("Ben Okafor has just changed this.")
    await sql.run("DELETE FROM events WHERE id = $1", added, actor="ben")
    await expect(note).to_have_text("Ben Okafor has just removed this.")
    await expect(ann.button("Save")).to_be_disabled()


async def test_a_form_shows_its_errors(window: Open) -> None:
    ann = await window()
    await ann.button("New event").click()
    await ann.button("Save").click()
    error = ann.page.locator("#event .error")
    await expect(error).to_contain_text("Title")
    await expect(ann.field("Title")).to_be_focused()
    await ann.field("Title").fill("Backwards")
    await ann.field("Ends").fill("2020-01-01T10:00")
    await ann.button("Save").click()
    await expect(error).to_have_text("The event ends before it starts.")
    await ann.page.keyboard.press("Escape")
    await expect(ann.page.locator("#event")).to_be_hidden()


async def test_an_event_of_whole_days_keeps_its_days(window: Open) -> None:
    ann = await window()
    await ann.button("New event").click()
    await ann.field("Title").fill("Fair")
    await ann.field("All day").check()
    await expect(ann.field("Starts")).to_have_attribute("type", "date")
    await ann.field("Starts").fill("2031-03-29")
    await ann.field("Ends").fill("2031-03-31")
    await ann.button("Save").click()
    entry = ann.entry("You added Fair")
    await expect(entry).to_contain_text(re.compile("Sat 29 Mar . Mon 31 Mar"))
    await entry.get_by_role("button", name="Fair").click()
    await expect(ann.page.locator("#period")).to_have_text(re.compile("^24.*30 March 2031$"))
    await expect(ann.event("Fair")).to_have_count(2)
    await ann.event("Fair").first.get_by_role("button").click()
    await expect(ann.field("Starts")).to_have_value("2031-03-29")
    await expect(ann.field("Ends")).to_have_value("2031-03-31")


async def test_people_are_added_and_removed(window: Open) -> None:
    ann, ben = await window("ann"), await window("ben")
    people = ben.page.locator("#people")
    await ann.button("Add a person").click()
    await ann.field("Name").fill("Hana Ito")
    await ann.field("Job title").fill("Writer")
    await ann.button("Save").click()
    await expect(ben.entry("Ann Baker added Hana Ito")).to_be_visible()
    await expect(people).to_contain_text("Hana Ito")
    await people.get_by_role("button", name="Hana Ito").click()
    await ben.button("Remove").click()
    await expect(ann.entry("Ben Okafor removed Hana Ito")).to_be_visible()
    await expect(people).not_to_contain_text("Hana Ito")


async def test_the_month_shows_the_same_events(window: Open, sql: Sql) -> None:
    ann = await window()
    await sql.event("In a month", hour=0)
    await expect(ann.event("In a month")).to_be_visible()
    await ann.button("Month").click()
    await expect(ann.page.get_by_role("table")).to_be_visible()
    today = ann.page.locator("td.today")
    await expect(today.locator(".event").first).to_be_visible()
    await today.get_by_role("button").first.click()
    await expect(ann.event("In a month")).to_be_attached()
    await expect(ann.button("Week")).to_have_attribute("aria-pressed", "true")


async def test_a_phone_shows_everything_without_scrolling_sideways(window: Open, sql: Sql) -> None:
    ann = await window(**PHONE)
    await sql.event("On the go")
    await expect(ann.event("On the go")).to_be_visible()
    for view in ("Week", "Month"):
        await ann.button(view).tap()
        width = await ann.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE_WIDTH
    await ann.button("Week").tap()
    days = ann.page.locator(".head button")
    await expect(days).to_have_count(7)
    for number in range(7):
        await days.nth(number).tap()
        await expect(days.nth(number)).to_have_attribute("aria-pressed", "true")
    await ann.button("Today").tap()
    await expect(ann.event("On the go")).to_be_visible()
    await ann.button("New event").tap()
    box = await ann.page.locator("#event").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE_WIDTH


async def test_the_page_follows_the_colour_scheme(window: Open) -> None:
    lightness = """() => {
        const context = document.createElement('canvas').getContext('2d');
        context.fillStyle = getComputedStyle(document.body).backgroundColor;
        context.fillRect(0, 0, 1, 1);
        return Math.max(...context.getImageData(0, 0, 1, 1).data.slice(0, 3));
    }"""
    dark = await window(color_scheme="dark")
    assert await dark.page.evaluate(lightness) < 40
    light = await window(color_scheme="light")
    assert await light.page.evaluate(lightness) > 230


async def test_everything_works_with_the_keyboard(window: Open) -> None:
    ann, ben = await window("ann"), await window("ben")
    keyboard = ann.page.keyboard
    await keyboard.press("Tab")
    await expect(ann.page.get_by_role("link", name="Skip to the calendar")).to_be_focused()
    await keyboard.press("Enter")
    for _ in range(6):
        await keyboard.press("Tab")
    await expect(ann.button("New event")).to_be_focused()
    await keyboard.press("Enter")
    await keyboard.type("By keys")
    await keyboard.press("Enter")
    await expect(ben.entry("Ann Baker added By keys")).to_be_visible()
    await expect(ann.button("New event")).to_be_focused()


async def test_simulated_colleagues_write(window: Open, sql: Sql) -> None:
    ann = await window()
    before = await sql.position()
    for number, name in enumerate(("Add", "Move", "Cancel"), 1):
        await ann.button(name).click()
        await ann.reaches(before + number)

    async def busy() -> bool:
        return await ann.has_written() >= 6

    async def complete() -> bool:
        return await sql.position() == before + await ann.has_written()

    await ann.button("Repeat").click()
    await until(busy)
    await ann.button("Repeat").click()
    await expect(ann.button("Repeat")).to_have_attribute("aria-pressed", "false")
    await until(complete)
    await ann.reaches(await sql.position())


async def test_case_e11_under_a_prefix_that_a_proxy_strips_everything_works(
    browser: Browser, demo: Demo, sql: Sql
) -> None:
    async with PrefixProxy(demo.page) as proxy:
        ann = await Window.new(browser)
        await ann.page.goto(f"{proxy.page}?user=ann")
        await ann.is_live()
        await sql.event("Under a prefix")
        await expect(ann.event("Under a prefix")).to_be_visible()
        before = await sql.position()
        await ann.button("Add").click()
        await ann.reaches(before + 1)
        assert ann.faults == []
        assert all(socket.url.endswith("/calendar/") for socket in ann.sockets)
        await ann.page.context.close()
