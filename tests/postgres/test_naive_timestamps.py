"""`naive_timestamps`: the offset of timestamps without a time zone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, NaiveTimestamps, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed

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
        with pytest.raises(SettingsError, match="should be 'UTC'"):
            load()
