"""Fits of clones are rows of one group run: other meta-estimators fit dozens, and none is a training of its own.

A clone carries the lineage of its origin through further clones, copies and pickles. The group run is opened by the
first fit of any of them, or when one is sent to a worker, which adds its rows to the run that is there and starts
neither a run nor a courier of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from multiprocessing import current_process
from types import FrameType
from typing import Any

from overt.capture.params import estimator_params, final_estimator
from overt.errors import ConfigurationError
from overt.guard import recorded_part
from overt.integrations.sklearn.fitted import Evaluations, are_same_settings
from overt.opening import is_diverted
from overt.records import ROWS_TAG
from overt.run import Run
from overt.settings import configured, journal_base, working_directory
from overt.stores.uri import resolve
from overt.tracker import HookRun, Tracker, open_for_hook, run_around

ROWS = "fits.csv"

_SENDERS = ("multiprocessing.", "joblib.externals.loky.", "loky.", "joblib.pool", "distributed.", "ray.")

_fitting: ContextVar[Run | None] = ContextVar("overt_fitting_run", default=None)
_lock = threading.RLock()


class Lineage:
    """What all clones of one :class:`~overt.TrackedEstimator` share that are fitted in one place.

    Parameters
    ----------
    name : str
        Class of what is fitted.
    settings : mapping
        Keywords of :func:`overt.tracker.open_for_hook` that the origin has.
    around : Run, optional
        The run that they are fitted in.
    is_nested : bool
        Whether ``around`` is that of a tracked fit, which has a content of its own: the group is nested in it.
    run : Run, optional
        The group's, where another process has opened it.
    sent : Tracker, optional
        What that process has configured.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        around: Run | None = None,
        is_nested: bool = False,
        run: Run | None = None,
        sent: Tracker | None = None,
    ) -> None:
        self.name = name
        self.sent = sent
        self._settings = dict(settings)
        self._around = around
        self._is_nested = is_nested
        self._run = run
        self._siblings = [self]
        self.evaluations = Evaluations()

    def has(self, name: str, settings: Mapping[str, Any], around: Run | None) -> bool:
        """Whether clones of this name that are made with these settings and in this run belong to it.

        A thread of a pool does not know what is around it: there, what was said before stands. So it does in a worker
        that has been sent the run of the group, unless it has started one itself.
        """
        if self._is_inherited() and (around is None or around.is_inherited):
            return True
        is_here = around is self._around or (around is None and not _is_main_thread())
        return is_here and name == self.name and are_same_settings(settings, self._settings)

    def sibling(self, name: str, settings: Mapping[str, Any], around: Run | None, *, is_nested: bool) -> Lineage:
        """The lineage of the same origin that has these clones: an earlier one, which others may be using, or new."""
        for known in (self, *self._siblings):
            if known.has(name, settings, around):
                return known
        new = Lineage(name, settings, around=around, is_nested=is_nested, sent=self.sent)
        self._siblings[:] = [known for known in self._siblings if known._may_go_on()] + [new]
        new._siblings = self._siblings
        return new

    def run(self, *, may_stay_empty: bool = False) -> Run:
        """The group run: a new one if there is none or it has ended. One that may stay empty arrives with a row."""
        with _lock:
            if self._run is None or not _is_open(self._run):
                self._run, self.evaluations = self._open(may_stay_empty=may_stay_empty), Evaluations()
            return self._run

    def open_if_sent(self, *, is_clone: bool) -> None:
        """Open the run if one of it is being sent to a worker: the courier of this process delivers it.

        A clone is sent to be fitted; the origin itself may be fitted there in a run of its own, and never be cloned.
        """
        if _is_being_sent() and not is_diverted():
            with suppress(ConfigurationError):  # the fit says it
                self.run(may_stay_empty=not is_clone)

    @contextmanager
    def row(self, estimator: Any, X: Any, method: str) -> Iterator[Run]:
        """Add a row about the fit that the block makes, however it ends."""
        run = self.run()
        began = time.perf_counter()
        error: BaseException | None = None
        try:
            yield run
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = time.perf_counter() - began
            with recorded_part(run, "row of a clone's fit"):
                run.log_row(_cells(estimator, X, method, seconds, error), ROWS)
            if run.is_inherited:  # a worker: it may idle for minutes from here on, or be killed
                run.let_go()
            elif run.ends_when_waited_for and isinstance(error, KeyboardInterrupt):
                run.finish("KILLED")

    def _open(self, *, may_stay_empty: bool) -> Run:
        told = {ROWS_TAG: f"each row of {ROWS} is the fit of one clone"}
        hook = self._open_hook(told if may_stay_empty else {})
        hook.run.set_tags(told)
        if hook.owned:
            hook.run.log_params({"model_type": self.name, "model_name": self.name})
            hook.run.ends_when_waited_for = True
            for outer in (self._around, self._settings["parent"]):
                if isinstance(outer, Run):
                    outer.call_at_end(lambda ended: hook.run.finish())
        return hook.run

    def _open_hook(self, tags: Mapping[str, str]) -> HookRun:
        settings, name = self._settings | {"tracker": self._settings["tracker"] or self.sent}, f"{self.name}-fits"
        if isinstance(settings["tags"], Mapping | None):  # else it is refused below
            settings = settings | {"tags": {**(settings["tags"] or {}), **tags}}
        if settings["run"] is not None and not _is_open(settings["run"]):  # its tables are closed
            settings = settings | {"run": None, "parent": settings["run"]}
        if self._around is None:
            return open_for_hook(name, **settings)
        if self._is_nested and settings["run"] is None and settings["parent"] is None:
            return open_for_hook(name, **settings | {"parent": self._around})
        with self._around.as_current():
            return open_for_hook(name, **settings)

    def _is_inherited(self) -> bool:
        return self._run is not None and self._run.is_inherited and not self._run.is_taken_over

    def _may_go_on(self) -> bool:
        return all(run is None or _is_open(run) for run in (self._around, self._run))

    def __copy__(self) -> Lineage:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Lineage:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """With its run, and to a worker with what is configured here: there nobody has called ``configure``."""
        run = self._run if self._run is not None and _is_open(self._run) else None
        sent = _what_is_configured() if _is_being_sent() else None
        return _arrived, (self.name, self._settings, run, sent)


def _is_being_sent() -> bool:
    """Whether somebody pickles for another process, and not to keep it: then the stack has the sender in it.

    From a worker only what is fitted is sent back. A sender that is not known here costs no more than a group run of
    each worker's own.
    """
    if current_process().name != "MainProcess":
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "copy":  # in a thread of a pool, whose code is below
            return False
        if name.startswith(_SENDERS):
            return True
        frame = frame.f_back
    return False


def _what_is_configured() -> Tracker:
    """A tracker that records elsewhere as this process does; a store that is an object stays here."""
    here = configured()
    store, directory = here.store, here.directory
    sent = Tracker()
    sent.settings = replace(
        here,
        store=resolve(store, directory=working_directory()) if isinstance(store, str) else None,
        directory=None if directory is None else journal_base(directory),
        tags=dict(here.tags),
    )
    return sent


def _arrived(name: str, settings: Mapping[str, Any], run: Run | None, sent: Tracker | None = None) -> Lineage:
    return Lineage(name, settings, run=run, sent=sent)


def lineage_of(known: Lineage | None, estimator: Any, settings: Mapping[str, Any], *, is_clone: bool) -> Lineage:
    """``known``, or another of the same origin where the estimator's class, the settings or the run around are others.

    A clone stays with its siblings whatever estimator it is given: that is how a search tries several.
    """
    name = known.name if known is not None and is_clone else type(final_estimator(estimator)).__name__
    fitting = _fitting.get()
    around = fitting if fitting is not None else run_around(settings["tracker"] or Tracker())
    if known is None:
        return Lineage(name, settings, around=around, is_nested=fitting is not None)
    return known.sibling(name, settings, around, is_nested=fitting is not None)


@contextmanager
def founding() -> Iterator[None]:
    """Be the only thread that asks for a lineage: two that clone an estimator at once are to be given one."""
    with _lock:
        yield


@contextmanager
def fitting_in(run: Run) -> Iterator[None]:
    """Let clones that are made in the block know the run of the tracked fit that they are parts of."""
    token = _fitting.set(run)
    try:
        yield
    finally:
        _fitting.reset(token)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_open(run: Run) -> bool:
    return not run.is_taken_over and (run.is_inherited or run.status == "RUNNING")


def _cells(estimator: Any, X: Any, method: str, seconds: float, error: BaseException | None) -> dict[str, object]:
    n_samples, n_features = _size(X)
    return {
        "estimator": type(final_estimator(estimator)).__name__,
        "method": method,
        "fit_seconds": seconds,
        "status": "FINISHED" if error is None else "FAILED",
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "n_samples": n_samples,
        "n_features": n_features,
        "pid": os.getpid(),
        **{f"param_{name}": text for name, text in _own_params(estimator).items()},
    }


def _size(X: Any) -> tuple[int | None, int | None]:
    """Samples and features, as far as the data tells them: a generator, which vectorizers take, tells neither."""
    shape: tuple[int, ...] = getattr(X, "shape", None) or ((len(X),) if isinstance(X, Sized) else ())
    return shape[0] if shape else None, shape[1] if len(shape) > 1 else None


def _own_params(estimator: Any) -> dict[str, str]:
    params = estimator_params(estimator, name=type(estimator).__name__)
    return {name: text for name, text in params.items() if name not in ("model_type", "model_name", "model_class")}


def _in_forked_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_in_forked_child)
