"""How long a waiter waits: a store that does not answer is one thing, a courier that has no core yet is another."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from overt.delivery import supervisor
from overt.delivery.dispatch import Dispatch
from overt.delivery.messages import Alive, Delivered, Trouble, Watch


@pytest.fixture
def dispatch(tmp_path: Path) -> Dispatch:
    made = Dispatch()
    (tmp_path / "run").mkdir()
    made.deliveries.add(Watch(str(tmp_path / "run"), "store"))
    return made


def waited_s(dispatch: Dispatch, *, patience_s: float, after_s: float, message: Alive | Trouble | Delivered) -> float:
    """How long a wait lasts during which a courier says one thing."""
    later = threading.Timer(after_s, dispatch.deliveries.hear, [message])
    later.start()
    began = time.monotonic()
    dispatch.wait(None, timeout_s=None, patience_s=patience_s)
    later.cancel()
    return time.monotonic() - began


def test_the_silence_of_a_courier_that_has_not_spoken_yet_is_no_stores(dispatch: Dispatch) -> None:
    dispatch.deliveries.expect_start()
    assert 0.6 <= waited_s(dispatch, patience_s=0.2, after_s=0.6, message=Alive()) < 1.0


def test_a_usual_start_is_within_the_patience(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "USUAL_START_S", 0.3)
    dispatch.deliveries.expect_start()
    assert 0.6 <= waited_s(dispatch, patience_s=0.6, after_s=0.3, message=Alive()) < 0.85


def test_a_slow_start_leaves_time_for_the_store(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "USUAL_START_S", 0.1)
    dispatch.deliveries.expect_start()
    assert 0.9 <= waited_s(dispatch, patience_s=0.4, after_s=0.6, message=Alive()) < 1.2


def test_a_courier_at_work_is_news(dispatch: Dispatch) -> None:
    assert 0.7 <= waited_s(dispatch, patience_s=0.5, after_s=0.3, message=Alive()) < 1.1


def test_a_courier_that_has_spoken_and_is_silent_is_given_up_in_time(dispatch: Dispatch) -> None:
    dispatch.deliveries.expect_start()
    dispatch.deliveries.hear(Trouble("store", "away"))
    assert 0.3 <= waited_s(dispatch, patience_s=0.3, after_s=60, message=Alive()) < 0.6


def test_whoever_waits_while_the_courier_is_given_up_is_delivered_to_inline(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried: list[float] = []
    monkeypatch.setattr(dispatch._inline, "hurry", lambda: hurried.append(time.monotonic()))
    given_up = threading.Timer(0.2, dispatch._give_up_courier, ["it died"])
    given_up.start()
    dispatch.wait(None, timeout_s=0.5, patience_s=0.5)
    given_up.join()
    assert len(hurried) == 2  # as the wait began, when there was a courier, and when there was none any more
    dispatch._give_up_courier("again, and nobody waits")
    assert len(hurried) == 2
