"""What becomes of a process's runs: each is ended, sealed and waited for, at the latest when the script ends.

The wait at the end lasts while the store answers, and not long when it does not. A forked child ends none of its
parent's runs.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from overt import clock
from overt.delivery.dispatch import dispatch, sync_command
from overt.process import uncaught_error
from overt.records import ROWS_TAG
from overt.run import Run, status_of, unsealed_runs
from overt.say import say
from overt.settings import configured, is_quiet, resolve_settings
from overt.stores.protocols import Store

_has_exit_handler = False


def remember(run: Run) -> None:
    """Be responsible for ending and sealing ``run``, at the latest when the script ends."""
    global _has_exit_handler
    if not _has_exit_handler:
        _has_exit_handler = True
        atexit.register(_at_exit)
    unsealed_runs.add(run)
    run.call_at_end(_ended)


def wait(timeout_s: float | None = None) -> bool:
    """Wait until everything that this process recorded has arrived in its store; ended runs are sealed.

    Parameters
    ----------
    timeout_s : float, optional
        Longest wait. Without it, as long as the store answers.

    Returns
    -------
    bool
        Whether everything has arrived.
    """
    _seal_all()
    patience_s = resolve_settings(configured()).drain_timeout_s
    return dispatch().wait(None, timeout_s=timeout_s, patience_s=max(patience_s, timeout_s or 0))


def wait_for_store(store: str | Store) -> bool:
    """Wait, as long as the store answers, until what this process recorded for it has arrived.

    Parameters
    ----------
    store : str or Store
        A resolved URI: runs that go to another one are not waited for. Of a store object nobody can say which place
        it stands for, so it is every run's.

    Returns
    -------
    bool
        Whether all of it has arrived.
    """
    _seal_all()
    keys = dispatch().deliveries.keys_of(store) if isinstance(store, str) else None
    return dispatch().wait(keys, timeout_s=None, patience_s=resolve_settings(configured()).drain_timeout_s)


def _seal_all() -> None:
    """Seal every run that has ended, and end those that nobody else ends."""
    for run in list(unsealed_runs):
        if run.ends_when_waited_for:  # by whoever handles what has ended it, if an error has
            run.finish(status_of(sys.exception()))
        run.seal()


def _ended(run: Run) -> None:
    if lost := getattr(run._writer, "lost", 0):
        dispatch().warn(f"run {run.name} ended with {lost} record(s) that could not be written; they are lost")
    spec = run.spec
    is_announced = spec.parent_key is None and spec.joined_run_id is None and ROWS_TAG not in spec.tags
    if is_announced and not is_quiet():
        took_s = (clock.now_ms() - spec.started_ms) / 1000
        scores = sorted((item for item in run.metrics.items() if not item[0].endswith("_seconds")), key=_shown_late)
        shown = ", ".join([f"{took_s:.1f} s", *(f"{name} {value:.4g}" for name, value in scores[:3])])
        say(f"run {run.name} {run.status} ({shown})")


def _shown_late(score: tuple[str, float]) -> int:
    """Scores of the training set say least of a model, and a fold's less than the mean of all."""
    name, _ = score
    if name.startswith("training_"):
        return 2
    return 1 if name.startswith("cv_") and not name.startswith("cv_mean_") else 0


def _at_exit() -> None:
    """End what is open, seal what has ended, and wait for the store while it answers."""
    error = uncaught_error()
    status = status_of(error)
    for run in list(unsealed_runs):
        try:
            run.finish(status, error=error if status == "FAILED" else None)
            run.seal()
        except Exception as trouble:  # noqa: BLE001 - under on_error="raise": the other runs are to end all the same
            say(f"run {run.name} could not be ended in full ({trouble})")
    settings = resolve_settings(configured())
    with suppress(KeyboardInterrupt):  # who ends the wait is told what is left, as after it
        _wait_at_exit(settings.drain_timeout_s)
    undelivered = dispatch().deliveries.undelivered()
    if undelivered and settings.drain_timeout_s > 0:
        base = undelivered[0].parent.parent
        say(f"{len(undelivered)} run(s) not delivered yet, kept in {base}. To deliver: {sync_command(base)}")


def _wait_at_exit(drain_timeout_s: float) -> None:
    first_s = min(2.0, drain_timeout_s)
    if first_s > 0 and not dispatch().wait(None, timeout_s=first_s, patience_s=first_s):
        if not is_quiet() and dispatch().deliveries.undelivered():
            say("delivering what is left …")
        dispatch().wait(None, timeout_s=None, patience_s=drain_timeout_s - first_s)


def _in_forked_child() -> None:
    """A forked child ends none of its parent's runs and waits for none of its deliveries."""
    global _has_exit_handler
    if _has_exit_handler:
        atexit.unregister(_at_exit)
        _has_exit_handler = False


os.register_at_fork(after_in_child=_in_forked_child)
