"""After one failure a store is left alone for a while, longer each time, so trouble costs neither time nor noise."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Says whether a store may be tried now.

    Notes
    -----
    Pauses double from 0.5 s to 30 s and are shortened at random by up to a fifth, so that many couriers do not come
    back at the same moment to a server that has just restarted.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failures = 0
        self._closed_until = 0.0

    @property
    def allows(self) -> bool:
        """Whether the pause is over."""
        return self._monotonic() >= self._closed_until

    @property
    def is_open(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self) -> None:
        """Begin a pause, twice as long as the one before."""
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures)
        self._failures += 1
        self._closed_until = self._monotonic() + pause * random.uniform(0.8, 1.0)

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures = 0
        self._closed_until = 0.0

    def hurry(self) -> None:
        """Allow the next attempt at once: somebody waits."""
        self._closed_until = 0.0
