"""Trainings timed from the starts of their epochs, bare and tracked in turns, so that a drift of the machine cancels.

The epochs between the second start and the last are the loop: as many ends of epochs lie in it as epochs. What the
rest takes over so many epochs is the start (everything before the first batch, too) and the end.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """Seconds of one training: its start, one epoch of its loop, its end."""

    start: float
    epoch: float
    end: float


def timed(train: Callable[[list[float]], object]) -> Training:
    """Time one training, which appends the moment at which each of its epochs starts to what it is given."""
    starts: list[float] = []
    began = time.perf_counter()
    train(starts)
    ended = time.perf_counter()
    epoch = (starts[-1] - starts[1]) / (len(starts) - 2)
    return Training(starts[1] - began - epoch, epoch, ended - starts[-1] - epoch)


def in_turns(
    bare: Callable[[list[float]], object],
    tracked: Callable[[list[float]], object],
    *,
    blocks: int,
    before_bare: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Time ``blocks`` pairs of trainings; medians. What a bare one must not share the machine with is waited for."""
    pairs = []
    for block in range(blocks):  # bare, tracked; tracked, bare; …
        times = {}
        for which in (bare, tracked) if block % 2 == 0 else (tracked, bare):
            if which is bare:
                before_bare()
            times[which] = timed(which)
        pairs.append((times[bare], times[tracked]))
    return {
        "ratio": statistics.median(theirs.epoch / alone.epoch for alone, theirs in pairs),
        "epoch_s": statistics.median(alone.epoch for alone, _ in pairs),
        "start_s": statistics.median(theirs.start - alone.start for alone, theirs in pairs),
        "end_s": statistics.median(theirs.end - alone.end for alone, theirs in pairs),
    }
