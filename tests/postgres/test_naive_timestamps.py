"""`naive_timestamps`: the offset of timestamps without a time zone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notifier.check import links
from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, NaiveTimestamps, Watch, calendar
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company
from tests.services import run

TABLE = """
    CREATE DOMAIN moment AS timestamp;
    CREATE TABLE docs (id int PRIMARY KEY, company_id text, made timestamp, zoned timestamptz, days timestamp[],
                       named moment, today date, said text);
    GRANT ALL ON docs TO PUBLIC
"""
VALUES = """
    (1, 'c', '2026-06-01 10:00:00.12', '2026-06-01 10:00:00+02', '{2026-06-01 10:00:00,infinity}',
     '2026-06-01 10:00:00', '2026-06-01', 'at T10:00:00')
"""


@pytest.mark.parametrize(("zone", "offset"), [(None, ""), ("UTC", "+00:00")])
async def test_row_1_19_every_timestamp_without_a_zone_has_the_offset(
    database: Database,
    app: Connection,
    relay: Relayed,
    zone: NaiveTimestamps | None,
    offset: str,
) -> None:
    await database.execute(TABLE)
    watch = Watch(table="docs", entity="Doc", naive_timestamps=zone)
    await migrate(database.dsn, watches=[*CALENDAR, watch])
    await app.execute(f"INSERT INTO docs VALUES {VALUES}")
    await app.execute("UPDATE docs SET made = 'infinity'")
    await app.execute("UPDATE docs SET made = '0044-03-15 12:00:00 BC'")
    created, timeless, ancient = await relay.messages_of("c")
    expected: dict[str, Any] = {
        "DocId": 1,
        "CompanyId": "c",
        "Made": f"2026-06-01T10:00:00.12{offset}",
        "Zoned": "2026-06-01T08:00:00+00:00",
        "Days": [f"2026-06-01T10:00:00{offset}", "infinity"],
        "Named": f"2026-06-01T10:00:00{offset}",
        "Today": "2026-06-01",
        "Said": "at T10:00:00",
    }
    assert created["Data"] == expected
    assert timeless["Data"]["Made"] == "infinity"
    assert timeless["Old"] == {"Made": expected["Made"]}
    assert ancient["Data"]["Made"] == "0044-03-15T12:00:00 BC"


def test_it_stands_at_the_top_of_the_file_or_in_a_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("notifier.toml")
    watches = '[[watch]]\ntable = "t"\nentity = "T"\n[[watch]]\ntable = "s"\nentity = "S"\n'
    file.write_text(f'naive_timestamps = "UTC"\n{watches}')
    assert [watch.naive_timestamps for watch in load().watch] == ["UTC", "UTC"]
    file.write_text(f'{watches}naive_timestamps = "UTC"\n')
    assert [watch.naive_timestamps for watch in load().watch] == [None, "UTC"]
    for wrong in (f'naive_timestamps = "CET"\n{watches}', f'{watches}naive_timestamps = "CET"\n'):
        file.write_text(wrong)
        with pytest.raises(SettingsError, match='must be "UTC"'):
            load()


@pytest.mark.parametrize("place", ["file", "environment"])
async def test_it_needs_no_watch_in_the_file(
    database: Database,
    app: Connection,
    relay: Relayed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    await database.execute("ALTER TABLE events ADD made timestamp DEFAULT '2026-06-01 10:00:00'")
    given = {"database_url": database.dsn}
    monkeypatch.chdir(tmp_path)
    if place == "file":
        (tmp_path / "notifier.toml").write_text('naive_timestamps = "UTC"\n')
    else:
        given["naive_timestamps"] = "UTC"
        monkeypatch.setenv("NOTIFIER_NAIVE_TIMESTAMPS", "UTC")
    settings = load(database_url=database.dsn)
    assert (settings.watch, settings.given_watches) == (calendar("UTC"), None)
    missing = [each for each in await links.check(settings) if "not watched as set" in each.fact]
    assert [each.remedy for each in missing] == [links.MIGRATE] * 3
    status, output = await run(tmp_path, "migrate", **given)
    assert status == 0, output
    assert "events: naive_timestamps none → UTC: every company gets a Resync" in output
    company = await new_company(app)
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, 't', now(), now())",
        company,
    )
    created = (await relay.messages_of(company))[-1]
    assert created["Data"]["Made"] == "2026-06-01T10:00:00+00:00"
    assert not [each for each in await links.check(settings) if "as set" in each.fact]


async def test_without_the_setting_migrate_is_refused_and_loses_no_zone(database: Database) -> None:
    await migrate(database.dsn, naive_timestamps="UTC")
    await migrate(database.dsn, naive_timestamps="UTC")
    with pytest.raises(SettingsError, match="NOTIFIER_NAIVE_TIMESTAMPS") as caught:
        await migrate(database.dsn)
    assert "events: naive_timestamps UTC → none" in str(caught.value)
    await migrate(database.dsn, calendar=True)
    await migrate(database.dsn)


async def test_the_setting_alone_does_not_replace_the_watches_of_a_file(database: Database) -> None:
    _, *others = CALENDAR
    await migrate(database.dsn, watches=[Watch(table="events", entity="Meeting"), *others])
    with pytest.raises(SettingsError, match="no longer watched as Meeting") as caught:
        await migrate(database.dsn, naive_timestamps="UTC")
    assert "naive_timestamps" not in str(caught.value)


def test_watches_of_an_embedding_application_have_it_too() -> None:
    own = Watch(table="t", entity="T")
    settings = load({}, naive_timestamps="UTC", watch=[own, Watch(table="s", entity="S")])
    assert [watch.naive_timestamps for watch in settings.watch] == ["UTC", "UTC"]
    assert load({}, watch=[own]).watch == (own,)
