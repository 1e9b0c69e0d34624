"""Configuration in, runs out: which run a hook records into, its parent and its ending are decided here, for all.

A :class:`Tracker` is configuration and nothing else, so it may be copied, pickled and cloned. What lives (open runs,
the courier, the exit handler) belongs to the process, starts with its first run, and is never there before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from overt import clock
from overt.capture.environment import host, user
from overt.capture.params import describe
from overt.capture.secrets import redact, redact_value
from overt.delivery.dispatch import dispatch
from overt.errors import ConfigurationError
from overt.journal.codec import is_key
from overt.opening import open_run
from overt.process import source_name
from overt.records import NOTES_TAG, RunSpec, RunSummary
from overt.resuming import continue_run, resume_run
from overt.run import Run, current_run, status_of
from overt.settings import Settings, configured, resolve_settings, working_directory
from overt.stores.uri import public_name, resolve
from overt.validation import check_details, without_surrogates


class Tracker:
    """How to record: settings that hold for the runs started from it, before those of :func:`configure`.

    Parameters
    ----------
    **settings
        As :func:`configure` takes them.
    """

    def __init__(self, **settings: Any) -> None:
        try:
            self.settings = Settings(**settings)
        except TypeError as error:
            known = ", ".join(Settings.__dataclass_fields__)
            raise ConfigurationError(f"Tracker() takes {known} ({error}).") from error

    def __repr__(self) -> str:
        values = {name: getattr(self.settings, name) for name in Settings.__dataclass_fields__}
        return f"Tracker({', '.join(f'{name}={value!r}' for name, value in values.items() if value not in (None, {}))})"

    def __sklearn_clone__(self) -> Tracker:
        return self

    def start_run(
        self,
        name: str | None = None,
        *,
        experiment: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        notes: str | None = None,
        parent: Run | str | None = None,
        resume: Run | RunSummary | str | None = None,
    ) -> Run:
        """Start a run; see :func:`start_run`."""
        details = {"experiment": experiment, "tags": tags, "params": params, "notes": notes}
        check_details(run_name=name, name_argument="name", **details)
        if resume is not None:
            if any(given is not None for given in (name, experiment, parent)):
                raise ConfigurationError("`resume` is of a run with a name, experiment and parent: give none of them.")
            run = resume_run(resume, self.settings)
            _add_details(run, tags, params, notes)
            return run
        if parent is None:
            parent = current_run()
        if parent is None and (guest := _guest_of_mlflow(self)) is not None:
            if guest.may_be_started and name is None and experiment is None:
                guest.may_be_started = False
                _add_details(guest.run, tags, params, notes)
                return guest.run
            parent = guest.run
        return _start(self, name, parent=parent, **details)  # type: ignore[arg-type]


def start_run(
    name: str | None = None,
    *,
    experiment: str | None = None,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    parent: Run | str | None = None,
    resume: Run | RunSummary | str | None = None,
    tracker: Tracker | None = None,
) -> Run:
    """Start a run, best in a ``with`` block, which ends it truthfully whatever happens.

    Parameters
    ----------
    name : str, optional
        Of the run; made up if absent.
    experiment : str, optional
        Where it goes: by default the parent's, else as configured.
    tags, params : mapping, optional
        Recorded at the start; nested params are joined with dots, as by :meth:`Run.log_params`.
    notes : str, optional
        Markdown that MLflow's UI shows on the run's page.
    parent : Run or str, optional
        Run, or its key, that this one is nested in: by default the current run. It goes to that run's store, unless
        ``tracker`` names another.
    resume : Run, RunSummary or str, optional
        Go on with a run that has ended instead of starting one: the run, or its id, key or name in the store. It is
        running again, series go on behind their last step, and it ends anew.
    tracker : Tracker, optional
        Settings to use.

    Returns
    -------
    Run
        Started. Inside the caller's own ``mlflow.start_run()`` the first one without a name of its own is that very
        run, which the caller ends; others are nested in it. It lives until its ``with`` block or ``finish()``
        ends it, at the latest the script.

    Raises
    ------
    ConfigurationError
        When the settings cannot work.
    RunNotFound, StoreUnavailable
        When the run to go on with is not in the store, or the store does not answer.

    Examples
    --------
    >>> import overt
    >>> with overt.testing.captured_runs() as runs:
    ...     with overt.start_run("manual", experiment="docs") as run:
    ...         run.log_param("lr", 0.01)
    ...         run.log_metric("loss", 0.5)
    >>> runs[0].metrics
    {'loss': 0.5}
    """
    if not isinstance(tracker, Tracker | None):
        raise ConfigurationError(f"`tracker` must be a Tracker (got {type(tracker).__name__}).")
    return (tracker or Tracker()).start_run(
        name, experiment=experiment, tags=tags, params=params, notes=notes, parent=parent, resume=resume
    )


@dataclass(slots=True)
class HookRun:
    """The run that a hook records into, and whether the hook is the one to end it."""

    run: Run
    owned: bool

    @contextmanager
    def ending(self) -> Iterator[Run]:
        """End an owned run as the block ends, if the block fails; on success the hook says when."""
        try:
            yield self.run
        except BaseException as error:
            if self.owned:
                status = status_of(error)
                self.run.finish(status, error=error if status == "FAILED" else None)
            raise


def open_for_hook(
    default_name: str,
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    run: Run | None = None,
    parent: Run | str | None = None,
    tracker: Tracker | None = None,
    system_metrics: bool | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    is_light: bool = False,
) -> HookRun:
    """Decide which run a hook records into.

    In this order: the run it was given; the run of the checkpoint that its training goes on from; a child of the parent
    it was given; the current run, which the first hook joins and later ones, or one with a name of its own, get as
    their parent; the caller's active MLflow run, likewise; a run of its own. A light run is one of many of one
    training: what surrounds it is recorded with its parent only.
    """
    details = {"experiment": experiment, "tags": tags, "params": params, "notes": notes}
    check_hook(run_name=run_name, run=run, parent=parent, tracker=tracker, **details)
    tracker = tracker or Tracker()
    if run is None and checkpoint is not None:
        run = continue_run(checkpoint, Settings(system_metrics=system_metrics), tracker.settings)
        run.hook_joined = True
        _add_details(run, tags, params, notes)
        return HookRun(run, owned=True)
    if run is None and parent is None and (around := run_around(tracker)) is not None:
        if around.hook_joined or run_name is not None or around.status != "RUNNING":
            parent = around
        else:
            run = around
    if run is not None:
        run.hook_joined = True
        _add_details(run, tags, params, notes)
        return HookRun(run, owned=False)
    started = _start(
        tracker,
        run_name,
        parent=parent,
        default_name=default_name,
        system_metrics=system_metrics,
        is_light=is_light,
        **details,  # type: ignore[arg-type]
    )
    return HookRun(started, owned=True)


def check_hook(*, run: object, parent: Run | str | None, tracker: object, **details: object) -> None:
    """Refuse what a hook cannot decide by, or cannot describe a run with; see :func:`open_for_hook`."""
    for argument, given, kind in (("run", run, Run), ("tracker", tracker, Tracker)):
        if not isinstance(given, kind | None):
            raise ConfigurationError(f"`{argument}` must be a {kind.__name__} (got {type(given).__name__}).")
    check_details(name_argument="run_name", **details)
    if parent is not None:
        _parent_key(parent)


def run_around(tracker: Tracker) -> Run | None:
    """The current run, else the one that stands for the caller's active MLflow run."""
    if (current := current_run()) is not None:
        return current
    guest = _guest_of_mlflow(tracker)
    return None if guest is None else guest.run


# -- starting ----------------------------------------------------------------------------------------------------------


def _start(
    tracker: Tracker,
    name: str | None,
    experiment: str | None = None,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    parent: Run | str | None = None,
    *,
    default_name: str = "run",
    joined_run_id: str | None = None,
    experiment_id: str | None = None,
    system_metrics: bool | None = None,
    is_light: bool = False,
) -> Run:
    given = Settings(experiment=experiment, system_metrics=system_metrics)
    place = parent.place if isinstance(parent, Run) else Settings()
    settings = resolve_settings(given, tracker.settings, place, configured())
    parent_key = _parent_key(parent)
    experiment_id = experiment_id or settings.experiment_id
    if isinstance(parent, Run) and experiment is None:
        settings = replace(settings, experiment=parent.experiment)
        experiment_id = parent.spec.experiment_id
    key = clock.new_key()
    spec = RunSpec(
        key=key,
        name=_told(name or f"{default_name}-{key[:4]}"),
        experiment=_told(settings.experiment) if experiment_id is None else f"#{experiment_id}",
        started_ms=clock.now_ms(),
        store=public_name(settings.store) if isinstance(settings.store, str) else "",
        parent_key=parent_key,
        joined_run_id=joined_run_id,
        experiment_id=experiment_id,
        tags=_start_tags(settings.tags, tags, notes),
    )
    run = open_run(spec, settings, is_light=is_light)
    if joined_run_id is not None:
        run.set_tags(settings.tags)  # of other runs they are set when they are created
    run.log_params(params or {})
    return run


def _told(name: str) -> str:
    """A name of the user's as it may be written down."""
    return without_surrogates(redact(name))


def _start_tags(configured: Mapping[str, str], given: Mapping[str, object] | None, notes: str | None) -> dict[str, str]:
    tags: dict[str, object] = {
        "mlflow.user": user(),
        "mlflow.source.name": source_name(),
        "mlflow.source.type": "NOTEBOOK" if "ipykernel" in sys.modules else "LOCAL",
        "overt.host": host(),
        **configured,
        **(given or {}),
    }
    if notes is not None:
        tags[NOTES_TAG] = notes
    texts = {name: value if isinstance(value, str) else describe(value) for name, value in tags.items()}
    return {_told(name): redact_value(name, text) for name, text in texts.items()}


def _add_details(
    run: Run, tags: Mapping[str, object] | None, params: Mapping[str, object] | None, notes: str | None
) -> None:
    run.set_tags(dict(tags or {}) | ({} if notes is None else {NOTES_TAG: notes}))
    run.log_params(params or {})


def _parent_key(parent: Run | str | None) -> str | None:
    if isinstance(parent, Run):
        return parent.key
    key = parent or os.environ.get("OVERT_PARENT_RUN") or None
    if key is not None and not (isinstance(key, str) and is_key(key)):
        place = "`parent`" if parent else "OVERT_PARENT_RUN"
        raise ConfigurationError(f"{place} must be a Run or a run's key, 32 hexadecimal digits (got {key!r}).")
    return key


@dataclass(slots=True)
class _Guest:
    """Our side of the caller's own MLflow run, and whether a ``start_run`` may still be given it."""

    run: Run
    may_be_started: bool = True


_guests: dict[str, _Guest] = {}


def _guest_of_mlflow(tracker: Tracker) -> _Guest | None:
    """Our side of the caller's active MLflow run, if there is one; looked for only where mlflow is imported."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    active = fluent.active_run() if fluent is not None else None
    if active is None:
        return None
    uri = sys.modules["mlflow"].get_tracking_uri()
    chosen = tracker.settings.store or configured().store
    if chosen is not None and (not isinstance(chosen, str) or _absolute(chosen) != _absolute(uri)):
        return None  # the store that was chosen in code is not the one that the caller's run is in
    run_id = active.info.run_id
    if run_id not in _guests:
        theirs = Tracker()
        theirs.settings = replace(tracker.settings, store=uri)
        name = active.info.run_name or run_id
        _guests[run_id] = _Guest(_start(theirs, name, joined_run_id=run_id, experiment_id=active.info.experiment_id))
        if _is_autologging():
            dispatch().warn(
                "mlflow.autolog() is on: it records the same fit a second time, with its own names, into the same run. "
                "Switch it off with mlflow.autolog(disable=True)"
            )
    return _guests[run_id]


def _absolute(store: str) -> str:
    return resolve(store, directory=working_directory())


def _is_autologging() -> bool:
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    settings = getattr(utils, "AUTOLOGGING_INTEGRATIONS", {})
    return any(config and not config.get("disable", True) for config in settings.values())


os.register_at_fork(after_in_child=_guests.clear)
