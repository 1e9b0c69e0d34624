"""Runs that lie in plain files go to another store, with their times: each becomes a journal, and is delivered as one.

Everything is read before anything is sent, so a file with a line that is no run moves nothing. A run has the same key
each time that it is read, so a second import, or one that goes on where another was cut off, doubles nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from overt.delivery.deliver import RunDelivery
from overt.errors import ConfigurationError
from overt.journal.codec import BadLine, decode, encode, is_key
from overt.journal.owner import this_process
from overt.journal.writer import JournalWriter
from overt.records import (
    ATTEMPTS_TAG,
    Artifact,
    Attempt,
    EndStatus,
    Metric,
    Model,
    Param,
    Record,
    RunEnd,
    RunSpec,
    RunSummary,
    Seal,
    SegmentHead,
    Tag,
)
from overt.settings import Settings, configured, resolve_settings
from overt.stores.csv import CsvStore, read_table
from overt.stores.jsonl import FOLDERS, PARENT_TAG, JsonlStore
from overt.stores.protocols import Store
from overt.stores.runline import NotARun, from_line
from overt.stores.uri import check_installed, folder_beside, light_path, open_store, public_name

_LEFT_OUT = (
    "run {} was left out: it, or the run that it is nested in, is still being recorded. Import again when that has "
    "ended; overt doctor ends what a process has left that is gone"
)
_ENDED: dict[str, EndStatus] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "KILLED"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one run: its id in the new store, empty if it was left out, and what did not arrive of it."""

    run: RunSummary
    run_id: str
    problem: str = ""


def import_runs(path: Path, *, store: str | Store | None = None) -> Iterator[Imported]:
    """Carry the runs of plain files into a store.

    Parameters
    ----------
    path : Path
        A ``runs.jsonl``, the folder that it is in, or a CSV table: of overt's own or of the source document's trackers.
        Records and files beside it come along.
    store : str or Store, optional
        Where to, instead of the configured one.

    Yields
    ------
    Imported
        One for each run when it has arrived, oldest first, but a run before those nested in it; last those left out.

    Raises
    ------
    ConfigurationError
        When ``path`` holds no runs, or one of its lines is none; nothing has been carried over then.
    StoreError
        When the store does not take them. What had arrived before stays; the next import goes on from there.
    """
    source = _source(path)
    _check_links(source.folder)
    chosen = resolve_settings(Settings(store=store), configured()).store
    name = public_name(chosen) if isinstance(chosen, str) else ""
    sealed, unsealed = _read(source)
    planned = _parents_first([(run, _spec(run, source, name)) for run in sealed])
    if isinstance(chosen, str):
        if _is_same(source, light_path(chosen)):
            raise ConfigurationError(f"{path} is the store itself: name another to carry its runs to.")
        check_installed(chosen)
        chosen = open_store(chosen)
    for run, spec in planned:
        yield _carry(run, spec, source, chosen, name)
    yield from (Imported(run, "", _LEFT_OUT.format(run.name)) for run in unsealed)


def _source(path: Path) -> JsonlStore:
    """The files at ``path`` as the store that they are, or could be."""
    place = path.absolute()
    if place.suffix == ".csv" and place.is_file():
        return CsvStore(place)
    if place.suffix == ".jsonl" and place.is_file():
        store = JsonlStore(place.parent)
        store.lines = place  # by whatever name
        return store
    if (place / "runs.jsonl").is_file() or (place / "records").is_dir():
        return JsonlStore(place)
    raise ConfigurationError(
        "FILE must be a runs.jsonl, a folder with one, or a CSV table of runs, such as experiments/runs.jsonl "
        f"(got {path})."
    )


def _check_links(folder: Path) -> None:
    """Raise if a folder with runs, maybe a stranger's, says that files from elsewhere are theirs."""
    for place in (folder / name for name in FOLDERS):
        if place.is_symlink():
            raise ConfigurationError(
                f"{place} is a link, and what lies behind it may be nobody's run: put the folder itself there."
            )


def _is_same(source: JsonlStore, place: Path | None) -> bool:
    """Whether ``place`` is where the runs come from, by whatever path."""
    if place is None:
        return False
    ours = {os.path.realpath(source.folder), os.path.realpath(source.path)}
    return not ours.isdisjoint({os.path.realpath(place), os.path.realpath(folder_beside(place))})


def _read(source: JsonlStore) -> tuple[list[RunSummary], list[RunSummary]]:
    """The runs that can be carried over, the last line of each; and those that are not sealed, or nested in one."""
    runs: dict[str, RunSummary] = {}
    if isinstance(source, CsvStore) and source.path.exists():
        runs = {run.id: run for run in read_table(source.path.read_bytes(), source.path, is_strict=True)}
    runs |= {run.id: run for run in _iter_lines(source.lines)}
    left_out = set(source.iter_open())
    unsealed = [run for run in source.iter_runs() if run.id in left_out]
    while children := {i for i, run in runs.items() if run.tags.get(PARENT_TAG) in left_out} - left_out:
        left_out |= children
    nested = [run for run in runs.values() if run.id in left_out - {run.id for run in unsealed}]
    return [run for run in runs.values() if run.id not in left_out], unsealed + nested


def _iter_lines(path: Path) -> Iterator[RunSummary]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line.strip():
                yield from_line(line)
        except NotARun as error:
            raise ConfigurationError(
                f"line {number} of {path} is no run: {error}. Mend that line or take it out; nothing has been imported"
            ) from error


def _parents_first(planned: list[tuple[RunSummary, RunSpec]]) -> list[tuple[RunSummary, RunSpec]]:
    """Oldest first, but a run before those that are nested in it: a store nests by what it has."""
    parents = {spec.key: spec.parent_key for _, spec in planned}

    def depth(spec: RunSpec) -> int:
        seen: set[str] = set()
        key = spec.parent_key
        while key in parents and key not in seen:  # a file may say that two runs are nested in each other
            seen.add(key)
            key = parents[key]
        return len(seen)

    return sorted(planned, key=lambda pair: (depth(pair[1]), pair[0].started_ms))


def _carry(run: RunSummary, spec: RunSpec, source: JsonlStore, store: Store, store_name: str) -> Imported:
    from overt.figures import draw

    with tempfile.TemporaryDirectory(prefix="overt-") as base:
        folder = Path(base, "runs", spec.key)
        writer = JournalWriter(folder, spec)
        for record in _iter_records(run, source, writer):
            writer.append(encode(record))
        writer.close()
        delivery = RunDelivery(folder, store, store_name=store_name, draw=draw)
        delivery.deliver(is_over=True)
        return Imported(run, delivery.progress.run_id or spec.key, "; ".join(delivery.problems))


def _spec(run: RunSummary, source: JsonlStore, store_name: str) -> RunSpec:
    """What the run is to be in its new store.

    Raises
    ------
    ConfigurationError
        When no journal could say it.
    """
    head = next(iter(source.iter_records(run.id)), None)
    if isinstance(head, SegmentHead):
        spec = replace(head.spec, store=store_name, experiment_id=None, joined_run_id=None)
    else:
        identity = "\0".join((run.experiment, run.id, str(run.started_ms)))
        key = run.id if is_key(run.id) else hashlib.sha256(identity.encode()).hexdigest()[:32]
        parent = run.tags.get(PARENT_TAG, "")
        spec = RunSpec(key, run.name, run.experiment, run.started_ms, store_name, parent if is_key(parent) else None)
        spec = replace(spec, tags=run.tags)
    if spec.parent_key:  # the new store has an id of its own for the parent
        spec = replace(spec, tags={name: text for name, text in spec.tags.items() if name != PARENT_TAG})
    try:
        decode(encode(SegmentHead(spec, this_process())))
    except (BadLine, TypeError) as error:
        raise ConfigurationError(
            f"run {run.id} of {source.path} cannot be carried over: {error}. Mend its line or take it out; nothing has "
            "been imported"
        ) from error
    return spec


def _iter_records(run: RunSummary, source: JsonlStore, writer: JournalWriter) -> Iterator[Record]:
    """What is known of the run, its files among it, and its end."""
    attempts: list[Attempt] = []
    models: set[str] = set()
    for record in source.iter_records(run.id):  # once for what comes first: a run may have more points than memory
        if isinstance(record, SegmentHead):
            attempts.append(record.attempt)
        elif isinstance(record, Model):
            models.add(record.name)
    if starts := [attempt.started_ms for attempt in attempts if attempt.number > 1]:
        yield Tag(ATTEMPTS_TAG, json.dumps(sorted(starts)))
    if attempts:
        yield from (r for r in source.iter_records(run.id) if not isinstance(r, SegmentHead | RunEnd))
    else:
        yield from (Param(name, value) for name, value in run.params.items())
        yield from (Metric(name, value, 0, run.started_ms) for name, value in run.metrics.items())
    yield Tag("overt.imported_from", source.path.name)
    for path in source.iter_paths(run.id):
        blob = writer.store_file(source.folder / "artifacts" / run.id / path)
        if path.partition("/")[0] not in models:
            yield Artifact(path, blob)
    yield RunEnd(_ENDED.get(run.status, "KILLED"), run.ended_ms or run.started_ms)
    yield Seal()
