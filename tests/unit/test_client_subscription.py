"""What each message means for a subscription. No I/O."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.client import Message, Position, Recovered, Resync
from notifier.client.subscription import (
    MAX_GAP_RETRIES,
    Gap,
    Subscription,
    Unreadable,
    same_company,
)
from tests.unit.fake_server import EPOCH, TEN, change, resync


def answer(position: Any = 10, epoch: Any = EPOCH, recovered: bool | None = None) -> Any:
    data = {"CompanyId": "a", "Position": position, "Epoch": epoch}
    return data if recovered is None else data | {"Recovered": recovered}


def following(position: Position = TEN) -> Subscription:
    return Subscription("a", position)


def accept(subscription: Subscription, message: Any) -> Message | Resync | None:
    return subscription.accept(message, "")


def test_the_request_has_a_position_if_there_is_one() -> None:
    assert Subscription("a", None).request() == {"companyId": "a"}
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
    subscription = Subscription("a", requested)
    report = subscription.acknowledge("a", requested, data)
    assert report == Resync(
        company="a", reason=reason, position=data["Position"], epoch=data["Epoch"]
    )
    assert subscription.head == Position(data["Position"], data["Epoch"])


def test_an_answer_that_recovers_leaves_the_position() -> None:
    subscription = following()
    report = subscription.acknowledge("a", TEN, answer(recovered=True))
    assert report == Recovered(company="a", position=10, epoch=EPOCH)
    assert subscription.head == TEN


@pytest.mark.parametrize("data", [answer("10"), answer(True), answer(-1), answer(epoch=None), {}])
def test_an_answer_without_position_or_epoch_is_unreadable(data: Any) -> None:
    with pytest.raises(Unreadable):
        following().acknowledge("a", TEN, data)


def test_an_answer_gives_the_time_of_the_message_at_its_position() -> None:
    subscription = Subscription("a", None)
    subscription.acknowledge("a", None, answer() | {"At": "t10"})
    assert subscription.request() == {"companyId": "a", "after": 10, "epoch": EPOCH, "at": "t10"}


def test_each_message_gives_its_time() -> None:
    subscription = following()
    for message, at in (
        (change(11) | {"At": "t11"}, "t11"),
        (resync(12) | {"At": "t12"}, "t12"),
        (resync(1, "epoch", "e2") | {"At": "t1"}, "t1"),
    ):
        report = accept(subscription, message)
        assert report is not None
        assert report.at == at
        assert subscription.request()["at"] == at


def test_a_time_that_is_not_known_is_not_sent() -> None:
    subscription = following(Position(10, EPOCH, "t10"))
    accept(subscription, change(11))
    assert subscription.request() == {"companyId": "a", "after": 11, "epoch": EPOCH}


@pytest.mark.parametrize(
    ("ours", "theirs", "known"),
    [("t10", "t10", "t10"), ("t10", None, "t10"), (None, "t10", "t10"), (None, None, None)],
)
def test_a_recovered_position_keeps_the_time_that_is_known(
    ours: str | None, theirs: str | None, known: str | None
) -> None:
    requested = Position(10, EPOCH, ours)
    subscription = following(requested)
    report = subscription.acknowledge("a", requested, answer(recovered=True) | {"At": theirs})
    assert report == Recovered(company="a", position=10, epoch=EPOCH, at=known)
    assert subscription.head == Position(10, EPOCH, known)


def test_a_position_of_another_time_is_not_recovered() -> None:
    requested = Position(10, EPOCH, "before the backup was restored")
    subscription = following(requested)
    report = subscription.acknowledge("a", requested, answer(recovered=True) | {"At": "t10"})
    assert report == Resync(company="a", reason="epoch", position=10, epoch=EPOCH, at="t10")


def test_the_next_message_is_accepted_and_moves_the_position() -> None:
    subscription = following()
    message = accept(subscription, change(11))
    assert isinstance(message, Message)
    assert (message.position, message.epoch, message.company) == (11, EPOCH, "a")
    assert subscription.head == Position(11, EPOCH)


@pytest.mark.parametrize("position", [0, 9, 10])
def test_a_duplicate_is_dropped(position: int) -> None:
    subscription = following()
    assert accept(subscription, change(position)) is None
    assert subscription.head == TEN


def test_a_gap_is_requested_three_times_before_the_state_is_reloaded() -> None:
    subscription = following()
    for _ in range(MAX_GAP_RETRIES):
        with pytest.raises(Gap):
            accept(subscription, change(12))
        assert subscription.request()["after"] == 10
        subscription.acknowledge("a", TEN, answer(recovered=True))
    with pytest.raises(Gap):
        accept(subscription, change(12))
    assert subscription.request() == {"companyId": "a"}
    report = subscription.acknowledge("a", None, answer(12))
    assert isinstance(report, Resync)
    assert report.reason == "gap"


def test_a_message_that_arrives_ends_the_count_of_retries() -> None:
    subscription = following()
    for position in range(11, 11 + 2 * MAX_GAP_RETRIES):
        with pytest.raises(Gap):
            accept(subscription, change(position + 1))
        subscription.acknowledge("a", subscription.head, answer(position - 1, recovered=True))
        accept(subscription, change(position))
    assert subscription.request()["after"] == 10 + 2 * MAX_GAP_RETRIES


@pytest.mark.parametrize("position", ["11", 11.5, None, -1, True])
def test_a_position_that_is_not_a_number_is_unreadable(position: Any) -> None:
    with pytest.raises(Unreadable):
        accept(following(), change(position))


def test_a_resync_of_the_server_is_accepted_over_a_gap_and_over_an_epoch() -> None:
    subscription = following()
    assert accept(subscription, resync(10)) is None
    report = accept(subscription, resync(20, "truncate"))
    assert report == Resync(company="a", reason="truncate", position=20, epoch=EPOCH)
    report = accept(subscription, resync(1, "epoch", "e2"))
    assert report == Resync(company="a", reason="epoch", position=1, epoch="e2")
    assert subscription.head == Position(1, "e2")


def test_another_company_starts_without_block_and_retries() -> None:
    subscription = following()
    subscription.blocked = "revoked"
    for _ in range(MAX_GAP_RETRIES + 1):
        subscription.count_failure()
    subscription.follow("b", Position(3, "e2"))
    assert subscription.blocked is None
    assert subscription.request() == {"companyId": "b", "after": 3, "epoch": "e2"}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", True),
        ("{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", True),
        (7, "7", True),
        ("7", "8", False),
        (None, "a", False),
    ],
)
def test_company_ids_are_compared_without_regard_to_spelling(
    one: object, other: object, equal: bool
) -> None:
    assert same_company(one, other) is equal
