"""One metric's points: each gets a step and a time of its own, so that no two of a process are the same to a store.

A store's key of a point is its name, step, time and value (MLflow merges points that are equal in all four), so a step
that comes again is given a later millisecond.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from overt import clock
from overt.journal.codec import MOST_WHOLE, encode_metric, encode_point, metric_head


class Series:
    """The points of the metric ``name``; its writer's lock is held around :meth:`line` and :meth:`stamp`.

    Attributes
    ----------
    value : float
        The last one; while that is still on its device, the tensor that holds it.
    last_ms : int
        When it was recorded.
    top_step : int
        The highest step so far; -1 before the first.
    """

    __slots__ = ("_head", "_name", "last_ms", "top_step", "value")

    def __init__(self, name: str, *, top_step: int = -1) -> None:
        self._name = name
        self._head = metric_head(name)
        self.top_step = top_step
        self.last_ms = 0
        self.value: Any = float("nan")

    def line(self, value: float, step: int | None, model: str | None, dataset: str | None) -> bytes:
        """The next point, stamped and encoded. Budget: 1.5 us."""
        step, time_ms = self.stamp(step)
        self.value = value
        return self.encode(value, step, time_ms, model, dataset)

    def stamp(self, step: int | None) -> tuple[int, int]:
        """Step and time of the next point; without a step it takes the one after the highest."""
        now = clock.now_ms()
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
        return step, now

    def encode(self, value: float, step: int, time_ms: int, model: str | None, dataset: str | None) -> bytes:
        """One stamped point as a line."""
        if model is None and dataset is None and isfinite(value):
            return encode_point(self._head, value, step, time_ms)
        return encode_metric(self._name, value, step, time_ms, model, dataset)
