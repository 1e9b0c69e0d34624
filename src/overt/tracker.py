"""Configuration in, runs out: which run a hook records into, its parent and its ending are decided here, for all.

A :class:`Tracker` is configuration and nothing else, so it may be copied, pickled and cloned. What lives (open runs,
the courier, the exit handler) belongs to the process, starts with its first run, and is never there before.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from overt import clock
from overt.capture.environment import host, user
from overt.capture.params import describe
from overt.capture.secrets import redact, redact_argv, redact_value
from overt.delivery.capturing import Launch, capture_into
from overt.delivery.dispatch import Route, dispatch, sync_command
from overt.errors import ConfigurationError, StoreUnavailable
from overt.journal.codec import is_key
from overt.journal.folder import new_segment_name, run_folder
from overt.journal.owner import is_alive
from overt.journal.reader import iter_heads
from overt.journal.writer import JournalWriter
from overt.optional import own_version
from overt.records import Blob, RunEnd, RunSpec
from overt.run import Delivered, Run, current_run, late_runs, status_of
from overt.settings import Resolved, Settings, cache_base, is_quiet, journal_base, resolve_settings
from overt.stores.uri import check_installed, public_name

_configured = Settings()
_diverted_to: list[Callable[[RunSpec], Run]] = []


def configure(**settings: Any) -> None:
    """Set this process's defaults; each call replaces only what it names.

    Parameters
    ----------
    store : str or Store
        URI, such as ``"sqlite:///mlflow.db"`` or ``"http://localhost:5000"``.
    experiment : str
        Where runs go.
    tags : mapping
        Set on every run.
    delivery : {"process", "inline", "manual"}
        By a child process; in this one when something waits; not at all, until ``overt sync``.
    on_error : {"warn", "raise"}
        What trouble with tracking does.
    enabled : bool
        False makes every run a null run: same API, no file, no process.
    keep_journal : bool
        Whether journals stay after delivery.
    drain_timeout_s : float
        How long the script's end waits for a store that does not answer; 0 leaves at once.
    directory : str
        Where journals lie, instead of ``.overt``.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, or a name that is none of these.
    """
    global _configured
    unknown = settings.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(Settings.__dataclass_fields__)
        raise ConfigurationError(f"configure() takes {known} (got {', '.join(sorted(unknown))}).")
    _configured = replace(_configured, **settings)


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
    ) -> Run:
        """Start a run; see :func:`start_run`."""
        return _start(self, name, experiment, tags, params, notes, parent if parent is not None else current_run())


def start_run(
    name: str | None = None,
    *,
    experiment: str | None = None,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    parent: Run | str | None = None,
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
        Recorded at the start.
    notes : str, optional
        Markdown that MLflow's UI shows on the run's page.
    parent : Run or str, optional
        Run, or its key, that this one is nested in: by default the current run.
    tracker : Tracker, optional
        Settings to use.

    Returns
    -------
    Run
        Started. It lives until its ``with`` block or ``finish()`` ends it, at the latest the script.

    Raises
    ------
    ConfigurationError
        When the settings cannot work.

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
    return (tracker or Tracker()).start_run(
        name, experiment=experiment, tags=tags, params=params, notes=notes, parent=parent
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
) -> HookRun:
    """Decide which run a hook records into.

    In this order: the run it was given; a child of the parent it was given; the current run, which the first hook joins
    and later ones, or one with a name of its own, get as their parent; the caller's active MLflow run, likewise; a run
    of its own.
    """
    tracker = tracker or Tracker()
    start = {"experiment": experiment, "tags": tags, "params": params, "notes": notes}
    if run is None and parent is None:
        around = current_run() or _callers_mlflow_run(tracker, tags)
        if around is not None:
            if around.hook_joined or run_name is not None:
                parent = around
            else:
                run = around
    if run is not None:
        run.hook_joined = True
        _add_details(run, tags, params, notes)
        return HookRun(run, owned=False)
    return HookRun(_start(tracker, run_name, parent=parent, default_name=default_name, **start), owned=True)  # type: ignore[arg-type]


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
    for run in list(_open_runs | late_runs):
        run.seal()
    late_runs.clear()
    patience_s = resolve_settings(_configured).drain_timeout_s
    return dispatch().wait(None, timeout_s=timeout_s, patience_s=max(patience_s, timeout_s or 0))


@contextmanager
def divert(build: Callable[[RunSpec], Run]) -> Iterator[None]:
    """Within the block, let ``build`` make the runs of this process; for :func:`overt.testing.captured_runs`."""
    _diverted_to.append(build)
    try:
        yield
    finally:
        _diverted_to.remove(build)


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
) -> Run:
    for argument, given in (("tags", tags), ("params", params)):
        if not isinstance(given, Mapping | None):
            raise ConfigurationError(f"`{argument}` must map names to values (got {type(given).__name__}).")
    settings = resolve_settings(Settings(experiment=experiment), tracker.settings, _configured)
    parent_key = _parent_key(parent)
    if isinstance(parent, Run) and experiment is None:
        settings = replace(settings, experiment=parent.experiment)
        experiment_id = experiment_id or parent.spec.experiment_id
    key = clock.new_key()
    spec = RunSpec(
        key=key,
        name=name or f"{default_name}-{key[:4]}",
        experiment=settings.experiment if experiment_id is None else f"#{experiment_id}",
        started_ms=clock.now_ms(),
        store=public_name(settings.store) if isinstance(settings.store, str) else "",
        parent_key=parent_key,
        joined_run_id=joined_run_id,
        experiment_id=experiment_id,
        tags=_start_tags(settings.tags, tags, notes),
    )
    run = _build(spec, settings)
    if joined_run_id is not None:
        run.set_tags(settings.tags)  # of other runs they are set when they are created
    for param, value in (params or {}).items():
        run.log_param(param, value)
    return run


def _build(spec: RunSpec, settings: Resolved) -> Run:
    """The run in memory, nowhere, or in a journal that is delivered."""
    if _diverted_to:
        return _diverted_to[-1](spec)
    if not settings.enabled or not _is_main_rank():
        return null_run(spec)
    if isinstance(settings.store, str):
        if settings.delivery != "manual":
            check_installed(settings.store)
        store = settings.store
    else:
        store = f"object:{id(settings.store)}"
        dispatch().stores[store] = settings.store
    dispatch().blame(*users_line())
    base = _usable_base(settings.directory)
    route = Route(
        run_folder(base, spec.key), store, settings.delivery, settings.keep_journal, settings.drain_timeout_s, _launch()
    )
    link = _Link(spec.key, route)
    writer = JournalWriter(route.folder, spec, on_open=link.watch, on_trouble=link.warn)
    strict = settings.on_error == "raise"
    run = Run(spec, writer, link=link, strict=strict, rebuild=(_rebuild, (spec, route.folder, strict)))
    _register_exit()
    _open_runs.add(run)
    run._on_end.append(_ended)
    run.set_tag("overt.version", own_version())
    if settings.delivery != "process":
        capture_into(writer, Launch(**{**_launch(), "argv": tuple(_launch()["argv"])}))
    if spec.parent_key is None and not is_quiet():
        place = spec.store or "its store"
        where = (
            f"joins MLflow's run {spec.joined_run_id}" if spec.joined_run_id else f"in experiment {spec.experiment!r}"
        )
        print(f"overt: run {spec.name} {where}, delivered to {place}", file=sys.stderr)
    return run


def _rebuild(spec: RunSpec, folder: Path, strict: bool, end: RunEnd | None = None) -> Run:
    """The same run in another process, as a segment of its own; in this process, the run itself.

    While the process that started it lives, that one delivers. When it is gone, this one does.
    """
    for run in list(_open_runs):
        if run.key == spec.key:
            return run
    is_worker = any(is_alive(head.owner) is not False for _, head in iter_heads(folder))
    link: _Link | _WorkerLink = _WorkerLink(spec.name) if is_worker else _Link(spec.key, _later_route(spec, folder))
    writer = JournalWriter(folder, spec, segment=new_segment_name(), on_open=link.watch, on_trouble=link.warn)
    run = Run(spec, writer, link=link, strict=strict, rebuild=(_rebuild, (spec, folder, strict)))
    if not is_worker:
        _register_exit()
        _open_runs.add(run)
    return run._inherit(end)


def _later_route(spec: RunSpec, folder: Path) -> Route:
    """How this process delivers a run of one that is gone: with its own settings, to the run's own store."""
    settings = resolve_settings(_configured)
    store = settings.store
    if not isinstance(store, str) or public_name(store) != spec.store:
        store = spec.store
    return Route(folder, store, settings.delivery, settings.keep_journal, settings.drain_timeout_s)


def null_run(spec: RunSpec, end: RunEnd | None = None) -> Run:
    """A run with the same methods that keeps nothing."""
    return Run(spec, NullWriter(), link=_NullLink(), rebuild=(null_run, (spec,)))


class NullWriter:
    """Keeps nothing: for ``enabled=False`` and for all ranks but the first."""

    preamble = b""

    def append(self, line: bytes) -> bool:
        """Keep nothing."""
        return True

    def store_bytes(self, data: bytes) -> Blob:
        """Keep nothing."""
        return Blob("0" * 64, len(data))

    def store_file(self, path: Path) -> Blob:
        """Keep nothing."""
        return Blob("0" * 64, path.stat().st_size)

    def sync(self) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """Nothing was opened."""


class _NullLink:
    """Of a run that this process does not deliver."""

    def require_arrival(self) -> Delivered:
        from overt.delivery.messages import Delivered as Nowhere

        return Nowhere("", None)

    def warn(self, text: str) -> None:
        dispatch().warn(text)


class _WorkerLink:
    """Of a run that the process which started it delivers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def watch(self) -> None:
        """The other process's courier sees every segment."""

    def require_arrival(self) -> Delivered:
        raise StoreUnavailable(f"run {self._name} is delivered by the process that started it: ask there")

    def warn(self, text: str) -> None:
        dispatch().warn(text)


class _Link:
    """Of a run that this process delivers."""

    def __init__(self, key: str, route: Route) -> None:
        self._key = key
        self._route = route

    def watch(self) -> None:
        dispatch().watch(self._route)

    def require_arrival(self) -> Delivered:
        return dispatch().require_arrival(self._key, self._route.drain_timeout_s)

    def warn(self, text: str) -> None:
        dispatch().warn(f"{text}. Training goes on without it")


def _start_tags(configured: Mapping[str, str], given: Mapping[str, object] | None, notes: str | None) -> dict[str, str]:
    script = _launch()["script"]
    tags: dict[str, object] = {
        "mlflow.user": user(),
        "mlflow.source.name": script,
        "mlflow.source.type": "NOTEBOOK" if "ipykernel" in sys.modules else "LOCAL",
        "overt.host": host(),
        **configured,
        **(given or {}),
    }
    if notes is not None:
        tags["mlflow.note.content"] = notes
    texts = {name: value if isinstance(value, str) else describe(value) for name, value in tags.items()}
    return {name: redact_value(name, text) for name, text in texts.items()}


def _add_details(
    run: Run, tags: Mapping[str, object] | None, params: Mapping[str, object] | None, notes: str | None
) -> None:
    run.set_tags(dict(tags or {}) | ({} if notes is None else {"mlflow.note.content": notes}))
    for name, value in (params or {}).items():
        run.log_param(name, value)


def _parent_key(parent: Run | str | None) -> str | None:
    if isinstance(parent, Run):
        return parent.key
    key = parent or os.environ.get("OVERT_PARENT_RUN") or None
    if key is not None and not (isinstance(key, str) and is_key(key)):
        place = "`parent`" if parent else "OVERT_PARENT_RUN"
        raise ConfigurationError(f"{place} must be a Run or a run's key, 32 hexadecimal digits (got {key!r}).")
    return key


def _callers_mlflow_run(tracker: Tracker, tags: Mapping[str, object] | None) -> Run | None:
    """The run that stands for the caller's active MLflow run, if there is one; looked for only where mlflow is."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    active = fluent.active_run() if fluent is not None else None
    if active is None:
        return None
    if tracker.settings.store is not None:
        return None  # a store chosen in code need not be the one that the caller's run is in
    run_id = active.info.run_id
    if run_id not in _joined or _joined[run_id].status != "RUNNING":
        theirs = Tracker()
        theirs.settings = replace(tracker.settings, store=sys.modules["mlflow"].get_tracking_uri())
        name = active.info.run_name or run_id
        _joined[run_id] = _start(theirs, name, joined_run_id=run_id, experiment_id=active.info.experiment_id)
        if _is_autologging():
            dispatch().warn(
                "mlflow.autolog() is on: it records the same fit a second time, with its own names, into the same run. "
                "Switch it off with mlflow.autolog(disable=True)"
            )
    return _joined[run_id]


def _is_autologging() -> bool:
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    settings = getattr(utils, "AUTOLOGGING_INTEGRATIONS", {})
    return any(config and not config.get("disable", True) for config in settings.values())


def _launch() -> dict[str, Any]:
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) or (sys.argv[0] if sys.argv and sys.argv[0] else "<stdin>")
    return {"cwd": os.getcwd(), "argv": redact_argv(sys.orig_argv), "script": redact(str(script))}


def _is_main_rank() -> bool:
    """Whether this process is the one of a distributed training that records."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if (rank := os.environ.get(variable, "")).isdigit():
            return int(rank) == 0
    return True


def _usable_base(directory: str | os.PathLike[str] | None) -> Path:
    """The ``.overt`` folder, or the one in the user's cache where that cannot be written."""
    base = journal_base(directory)
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(base, os.W_OK | os.X_OK):
            gitignore = base / ".gitignore"
            if not gitignore.exists():
                gitignore.write_text("*\n", "ascii")
            return base
    except OSError:
        pass
    fallback = cache_base()
    dispatch().warn(f"{base} cannot be written, so journals go to {fallback}. To choose a place: OVERT_DIR")
    return fallback


def users_line() -> tuple[str, int]:
    """File and line outside overt that led here."""
    root = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(root):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


# -- the script's end --------------------------------------------------------------------------------------------------

_open_runs: set[Run] = set()
_joined: dict[str, Run] = {}
_has_exit_handler = False


def _register_exit() -> None:
    global _has_exit_handler
    if not _has_exit_handler:
        _has_exit_handler = True
        atexit.register(_at_exit)


def _ended(run: Run) -> None:
    if lost := getattr(run._writer, "lost", 0):
        dispatch().warn(f"run {run.name} ended with {lost} record(s) that could not be written; they are lost")
    if run.spec.parent_key is None and run.spec.joined_run_id is None and not is_quiet():
        took_s = (clock.now_ms() - run.spec.started_ms) / 1000
        metrics = [f"{name} {value:.4g}" for name, value in list(run.metrics.items())[:3]]
        shown = ", ".join([f"{took_s:.1f} s", *metrics])
        print(f"overt: run {run.name} {run.status} ({shown})", file=sys.stderr)


def _at_exit() -> None:
    """End what is open, seal what has ended, and wait for the store while it answers."""
    error = _uncaught_error()
    for run in list(_open_runs):
        status = status_of(error)
        run.finish(status, error=error if status == "FAILED" else None)
        run.seal()
    settings = resolve_settings(_configured)
    first_s = min(2.0, settings.drain_timeout_s)
    if first_s > 0 and not dispatch().wait(None, timeout_s=first_s, patience_s=first_s):
        if not is_quiet() and dispatch().deliveries.undelivered():
            print("overt: delivering what is left …", file=sys.stderr)
        dispatch().wait(None, timeout_s=None, patience_s=settings.drain_timeout_s - first_s)
    undelivered = dispatch().deliveries.undelivered()
    if undelivered and settings.drain_timeout_s > 0:
        base = undelivered[0].parent.parent
        print(
            f"overt: {len(undelivered)} run(s) not delivered yet, kept in {base}. To deliver: {sync_command(base)}",
            file=sys.stderr,
        )


def _uncaught_error() -> BaseException | None:
    """The error that ends the script, which the interpreter leaves in ``sys``; in a notebook it may be any old one."""
    if "IPython" in sys.modules:
        return None
    return getattr(sys, "last_value", None)


def _in_forked_child() -> None:
    """A forked child ends none of its parent's runs and waits for none of its deliveries."""
    global _has_exit_handler
    _open_runs.clear()
    _joined.clear()
    if _has_exit_handler:
        atexit.unregister(_at_exit)
        _has_exit_handler = False


os.register_at_fork(after_in_child=_in_forked_child)
