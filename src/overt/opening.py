"""What a run is becomes a run that records: in memory, nowhere, or in a journal that is delivered.

Everything that starts a run, goes on with one or reads one back from a pickle comes through here, so whether tracking
is on, which rank this is and who delivers are asked in one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from overt.delivery.capturing import Launch, capture_into
from overt.delivery.dispatch import Route, dispatch
from overt.delivery.supervisor import OBJECT
from overt.ending import remember
from overt.journal.folder import new_segment_name, run_folder
from overt.journal.owner import is_alive
from overt.journal.reader import iter_heads
from overt.journal.writer import JournalWriter
from overt.links import OwnLink, WorkerLink, null_run
from overt.optional import own_version
from overt.process import is_main_rank, launch, usable_base
from overt.records import FIRST_ATTEMPT, ROWS_TAG, Attempt, RunEnd, RunSpec
from overt.run import GOES_ON, Run, find_run
from overt.say import say, users_line
from overt.settings import Resolved, Settings, configured, is_quiet, resolve_settings
from overt.stores.uri import check_installed, check_writable, public_name


class Build(Protocol):
    """Makes a run elsewhere than in a journal."""

    def __call__(self, spec: RunSpec, attempt: Attempt, top_steps: Mapping[str, int]) -> Run:
        """Make it."""


_diverted_to: list[Build] = []


@contextmanager
def divert(build: Build) -> Iterator[None]:
    """Within the block, let ``build`` make the runs of this process; for :func:`overt.testing.captured_runs`."""
    _diverted_to.append(build)
    try:
        yield
    finally:
        _diverted_to.remove(build)


def is_diverted() -> bool:
    """Whether runs are made elsewhere now, and nothing of them belongs on the disk."""
    return bool(_diverted_to)


def open_run(
    spec: RunSpec,
    settings: Resolved,
    *,
    attempt: Attempt = FIRST_ATTEMPT,
    top_steps: Mapping[str, int] | None = None,
    is_light: bool = False,
) -> Run:
    """Open a run that starts, or goes on in another attempt.

    Parameters
    ----------
    spec : RunSpec
        What it is.
    settings : Resolved
        How it is recorded.
    attempt : Attempt
        Which one it is.
    top_steps : mapping, optional
        The highest step of each series that the attempt begins after.
    is_light : bool
        Whether what surrounds it is left out: of a run nested in one that has it.
    """
    top_steps = top_steps or {}
    if _diverted_to:
        return _diverted_to[-1](spec, attempt, top_steps)
    if not settings.enabled or not is_main_rank():
        return null_run(spec)
    if isinstance(settings.store, str):
        if settings.delivery != "manual":
            check_installed(settings.store)
            check_writable(settings.store)
        store = settings.store
    else:
        store = f"{OBJECT}{id(settings.store)}"
        dispatch().stores[store] = settings.store
    dispatch().blame(*users_line())
    route = Route(
        run_folder(usable_base(settings.directory), spec.key),
        store,
        settings.delivery,
        settings.keep_journal,
        settings.drain_timeout_s,
        None if is_light else launch(),
        settings.system_metrics and not is_light,
    )
    link = OwnLink(spec.key, route)
    writer = JournalWriter(route.folder, spec, attempt=attempt, on_open=link.watch, on_trouble=_lost(link))
    strict = settings.on_error == "raise"
    rebuild = (_rebuild, (spec, route.folder, strict, attempt))
    run = Run(spec, writer, link=link, strict=strict, rebuild=rebuild, top_steps=top_steps)
    run.place = Settings(store=settings.store, directory=route.folder.parent.parent)
    remember(run)
    run.set_tag("overt.version", own_version())
    if settings.delivery == "manual" and not is_light:  # else whoever delivers it has looked
        capture_into(writer, Launch.from_message(launch()), attempt=attempt.number)
    _announce(spec, attempt)
    return run


def _lost(link: OwnLink | WorkerLink) -> Callable[[str], None]:
    return lambda text: link.warn(f"{text}. {GOES_ON}")


def _announce(spec: RunSpec, attempt: Attempt) -> None:
    if spec.parent_key is not None or ROWS_TAG in spec.tags or is_quiet():  # one for rows may never arrive
        return
    place = spec.store or "its store"
    where = f"joins MLflow's run {spec.joined_run_id}" if spec.joined_run_id else f"in experiment {spec.experiment!r}"
    goes_on = f"goes on, attempt {attempt.number}, " if attempt.number > 1 else ""
    say(f"run {spec.name} {goes_on}{where}, delivered to {place}")


def _rebuild(spec: RunSpec, folder: Path, strict: bool, attempt: Attempt, end: RunEnd | None = None) -> Run:
    """The same run in another process, as a segment of its own; in this process, the run itself.

    While the process that started it lives, that one delivers. When it is gone, this one does.
    """
    if (known := find_run(spec.key)) is not None:
        return known._inherit(end) if known.is_inherited and end is not None else known
    is_worker = any(is_alive(head.owner) is not False for _, head in iter_heads(folder))
    link: OwnLink | WorkerLink = WorkerLink(spec.name) if is_worker else OwnLink(spec.key, _later_route(spec, folder))
    segment = new_segment_name()
    writer = JournalWriter(folder, spec, segment=segment, attempt=attempt, on_open=link.watch, on_trouble=_lost(link))
    run = Run(spec, writer, link=link, strict=strict, rebuild=(_rebuild, (spec, folder, strict, attempt)))
    if not is_worker:
        run.is_taken_over = True
        remember(run)
    _lately_rebuilt.append(run)
    return run._inherit(end)


_lately_rebuilt: deque[Run] = deque(maxlen=16)
"""A pool hands the same run to a worker with each task: kept alive between them, it has one segment there."""


def _later_route(spec: RunSpec, folder: Path) -> Route:
    """How this process delivers a run of one that is gone: with its own settings, to the run's own store."""
    settings = resolve_settings(configured())
    store = settings.store
    if not isinstance(store, str) or public_name(store) != spec.store:
        store = spec.store
    return Route(folder, store, settings.delivery, settings.keep_journal, settings.drain_timeout_s)
