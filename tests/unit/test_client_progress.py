"""What each message means for the position in a company. No I/O."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.client import Message, Position, Recovered, Resync, Skipped
from notifier.client.progress import (
    MAX_GAP_RETRIES,
    Gap,
    Progress,
    Unreadable,
    same_company,
)
from tests.unit.fake_server import EPOCH, TEN, change, resync


def answer(position: Any = 10, epoch: Any = EPOCH, recovered: bool | None = None) -> Any:
    data = {"CompanyId": "a", "Position": position, "Epoch": epoch}
    return data if recovered is None else data | {"Recovered": recovered}


def following(position: Position = TEN) -> Progress:
    return Progress("a", position)


def accept(progress: Progress, message: Any) -> Message | Resync | Skipped | None:
    return progress.accept(message, "")


def test_the_request_has_a_position_if_there_is_one() -> None:
    assert Progress("a", None).request() == {"companyId": "a"}
    assert following().request() == {"companyId": "a", "after": 10, "epoch": EPOCH}


@pytest.mark.parametrize(
    ("requested", "data", "reason"),
    [
        (None, answer(), "start"),
        (TEN, answer(50, recovered=False), "expired"),
        (TEN, answer(10), "expired"),
        (TEN, answer(50, recovered=True), "expired"),
        (TEN, answer(10, "e2", recovered=True), "epoch"),
    ],
)
def test_an_answer_that_does_not_recover_is_a_resync(
    requested: Position | None, data: Any, reason: str
) -> None:
    progress = Progress("a", requested)
    report = progress.acknowledge("a", requested, data)
    assert report == Resync(
        company="a", reason=reason, position=data["Position"], epoch=data["Epoch"]
    )
    assert progress.head == Position(data["Position"], data["Epoch"])


def test_an_answer_that_recovers_leaves_the_position() -> None:
    progress = following()
    report = progress.acknowledge("a", TEN, answer(recovered=True))
    assert report == Recovered(company="a", position=10, epoch=EPOCH)
    assert progress.head == TEN


@pytest.mark.parametrize("data", [answer("10"), answer(True), answer(-1), answer(epoch=None), {}])
def test_an_answer_without_position_or_epoch_is_unreadable(data: Any) -> None:
    with pytest.raises(Unreadable):
        following().acknowledge("a", TEN, data)


def test_an_answer_gives_the_time_of_the_message_at_its_position() -> None:
    progress = Progress("a", None)
    progress.acknowledge("a", None, answer() | {"At": "t10"})
    assert progress.request() == {"companyId": "a", "after": 10, "epoch": EPOCH, "at": "t10"}


def test_each_message_gives_its_time() -> None:
    progress = following()
    for message, at in (
        (change(11) | {"At": "t11"}, "t11"),
        ({"Type": "Skipped", "Data": {"CompanyId": "a"}, "Position": 20, "At": "t20"}, "t20"),
        (resync(21) | {"At": "t21"}, "t21"),
        (resync(1, "epoch", "e2") | {"At": "t1"}, "t1"),
    ):
        report = accept(progress, message)
        assert report is not None
        assert report.at == at
        assert progress.request()["at"] == at


def test_a_time_that_is_not_known_is_not_sent() -> None:
    progress = following(Position(10, EPOCH, "t10"))
    accept(progress, change(11))
    assert progress.request() == {"companyId": "a", "after": 11, "epoch": EPOCH}


@pytest.mark.parametrize(
    ("ours", "theirs", "known"),
    [("t10", "t10", "t10"), ("t10", None, "t10"), (None, "t10", "t10"), (None, None, None)],
)
def test_a_recovered_position_keeps_the_time_that_is_known(
    ours: str | None, theirs: str | None, known: str | None
) -> None:
    requested = Position(10, EPOCH, ours)
    progress = following(requested)
    report = progress.acknowledge("a", requested, answer(recovered=True) | {"At": theirs})
    assert report == Recovered(company="a", position=10, epoch=EPOCH, at=known)
    assert progress.head == Position(10, EPOCH, known)


def test_a_position_of_another_time_is_not_recovered() -> None:
    requested = Position(10, EPOCH, "before the backup was restored")
    progress = following(requested)
    report = progress.acknowledge("a", requested, answer(recovered=True) | {"At": "t10"})
    assert report == Resync(company="a", reason="epoch", position=10, epoch=EPOCH, at="t10")


def test_the_next_message_is_accepted_and_moves_the_position() -> None:
    progress = following()
    message = accept(progress, change(11))
    assert isinstance(message, Message)
    assert (message.position, message.epoch, message.company) == (11, EPOCH, "a")
    assert progress.head == Position(11, EPOCH)


@pytest.mark.parametrize("position", [0, 9, 10])
def test_a_duplicate_is_dropped(position: int) -> None:
    progress = following()
    assert accept(progress, change(position)) is None
    assert progress.head == TEN


def test_a_gap_is_requested_three_times_before_the_state_is_reloaded() -> None:
    progress = following()
    for _ in range(MAX_GAP_RETRIES):
        with pytest.raises(Gap):
            accept(progress, change(12))
        assert progress.request()["after"] == 10
        progress.acknowledge("a", TEN, answer(recovered=True))
    with pytest.raises(Gap):
        accept(progress, change(12))
    assert progress.request() == {"companyId": "a"}
    report = progress.acknowledge("a", None, answer(12))
    assert isinstance(report, Resync)
    assert report.reason == "gap"


def test_a_message_that_arrives_ends_the_count_of_retries() -> None:
    progress = following()
    for position in range(11, 11 + 2 * MAX_GAP_RETRIES):
        with pytest.raises(Gap):
            accept(progress, change(position + 1))
        progress.acknowledge("a", progress.head, answer(position - 1, recovered=True))
        accept(progress, change(position))
    assert progress.request()["after"] == 10 + 2 * MAX_GAP_RETRIES


def test_a_skip_moves_the_position_and_the_next_message_follows_it() -> None:
    progress = following()
    skip = {"Type": "Skipped", "Data": {"CompanyId": "a"}, "Position": 57}
    assert accept(progress, skip) == Skipped(company="a", position=57, epoch=EPOCH)
    assert accept(progress, skip) is None
    assert progress.request() == {"companyId": "a", "after": 57, "epoch": EPOCH}
    with pytest.raises(Gap):
        accept(progress, change(59))
    assert isinstance(accept(progress, change(58)), Message)


@pytest.mark.parametrize("position", ["11", 11.5, None, -1, True])
def test_a_position_that_is_not_a_number_is_unreadable(position: Any) -> None:
    with pytest.raises(Unreadable):
        accept(following(), change(position))


def test_a_resync_of_the_server_is_accepted_over_a_gap_and_over_an_epoch() -> None:
    progress = following()
    assert accept(progress, resync(9)) is None
    # At its own position too: the rows' user has become another one.
    report = accept(progress, resync(10, "epoch"))
    assert report == Resync(company="a", reason="epoch", position=10, epoch=EPOCH)
    report = accept(progress, resync(20, "truncate"))
    assert report == Resync(company="a", reason="truncate", position=20, epoch=EPOCH)
    report = accept(progress, resync(1, "epoch", "e2"))
    assert report == Resync(company="a", reason="epoch", position=1, epoch="e2")
    assert progress.head == Position(1, "e2")


def test_another_company_starts_without_block_and_retries() -> None:
    progress = following()
    progress.blocked = "revoked"
    for _ in range(MAX_GAP_RETRIES + 1):
        progress.count_failure()
    progress.follow("b", Position(3, "e2"))
    assert progress.blocked is None
    assert progress.request() == {"companyId": "b", "after": 3, "epoch": "e2"}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", True),
        ("{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", True),
        ("team:A0EEBC999C0B4EF8BB6D6BB9BD380A11", "team:a0eebc999c0b4ef8bb6d6bb9bd380a11", True),
        (7, "7", True),
        ("Acme", "acme", False),
        ("7", "8", False),
        (None, "a", False),
    ],
)
def test_company_ids_are_compared_without_regard_to_spelling(
    one: object, other: object, equal: bool
) -> None:
    assert same_company(one, other) is equal
