from __future__ import annotations

from overt.delivery.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pause_of(breaker: Breaker, clock: Clock) -> float:
    began = clock.now
    while not breaker.allows:
        clock.now += 0.01
    return clock.now - began


def test_pauses_double_up_to_a_limit_and_are_shortened_by_at_most_a_fifth() -> None:
    clock = Clock()
    breaker = Breaker(monotonic=clock)
    assert breaker.allows
    for failure in range(12):
        breaker.failed()
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failure)
        assert 0.8 * longest - 0.02 <= pause_of(breaker, clock) <= longest + 0.02


def test_success_forgets_the_failures() -> None:
    clock = Clock()
    breaker = Breaker(monotonic=clock)
    for _ in range(5):
        breaker.failed()
    assert breaker.is_open
    breaker.succeeded()
    assert breaker.allows
    assert not breaker.is_open
    breaker.failed()
    assert pause_of(breaker, clock) <= FIRST_PAUSE_S + 0.02


def test_hurry_allows_one_attempt_and_remembers_the_failures() -> None:
    clock = Clock()
    breaker = Breaker(monotonic=clock)
    for _ in range(4):
        breaker.failed()
    breaker.hurry()
    assert breaker.allows
    breaker.failed()
    assert pause_of(breaker, clock) > FIRST_PAUSE_S * 2**4 * 0.79


def test_many_couriers_do_not_come_back_at_the_same_moment() -> None:
    pauses = set()
    for _ in range(20):
        clock = Clock()
        breaker = Breaker(monotonic=clock)
        for _ in range(6):
            breaker.failed()
        pauses.add(round(pause_of(breaker, clock), 2))
    assert len(pauses) > 5
