"""One metric's points: each gets a step and a time of its own, so that no two of a process are the same to a store.

A store's key of a point is its name, step, time and value (MLflow merges points that are equal in all four), so a step
that comes again is given a later millisecond.
"""

from __future__ import annotations

from typing import Any

from overt import clock
from overt.journal.codec import MOST_WHOLE


class Series:
    """The points of the metric ``name``; its writer's lock is held around :meth:`stamp`.

    Attributes
    ----------
    name : str
        The metric.
    value : float
        The last one; while that is still on its device, the tensor that holds it.
    last_ms : int
        When it was recorded.
    top_step : int
        The highest step so far; -1 before the first.
    """

    __slots__ = ("last_ms", "name", "top_step", "value")

    def __init__(self, name: str, *, top_step: int = -1) -> None:
        self.name = name
        self.top_step = top_step
        self.last_ms = 0
        self.value: Any = float("nan")

    def stamp(self, value: Any, step: int | None) -> tuple[int, int]:
        """Take the next point; returns its step, the one after the highest where none is given, and its time in ms."""
        now = clock.time_ns() // clock.NS_PER_MS  # now_ms, less a call: 0.5 us between the steps of a network
        top = self.top_step
        if step is None:
            step = top + 1 if top < MOST_WHOLE else top
        if step > top:
            self.top_step = step
            if now < self.last_ms:
                now = self.last_ms
        elif now <= self.last_ms:
            now = self.last_ms + 1
        self.last_ms = now
        self.value = value
        return step, now
