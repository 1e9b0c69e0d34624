"""A run goes on: from a checkpoint that tells of it, or as its store knows it, opened in another attempt.

A checkpoint is a file that may come from anybody, so what it tells is read as a journal's line is: checked in full, and
nothing in it is run. What the run has recorded before is neither needed nor asked for: only the store knows it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NoReturn

from overt import clock
from overt.capture.params import describe
from overt.checkpoints import CheckpointFile, NoCheckpoint, file_name, finished, newest
from overt.errors import ConfigurationError, RunNotFound
from overt.journal.codec import MOST_WHOLE, BadLine, decode
from overt.journal.folder import last_attempt, run_folder
from overt.links import null_run
from overt.opening import is_diverted, open_run
from overt.process import is_main_rank, usable_base
from overt.query.finding import open_configured, run_id_of
from overt.records import ATTEMPTS_TAG, Attempt, Metric, RunSpec, RunSummary, SegmentHead
from overt.run import Run
from overt.run import find_run as live_run
from overt.settings import Resolved, Settings, configured, resolve_settings
from overt.stores.protocols import PointsStore, QueryStore
from overt.stores.uri import is_mlflow, public_name

Resume = Literal["auto", "never", "must"]


def continue_run(checkpoint: Mapping[str, Any], *nearest_first: Settings) -> Run:
    """Open the run that a checkpoint tells of, in an attempt of its own.

    Parameters
    ----------
    checkpoint : mapping
        What :meth:`overt.Run.to_checkpoint` gave.
    *nearest_first : Settings
        Settings before those that are configured. Where no store is chosen anywhere, the run's own is used.

    Returns
    -------
    Run
        Running, with the same key. Series without a given step go on behind the checkpoint's.

    Raises
    ------
    ConfigurationError
        When the checkpoint tells of no run.
    """
    head, top_steps = _read(checkpoint)
    settings = resolve_settings(*nearest_first, configured(), default_store=head.spec.store or None)
    return _open_next_attempt(head.spec, settings, after=head.attempt.number, top_steps=top_steps)


def resume_run(run: Run | RunSummary | str, *nearest_first: Settings) -> Run:
    """Open a run that has ended, in an attempt of its own; what it recorded before is asked of its store.

    Parameters
    ----------
    run : Run, RunSummary or str
        The run, as itself, as it was listed, or by its id, key or name.
    *nearest_first : Settings
        Settings before those that are configured.

    Returns
    -------
    Run
        Running, with the same key. Series without a given step go on behind the last one.

    Raises
    ------
    ConfigurationError
        When the run is still being recorded in this process.
    RunNotFound
        When the store has no such run, or one that overt did not record.
    StoreUnavailable
        When the store does not answer.
    """
    if isinstance(run, Run):
        if run.status == "RUNNING":
            raise ConfigurationError(
                f"`resume` goes on with a run that has ended, and {run.name} runs: record into it."
            )
        return continue_run(run.to_checkpoint(), *nearest_first)
    settings = resolve_settings(*nearest_first, configured())
    if is_diverted():
        raise ConfigurationError("captured runs are in no store to look one up in: `resume` must be the Run itself.")
    if not settings.enabled or not is_main_rank():
        return null_run(RunSpec(clock.new_key(), str(run), settings.experiment, clock.now_ms()))
    store = open_configured(settings.store)
    found = store.read_run(run_id_of(store, run)).run
    if found.key is None:
        raise RunNotFound(
            f"run {found.id} ({found.name}) was not recorded by overt, or is here without its records, so it is not "
            f"overt's to go on with and to end.{_mlflows_way(settings, found)}"
        )
    if (here := live_run(found.key)) is not None and here.status == "RUNNING":
        raise ConfigurationError(f"`resume` goes on with a run that has ended, and {found.name} runs here.")
    name = public_name(settings.store) if isinstance(settings.store, str) else ""
    spec = RunSpec(found.key, found.name, found.experiment, found.started_ms, store=name)
    top_steps = {point.name: point.step for point in sorted(_points(store, found), key=lambda point: point.step)}
    return _open_next_attempt(spec, settings, after=1 + len(_attempts(found)), top_steps=top_steps)


def _open_next_attempt(spec: RunSpec, settings: Resolved, *, after: int, top_steps: Mapping[str, int]) -> Run:
    """Open the run in the attempt behind that number, or behind the last one that lies here."""
    if isinstance(settings.store, str):
        spec = replace(spec, store=public_name(settings.store))
    if settings.enabled:
        after = max(after, last_attempt(run_folder(usable_base(settings.directory), spec.key)))
    attempt = Attempt(after + 1, clock.now_ms() + 1)
    time.sleep(0.002)  # a millisecond in which two attempts record would not say whose its points are
    return open_run(spec, settings, attempt=attempt, top_steps=top_steps)


def _mlflows_way(settings: Resolved, run: RunSummary) -> str:
    is_mlflows = isinstance(settings.store, str) and is_mlflow(settings.store)
    return f" To record into it: with mlflow.start_run(run_id={run.id!r}): …" if is_mlflows else ""


def _points(store: QueryStore, run: RunSummary) -> Iterator[Metric]:
    if isinstance(store, PointsStore):
        yield from store.iter_all_points(run.id)
    else:
        for metric in run.metrics:
            yield from store.iter_points(run.id, metric)


def _attempts(run: RunSummary) -> list[Any]:
    """The attempts from the second on, as a store notes them."""
    with suppress(ValueError):
        starts = json.loads(run.tags.get(ATTEMPTS_TAG, "[]"))
        return starts if isinstance(starts, list) else []
    return []


def find_checkpoint(
    name: str, params: Mapping[str, object], resume: Resume, *nearest_first: Settings
) -> CheckpointFile:
    """The checkpoint file of a training, whether there is one to go on from yet or not.

    Parameters
    ----------
    name : str
        Of the training.
    params : mapping
        Its settings: with others it is another training.
    resume : {"auto", "never", "must"}
        Whether to go on from what an earlier process has left there: if it was of the same settings, never, or from
        the last one of this name whatever its settings were.
    *nearest_first : Settings
        Settings before those that are configured.

    Raises
    ------
    ConfigurationError
        Under "must", when there is none, or another process trains with it.
    """
    settings = resolve_settings(*nearest_first, configured())
    if not settings.enabled or is_diverted():
        return NoCheckpoint()
    folder, is_main = usable_base(settings.directory) / "checkpoints", is_main_rank()
    paths = (folder / file_name(name, identity) for identity in _iter_identities(settings.experiment, params))
    path = next(path for path in paths if path not in finished)
    if resume == "must":
        path = newest(folder, name) or _refuse(f"there is no checkpoint of {name} in {folder}")
    file = CheckpointFile(path, is_main=is_main)
    if not file.hold():
        if resume == "must":
            _refuse(f"another process is training with {path}")
        file = CheckpointFile(folder / file_name(name, clock.new_key()[:12]), is_main=is_main)
        file.hold()
    elif resume == "never":
        file.remove()
    return file


def _refuse(why: str) -> NoReturn:
    raise ConfigurationError(f"resume='must' goes on from a checkpoint, and {why}. To start anew: resume='auto'.")


def _iter_identities(experiment: str, params: Mapping[str, object]) -> Iterator[str]:
    """12 hexadecimal digits for a training with these settings; others for the next one with them, and so on."""
    identity = json.dumps([experiment, sorted((name, describe(value)) for name, value in params.items())])
    while True:
        identity = hashlib.sha256(identity.encode()).hexdigest()
        yield identity[:12]


def run_key_of(checkpoint: Mapping[str, Any]) -> str:
    """Key of the run that a checkpoint tells of; ConfigurationError if it tells of none."""
    return _read(checkpoint)[0].spec.key


def _read(checkpoint: Mapping[str, Any]) -> tuple[SegmentHead, dict[str, int]]:
    problem = "it is no mapping with the texts that Run.to_checkpoint() gave"
    try:
        head = decode(checkpoint["run"].encode())
        steps = dict(checkpoint["top_steps"])
        if isinstance(head, SegmentHead) and all(_is_step(step) for step in steps.values()):
            return head, steps
    except BadLine as error:
        problem = str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise ConfigurationError(
        f"the checkpoint tells of no run of overt's that can go on ({problem}). To start a new one: resume='never'."
    )


def _is_step(step: object) -> bool:
    return type(step) is int and -MOST_WHOLE <= step <= MOST_WHOLE
