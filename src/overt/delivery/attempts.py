"""What a run's attempts mean for its store: the first value of a step stands, the last attempt says how the run ended.

A training that goes on from a checkpoint repeats what was recorded between the checkpoint and its end. Which attempt a
stored point is from is told by its time: an attempt's points are those from its start up to the start of the next. A
run that was never resumed passes through untouched, and costs the store no question.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

from overt.records import Attempt, Metric, Record
from overt.stores.protocols import ResumableStore, Store


class Attempts:
    """The attempts at one run, as its store knows them.

    Parameters
    ----------
    store, run_id
        Where the run is. In a store that cannot resume runs the points of all attempts arrive.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store if isinstance(store, ResumableStore) else None
        self._run_id = run_id
        self._starts: list[int] = sorted(self._store.attempt_starts(run_id)) if self._store else []
        self._owners: dict[str, dict[int, int]] = {}  # of each series: which attempt's point stands at which step

    def begin(self, attempt: Attempt) -> None:
        """Have the store's run open again; repeating it changes nothing."""
        if self._store is not None and attempt.number > 1:
            self._store.begin_attempt(self._run_id, attempt)
            if attempt.started_ms not in self._starts:
                insort(self._starts, attempt.started_ms)
            self._owners.clear()

    def is_superseded(self, attempt: Attempt) -> bool:
        """Whether a later attempt is known, so that this one no longer says how the run ended."""
        return any(start > attempt.started_ms for start in self._starts)

    def iter_standing(self, records: Iterable[Record], attempt: Attempt) -> Iterator[Record]:
        """``records`` without the points at steps that another attempt's point has taken."""
        for record in records:
            if not self._starts or not isinstance(record, Metric) or self._takes(record, attempt):
                yield record

    def _takes(self, point: Metric, attempt: Attempt) -> bool:
        owners = self._owners.get(point.name)
        if owners is None:
            owners = self._owners[point.name] = self._stored_owners(point.name)
        return owners.setdefault(point.step, attempt.started_ms) == attempt.started_ms

    def _stored_owners(self, name: str) -> dict[int, int]:
        assert self._store is not None
        owners: dict[int, int] = {}
        for point in self._store.iter_points(self._run_id, name):
            owners.setdefault(point.step, self._start_at(point.time_ms))
        return owners

    def _start_at(self, time_ms: int) -> int:
        """Start of the attempt that was going on at this time."""
        later = bisect_right(self._starts, time_ms)
        return self._starts[later - 1] if later else 0
