"""What filters may name: the columns that messages have, read again when they may have changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery import filter_catalogue
from notifier.delivery.filter import Filter
from notifier.errors import BadFilter, DatabaseError
from notifier.watches import CALENDAR
from tests.unit.worlds import FakeColumns, catalogue


async def test_equal_filters_are_one_object_however_they_are_spelled() -> None:
    filters = catalogue()
    first = await filters.parse(["Event", "Company"], {"Event": {"Title": ["a", "b"]}})
    second = await filters.parse(["Company", "Event", "Event"], {"Event": {"Title": ["b", "a"]}})
    assert first is second
    assert first is not await filters.parse(["Event"], {"Event": {"Title": ["a", "b"]}})


async def test_a_filter_that_passes_everything_is_none() -> None:
    filters = catalogue()
    assert await filters.parse(None, None) is None
    assert await filters.parse(None, {}) is None
    assert await filters.parse(None, {"Event": {}}) is None


async def test_the_catalogue_is_read_once_for_many_filters() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    await asyncio.gather(*(filters.parse(["Event"], None) for _ in range(10)))
    assert columns.reads == 1


async def test_key_company_and_renamed_columns_have_their_properties() -> None:
    filters = catalogue()
    for name in ("EventId", "CompanyId", "Title", "OrganizerId"):
        assert await filters.parse(None, {"Event": {name: ["x"]}}) is not None
    with pytest.raises(BadFilter, match="unknown property of Event"):
        await filters.parse(None, {"Event": {"organizer_id": ["x"]}})


async def test_an_excluded_column_is_unknown() -> None:
    columns = FakeColumns()
    columns.watches = (replace(CALENDAR[0], exclude=("title",)), *CALENDAR[1:])
    with pytest.raises(BadFilter, match="unknown property of Event"):
        await catalogue(columns).parse(None, {"Event": {"Title": ["x"]}})


async def turns() -> None:
    """Lets the other tasks run until they wait for the database."""
    for _ in range(10):
        await asyncio.sleep(0)


COLOUR = {"Event": {"Colour": ["red"]}}


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the test takes, the columns were read a moment ago."""
    monkeypatch.setattr(filter_catalogue, "REREAD_SECONDS", 600.0)


@pytest.mark.usefixtures("moment")
async def test_columns_are_those_of_the_present_version_of_the_catalogue() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    with pytest.raises(BadFilter):
        await filters.parse(None, COLOUR)
    columns.columns.append("colour")
    columns.version = 2
    assert await filters.parse(None, COLOUR) is not None
    columns.columns.remove("colour")
    columns.version = 3
    with pytest.raises(BadFilter, match="unknown property of Event"):
        await filters.parse(None, COLOUR)
    assert columns.reads == 3


@pytest.mark.usefixtures("moment")
async def test_without_another_version_the_columns_are_not_read_again() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    for _ in range(3):
        await filters.parse(None, {"Event": {"Title": ["a"]}})
        with pytest.raises(BadFilter):
            await filters.parse(None, COLOUR)
    assert columns.reads == 1


async def test_filters_that_arrive_together_share_a_query_of_the_version() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    await asyncio.gather(*(filters.parse(None, {"Event": {"Title": [str(n)]}}) for n in range(100)))
    assert (columns.versions, columns.reads) == (1, 1)
    await filters.parse(["Event"], None)  # names no property
    assert columns.versions == 1


async def test_a_session_of_a_pooler_with_a_version_of_its_own_causes_one_reading() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    for _ in range(3):
        for columns.version in range(50):
            await filters.parse(None, {"Event": {"Title": ["a"]}})
    assert columns.reads == 50


async def test_an_alteration_during_the_reading_is_noticed_by_the_next_filter() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)

    columns.open.clear()
    first = asyncio.create_task(filters.parse(None, {"Event": {"Title": ["a"]}}))
    await turns()
    assert columns.reads == 1
    columns.columns = ["id", "company_id"]
    columns.version += 1
    second = asyncio.create_task(filters.parse(None, {"Event": {"Title": ["b"]}}))
    await turns()
    assert columns.versions == 2
    columns.open.set()
    for each in (first, second):
        with pytest.raises(BadFilter):
            await each


async def test_without_the_database_the_columns_that_are_known_are_used() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    await filters.parse(["Event"], None)
    columns.error = DatabaseError("out of reach")
    assert await filters.parse(None, {"Event": {"Title": ["a"]}}) is not None


@pytest.mark.usefixtures("moment")
async def test_a_new_column_of_a_table_without_a_version_is_found_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    await filters.parse(None, {"Event": {"Title": ["a"]}})
    columns.columns = [*columns.columns, "colour"]
    with pytest.raises(BadFilter):  # read a moment ago: guesses must not cause a reading each
        await filters.parse(None, COLOUR)
    assert columns.reads == 1
    monkeypatch.setattr(filter_catalogue, "REREAD_SECONDS", 1e-9)
    assert await filters.parse(None, COLOUR) is not None
    assert columns.reads == 2


async def test_a_new_configuration_is_used_for_the_next_filter() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    await filters.parse(["Event"], None)
    entities = filters.entities
    columns.watches = (replace(CALENDAR[0], entity="Meeting", created="MeetingSet"),)
    filters.use(columns.watches)
    assert filters.entities["MeetingSet"] == "Meeting"
    assert filters.entities is entities  # which channels hold
    assert await filters.parse(["Meeting"], None) is not None
    with pytest.raises(BadFilter):
        await filters.parse(["Event"], None)


async def test_a_known_name_does_not_wait_while_an_unknown_one_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filter_catalogue, "REREAD_SECONDS", 1e-9)
    columns = FakeColumns()
    filters = catalogue(columns)
    await filters.parse(["Event"], None)
    columns.open.clear()
    unknown = asyncio.create_task(filters.parse(["Nothing"], None))
    await turns()
    assert columns.reads == 2
    assert await filters.parse(["Company"], None) is not None
    columns.open.set()
    with pytest.raises(BadFilter, match="unknown entity: Nothing"):
        await unknown


async def test_a_configuration_that_comes_during_the_reading_wins() -> None:
    columns = FakeColumns()
    filters = catalogue(columns)
    new = (replace(CALENDAR[0], entity="Meeting"),)

    def configure() -> None:
        columns.on_read = lambda: None
        columns.watches = new
        filters.use(new)

    columns.on_read = configure
    assert await filters.parse(["Meeting"], None) is not None
    assert set(filters.entities.values()) == {"Meeting"}


@pytest.mark.usefixtures("moment")
async def test_versions_that_change_during_each_reading_do_not_keep_a_filter_waiting() -> None:
    """As behind a pooler that discards plans. No filter has older columns than those of its version."""
    others: list[asyncio.Task[Filter | None]] = []

    class Altered(FakeColumns):
        is_altered = True

        async def fetch(self, query: str) -> list[Any]:
            rows = await super().fetch(query)
            if "catalogue_version" not in query and self.is_altered:
                assert self.reads < 10
                self.columns = [*self.columns, f"colour{self.reads}"]
                self.version += 1
                where = {"Event": {f"Colour{self.reads}": ["red"]}}
                others.append(asyncio.create_task(filters.parse(None, where)))
                await turns()
            return rows

    columns = Altered()
    filters = catalogue(columns)
    assert await filters.parse(None, {"Event": {"Title": ["a"]}}) is not None
    columns.is_altered = False
    assert None not in await asyncio.gather(*others)


async def test_without_the_database_a_filter_cannot_be_used_and_the_next_one_reads_again() -> None:
    columns = FakeColumns()
    columns.error = DatabaseError("out of reach")
    filters = catalogue(columns)
    with pytest.raises(DatabaseError):
        await filters.parse(["Event"], None)
    columns.error = None
    assert await filters.parse(["Event"], None) is not None
