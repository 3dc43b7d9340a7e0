"""The delays between two attempts to connect."""

from __future__ import annotations

from notifier.client.pace import MAX_DELAY_SECONDS, Backoff, Pace


def test_the_delays_double_up_to_a_bound() -> None:
    backoff = Backoff(Pace(min_delay=1, max_delay=30, jitter=lambda: 0.5))
    assert [backoff.next_delay() for _ in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]


def test_after_a_success_they_begin_again() -> None:
    backoff = Backoff(Pace(jitter=lambda: 0.5))
    backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() == 0.5


def test_the_servers_wait_comes_first_and_all_of_it_is_bounded() -> None:
    backoff = Backoff(Pace(jitter=lambda: 0.5))
    assert backoff.next_delay(20) == 20.5
    assert backoff.next_delay(1e9) == MAX_DELAY_SECONDS


def test_many_failures_do_not_overflow() -> None:
    assert Pace(jitter=lambda: 1.0).delay(10_000) == 30
