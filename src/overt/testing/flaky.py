"""A store that fails on purpose, around any other: what a delivery survives here, it survives in the field.

Behaviour is added by wrapping, with the same verbs. The plan is a value: one fault per call, in the order of the calls,
so a failure that a test found can be written down and repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from overt.errors import StoreRejected, StoreUnavailable
from overt.records import Attempt, Batchable, EndStatus, Metric, Model, RunSpec
from overt.stores.protocols import JoinableStore, ModelStore, ResumableStore, Store

T = TypeVar("T")

Kind = Literal["none", "unavailable", "rejected", "after_effect", "hang"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What one call meets.

    Attributes
    ----------
    kind : {"none", "unavailable", "rejected", "after_effect", "hang"}
        ``none``: the call goes through. ``unavailable``, ``rejected``: it raises and does nothing. ``after_effect``: it
        does its work and then raises ``StoreUnavailable``, as when an answer is lost on its way. ``hang``: it waits for
        :meth:`FlakyStore.release` and then goes through.
    """

    kind: Kind = "none"


class FlakyStore:
    """Meets the faults of a plan, one per call, and is the wrapped store again when the plan is used up.

    Parameters
    ----------
    store : Store
        The store that does the work.
    plan : iterable of Fault or of its kinds
        May be endless.
    longest_hang_s : float
        A hanging call raises ``StoreUnavailable`` after this time, as a client with a time limit does.

    Attributes
    ----------
    calls : list of str
        Verbs in the order in which they were called, the failed ones too.
    hanging : threading.Event
        Set while a call hangs.

    Examples
    --------
    >>> from overt.stores.memory import MemoryStore
    >>> store = FlakyStore(MemoryStore(), ["unavailable"])
    >>> store.finish("run", "FINISHED", 0)
    Traceback (most recent call last):
    overt.errors.StoreUnavailable: planned: finish is unavailable
    """

    def __init__(self, store: Store, plan: Iterable[Fault | Kind] = (), *, longest_hang_s: float = 30.0) -> None:
        self.store = store
        self.calls: list[str] = []
        self.hanging = threading.Event()
        self._plan: Iterator[Fault | Kind] = iter(plan)
        self._longest_hang_s = longest_hang_s
        self._released = threading.Event()

    def create_run(self, spec: RunSpec) -> str:
        """Create the run, or fail as planned."""
        return self._meet("create_run", lambda: self.store.create_run(spec), spec)

    def log_batch(self, run_id: str, records: Sequence[Batchable]) -> None:
        """Add records, or fail as planned."""
        culprit = records[0] if len(records) == 1 else None
        self._meet("log_batch", lambda: self.store.log_batch(run_id, records), culprit)

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Add files, or fail as planned."""
        self._meet("log_artifacts", lambda: self.store.log_artifacts(run_id, folder))

    def log_model(self, run_id: str, model: Model, folder: Path) -> str:
        """Add a model, or fail as planned; where the wrapped store knows none, its files arrive as artifacts."""
        if not isinstance(self.store, ModelStore):
            raise StoreRejected("the wrapped store knows no models", record=model)
        store = self.store
        return self._meet("log_model", lambda: store.log_model(run_id, model, folder), model)

    def is_running(self, run_id: str) -> bool:
        """Whether the run has not ended, or fail as planned."""
        if not isinstance(self.store, JoinableStore):
            return False
        store = self.store
        return self._meet("is_running", lambda: store.is_running(run_id))

    def begin_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Have the run running again, or fail as planned; nothing where the wrapped store cannot."""
        if isinstance(self.store, ResumableStore):
            store = self.store
            self._meet("begin_attempt", lambda: store.begin_attempt(run_id, attempt))

    def attempt_starts(self, run_id: str) -> Sequence[int]:
        """When attempts began, or fail as planned; none where the wrapped store cannot resume."""
        if not isinstance(self.store, ResumableStore):
            return []
        store = self.store
        return self._meet("attempt_starts", lambda: store.attempt_starts(run_id))

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """The points of a series, or fail as planned; none where the wrapped store cannot resume."""
        if not isinstance(self.store, ResumableStore):
            return iter(())
        store = self.store
        return self._meet("iter_points", lambda: store.iter_points(run_id, name))

    def finish(self, run_id: str, status: EndStatus, ended_ms: int) -> None:
        """Set the ending, or fail as planned."""
        self._meet("finish", lambda: self.store.finish(run_id, status, ended_ms))

    def close(self) -> None:
        """Close the wrapped store: never fails."""
        self.store.close()

    def release(self) -> None:
        """Let the hanging call, and all that would hang, go through."""
        self._released.set()

    def _meet(self, verb: str, work: Callable[[], T], culprit: object = None) -> T:
        self.calls.append(verb)
        fault = next(self._plan, "none")
        kind = fault.kind if isinstance(fault, Fault) else fault
        if kind == "unavailable":
            raise StoreUnavailable(f"planned: {verb} is unavailable")
        if kind == "rejected":
            raise StoreRejected(f"planned: {verb} is rejected", record=culprit)
        if kind == "hang":
            self.hanging.set()
            is_released = self._released.wait(self._longest_hang_s)
            self.hanging.clear()
            if not is_released:
                raise StoreUnavailable(f"planned: {verb} did not answer for {self._longest_hang_s} s")
        result = work()
        if kind == "after_effect":
            raise StoreUnavailable(f"planned: the answer of {verb} was lost")
        return result


def _conforms(store: FlakyStore) -> tuple[Store, ModelStore, JoinableStore, ResumableStore]:
    return store, store, store, store
