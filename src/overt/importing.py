"""Runs that lie in plain files go to another store, with their times: each becomes a journal, and is delivered as one.

Everything is read before anything is sent, so a file with a line that is no run moves nothing. A run has the same key
each time that it is read, so a second import, or one that goes on where another was cut off, doubles nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from overt.delivery.deliver import RunDelivery
from overt.errors import ConfigurationError, OvertError, RunNotFound
from overt.journal.codec import BadLine, decode, encode, is_key
from overt.journal.owner import this_process
from overt.journal.writer import JournalWriter
from overt.query.finding import open_query
from overt.records import (
    ATTEMPTS_TAG,
    Artifact,
    EndStatus,
    Metric,
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
from overt.stores.protocols import QueryStore, Store
from overt.stores.runline import NotARun, from_fields, read_fields
from overt.stores.uri import (
    check_installed,
    check_writable,
    folder_beside,
    is_mlflow,
    light_path,
    open_store,
    public_name,
)

_LEFT_OUT = (
    "run {} was left out: it, or the run that it is nested in, is still being recorded. Import again when that has "
    "ended; overt doctor ends what a process has left that is gone"
)
_ENDED: dict[str, EndStatus] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "KILLED"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one run: its id in the new store, empty if it was left out, and what did not arrive of it.

    ``was_there`` says that the new store had the run before, as far as that store can be read.
    """

    run: RunSummary
    run_id: str
    problem: str = ""
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A run that can be carried over, and when it began in the letters of its file: they mean the same run anywhere."""

    run: RunSummary
    began: str


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
        When ``path`` holds no runs or cannot be read, one of its lines is no run, or a light store cannot be written
        to; nothing has been carried over then.
    StoreError
        When the store does not take them. What had arrived before stays; the next import goes on from there.
    """
    chosen = resolve_settings(Settings(store=store), configured()).store
    name = public_name(chosen) if isinstance(chosen, str) else ""
    with _errors_of_reading():
        source = _source(path)
        _check_links(source.folder)
        sealed, unsealed = _read(source)
        planned = _parents_first([(each.run, _spec(each, source, name)) for each in sealed])
    if isinstance(chosen, str):
        if _is_same(source, light_path(chosen)):
            raise ConfigurationError(f"{path} is the store itself: name another to carry its runs to.")
        check_installed(chosen)
        check_writable(chosen)
    target = open_store(chosen) if isinstance(chosen, str) else chosen
    there = _already_there(target, chosen, {spec.experiment for _, spec in planned})
    for run, spec in planned:
        before = there.get(spec.key)  # if in another zone, then with another time: the file has it without its offset
        same = replace(run, started_ms=before.started_ms) if before else run
        yield replace(_carry(same, spec, source, target, name), was_there=before is not None)
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


@contextmanager
def _errors_of_reading() -> Iterator[None]:
    try:
        yield
    except OvertError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be read ({error.strerror}): make it readable. Nothing has been imported"
        ) from error


def _already_there(target: Store, chosen: str | Store, experiments: Iterable[str]) -> dict[str, RunSummary]:
    """Runs of the new store by key; none where it cannot be read."""
    query = open_query(chosen) if isinstance(chosen, str) and is_mlflow(chosen) else target
    found: dict[str, RunSummary] = {}
    for experiment in sorted(experiments):
        if isinstance(query, QueryStore):
            with suppress(RunNotFound):
                found |= {run.key: run for run in query.iter_runs(experiment=experiment) if run.key}
    return found


def _read(source: JsonlStore) -> tuple[list[_Sealed], list[RunSummary]]:
    """The runs that can be carried over, the last line of each; and those that are not sealed, or nested in one."""
    found: dict[str, _Sealed] = {}
    if isinstance(source, CsvStore) and source.path.exists():
        table = read_table(source.path.read_bytes(), source.path, is_strict=True)
        found = {run.id: _Sealed(run, row["timestamp"]) for run, row in table}
    found |= {each.run.id: each for each in _iter_lines(source.lines)}
    left_out = set(source.iter_open())
    listed = list(source.iter_runs())
    if source.lines.name == "runs.jsonl":  # a line may be lost; the records tell the same
        found = {run.id: _Sealed(run, "") for run in listed} | found
    unsealed = [run for run in listed if run.id in left_out]
    runs = {run_id: each.run for run_id, each in found.items()}
    while children := {i for i, run in runs.items() if run.tags.get(PARENT_TAG) in left_out} - left_out:
        left_out |= children
    nested = [run for run in runs.values() if run.id in left_out - {run.id for run in unsealed}]
    return [each for run_id, each in found.items() if run_id not in left_out], unsealed + nested


def _iter_lines(path: Path) -> Iterator[_Sealed]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line.strip():
                fields = read_fields(line)
                yield _Sealed(from_fields(fields), str(fields.get("started_ms", fields.get("timestamp"))))
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


def _spec(sealed: _Sealed, source: JsonlStore, store_name: str) -> RunSpec:
    """What the run is to be in its new store.

    Raises
    ------
    ConfigurationError
        When no journal could say it.
    """
    run = sealed.run
    head = next(iter(source.iter_records(run.id)), None)
    if isinstance(head, SegmentHead):
        spec = replace(head.spec, store=store_name, experiment_id=None, joined_run_id=None)
    else:
        identity = "\0".join((run.experiment, run.id, sealed.began))
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
    models: Iterable[str] = ()
    state = source.read_whole(run.id)  # once for what comes first: a run may have more points than memory
    if state is not None:
        models = state.models
        if state.attempts:
            yield Tag(ATTEMPTS_TAG, state.tags[ATTEMPTS_TAG])
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
