"""Runs as plain files in one folder: ``runs.jsonl``, a line for each sealed run, with everything else beside it.

::

    experiments/
      runs.jsonl             what each run came to; of a run with several lines the last one counts
      artifacts/<run_id>/    its files, models among them
      records/<run_id>.jsonl everything that was recorded of it, each point of each metric, in the journal's format
      open/<run_id>          the run has no line yet, or may say more by now than its line; "news": it does

A line is added with one write, however many there are. Runs are delivered by as many processes at once as there are.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from overt.errors import (
    ArtifactNotFound,
    ModelNotFound,
    OvertError,
    RunNotFound,
    StoreRejected,
    StoreUnavailable,
)
from overt.models.loading import load_code
from overt.records import (
    Attempt,
    Batchable,
    EndStatus,
    FetchedModel,
    Metric,
    Model,
    Record,
    RunDetails,
    RunEnd,
    RunSpec,
    RunSummary,
    SegmentHead,
    StoredDataset,
    StoredFile,
    StoredModel,
)
from overt.say import warn
from overt.stores.appending import append, copy, is_partial, lock
from overt.stores.modelfile import files_beside, flavors_of
from overt.stores.protocols import ModelSource, ModelStore, QueryStore, ResumableStore, SealableStore, Store
from overt.stores.runfile import Lines, RunFile, RunState, iter_points, read_state
from overt.stores.runline import LINE_START, NotARun, from_line, is_id, to_line

FOLDERS = ("artifacts", "records", "open")
PARENT_TAG = "mlflow.parentRunId"
_NEWS = b"news"
_NO_BEGINNING = "does not begin as the records of a run do"
_COPY = "A copy of the store from before has it"
_REFUSED_BY_THE_FILE_SYSTEM = (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
"""What one record's own path is at fault for: "a" and "a/b", or a name longer than the file system takes."""


class JsonlStore:
    """The runs in one folder.

    Parameters
    ----------
    folder : Path
        Where they are, or are to be; made with the first run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = self.lines = folder / "runs.jsonl"
        self._files: dict[str, RunFile] = {}
        self._read: dict[Path, tuple[object, Mapping[str, RunSummary]]] = {}

    # -- taking runs ---------------------------------------------------------------------------------------------------

    def create_run(self, spec: RunSpec) -> str:
        """Create the run; its id is its key."""
        with _errors_of_files():
            if not self._record_path(spec.key).exists():
                for name in FOLDERS:
                    (self.folder / name).mkdir(parents=True, exist_ok=True)
                self._check_links()
                self._open(spec.key)
                tags = {**spec.tags, PARENT_TAG: spec.parent_key} if spec.parent_key else spec.tags
                self._file(spec.key).create(replace(spec, tags=tags))
        return spec.key

    def log_batch(self, run_id: str, records: Sequence[Batchable]) -> None:
        """Add records; a changed param becomes the tag ``param_drift.<name>``, as in MLflow."""
        with _errors_of_files():
            self._change(run_id, lambda file: file.add(records))

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Copy every file below ``folder``."""
        with _errors_of_files():
            self._change(run_id, lambda file: self._copy(folder, self._artifacts(run_id)))

    def log_model(self, run_id: str, model: Model, folder: Path) -> str:
        """Copy a model's files; the folder that they are in is what loads it."""
        with _errors_of_files():
            target = self._artifacts(run_id) / model.name
            for name, content in files_beside(model, run_id=run_id).items():
                (folder / name).write_bytes(content)
            self._change(run_id, lambda file: self._copy_model(folder, target, model, file))
            return str(target)  # which MLflow's loaders take

    def fetch_model(self, uri: str, folder: Path) -> FetchedModel:
        """Copy a model's files into ``folder``, opening none of them; the digests come from the run's records.

        Raises
        ------
        ModelNotFound
            When nothing answers to ``uri``, which is ``runs:/<run_id>/<name>``.
        """
        with _errors_of_files():
            run_id, _, name = uri.removeprefix("runs:/").partition("/")
            recorded = is_id(run_id) and self._record_path(run_id).exists()
            model = read_state(self._record_path(run_id)).models.get(name) if recorded else None
            if model is None:
                raise ModelNotFound(f"there is no model {uri} in {self.path}")
            place = self._artifacts(run_id) / name
            for path in self._paths(run_id):
                if (file := self._artifacts(run_id) / path).is_relative_to(place):
                    copy(file, folder / file.relative_to(place))
            beside = files_beside(model, run_id=run_id)
            digests = {file.path: file.blob.sha256 for file in model.files}
            return FetchedModel(uri, folder, digests | {n: hashlib.sha256(c).hexdigest() for n, c in beside.items()})

    def load_code(self, fetched: FetchedModel, flavor: str) -> Any:
        """Load a fetched model, which may run any code that it brings along."""
        return load_code(fetched.folder, flavor)

    def begin_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Have the run running again."""
        with _errors_of_files():
            self._change(run_id, lambda file: file.begin(attempt))

    def attempt_starts(self, run_id: str) -> Sequence[int]:
        """When the attempts from the second on began."""
        with _errors_of_files():
            return sorted(self._known(run_id).read().attempts)

    def finish(self, run_id: str, status: EndStatus, ended_ms: int) -> None:
        """Set the ending."""
        with _errors_of_files():
            self._change(run_id, lambda file: file.add([RunEnd(status, ended_ms)]))

    def seal(self, run_id: str) -> None:
        """Add the run's line, unless nothing was added to the run since its last."""
        with _errors_of_files():
            marker = self._marker(run_id)
            self._files.pop(run_id, None)  # another machine may have added to the run meanwhile
            if marker.exists():
                with lock(self.folder / ".open"):
                    self._seal(self._known(run_id).read(), is_news=marker.exists() and marker.read_bytes() == _NEWS)
                    marker.unlink(missing_ok=True)
            self._files.pop(run_id, None)

    def close(self) -> None:
        """Nothing is held."""

    # -- reading runs --------------------------------------------------------------------------------------------------

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        """All runs, newest first; those that have no line yet, or an old one, as their records tell.

        Raises
        ------
        RunNotFound
            When there is no such experiment.
        """
        with _errors_of_files():
            runs = self._runs()
        found: Iterable[RunSummary] = runs.values()
        if experiment is not None:
            self._check_experiment(experiment, found)
            found = (run for run in found if run.experiment == experiment)
        if name is not None:
            found = (run for run in found if run.name == name)
        if prefix is not None:
            found = (run for run in found if run.id.startswith(prefix))
        yield from sorted(found, key=lambda run: run.started_ms, reverse=True)

    def read_run(self, run_id: str) -> RunDetails:
        """Everything of one run, contents of files excepted.

        Raises
        ------
        RunNotFound
            When there is no such run.

        Warns
        -----
        OvertWarning
            When something that was recorded of it can no longer be read.
        """
        with _errors_of_files():
            state, place = self.read_whole(run_id), self._artifacts(run_id)
            if state is None:
                return self._read_line_alone(run_id)
            return RunDetails(
                run=_summary(state),
                points=dict(Counter(point.name for point in iter_points(self._record_path(run_id)))),
                datasets=tuple(StoredDataset(d.name, d.digest, d.context, d.profile) for d in state.datasets),
                files=self._stored_files(run_id),
                models=tuple(
                    StoredModel(model.name, str(place / model.name), "READY", tuple(flavors_of(model)))
                    for model in state.models.values()
                ),
            )

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """Every point of one series; of a run that has a line and no records, its one value.

        Raises
        ------
        RunNotFound
            When there is no such run.
        """
        with _errors_of_files():
            yield from (point for point in self.iter_all_points(run_id) if point.name == name)

    def iter_all_points(self, run_id: str) -> Iterator[Metric]:
        """Every point of every series, in the order in which they were recorded.

        Raises
        ------
        RunNotFound
            When there is no such run.
        """
        with _errors_of_files():
            if self._record_path(run_id).exists():
                yield from iter_points(self._record_path(run_id))
            else:
                run = self._read_line_alone(run_id).run
                yield from (Metric(name, value, 0, run.started_ms) for name, value in run.metrics.items())

    def read_file(self, run_id: str, path: str) -> bytes:
        """Content of one artifact.

        Raises
        ------
        ArtifactNotFound
            When the run has none at ``path``.
        """
        with _errors_of_files():
            if path not in self._paths(run_id):
                raise ArtifactNotFound(f"run {run_id} has no file {path}")
            return (self._artifacts(run_id) / path).read_bytes()

    def has_records(self, run_id: str) -> bool:
        """Whether there is more of one run than a line."""
        return self._record_path(run_id).exists()

    def read_whole(self, run_id: str) -> RunState | None:
        """What the records of one run say together; None where it has a line alone, or they have no beginning.

        Warns
        -----
        OvertWarning
            When something that was recorded of it can no longer be read.
        """
        path = self._record_path(run_id)
        is_growing = self._marker(run_id).exists()  # then the last line may be half written at this moment
        try:
            state = read_state(path)
        except FileNotFoundError:
            if path.exists():
                warn(f"{path} {_NO_BEGINNING}, so of this run there is what its line says. {_COPY}")
            return None
        if state.n_damaged and not is_growing:
            warn(
                f"{state.n_damaged} line(s) of {path} cannot be read, so something that was recorded of this run is "
                f"missing: it was cut off or changed. {_COPY}"
            )
        return state

    def iter_records(self, run_id: str) -> Iterator[Record | SegmentHead]:
        """Everything that was recorded of one run, in its order; nothing for a run that has a line alone."""
        with _errors_of_files():
            if self._record_path(run_id).exists():
                yield from Lines(self._record_path(run_id))

    def iter_paths(self, run_id: str) -> Iterator[str]:
        """Paths of the files of one run."""
        with _errors_of_files():
            yield from self._paths(run_id)

    def iter_open(self) -> Iterator[str]:
        """Ids of the runs that have no line yet, or say more by now than their line."""
        yield from filter(is_id, _names_in(self.folder / "open"))

    # -- places --------------------------------------------------------------------------------------------------------

    def _record_path(self, run_id: str) -> Path:
        return self.folder / "records" / f"{_checked(run_id)}.jsonl"

    def _artifacts(self, run_id: str) -> Path:
        return self.folder / "artifacts" / _checked(run_id)

    def _marker(self, run_id: str) -> Path:
        return self.folder / "open" / _checked(run_id)

    def _paths(self, run_id: str) -> list[str]:
        """Its files, as paths below the folder of its artifacts; a link, which we make none of, leads nowhere."""
        place = self._artifacts(run_id)
        if place.is_symlink() or place.parent.is_symlink():  # os.walk follows the place that it begins at
            return []
        return sorted(
            Path(folder, name).relative_to(place).as_posix()
            for folder, _, names in os.walk(place)
            for name in names
            if not Path(folder, name).is_symlink() and not is_partial(name)
        )

    def _check_links(self) -> None:
        """Raise before anything is written behind a link: nothing would be found there again."""
        for name in FOLDERS:
            if (self.folder / name).is_symlink():
                raise StoreUnavailable(
                    f"{self.folder / name} is a link, and none is followed below the folder of a store: put the folder "
                    f"itself there, or have a link at {self.folder} instead"
                )

    def _stored_files(self, run_id: str) -> tuple[StoredFile, ...]:
        place = self._artifacts(run_id)
        return tuple(StoredFile(path, (place / path).stat().st_size) for path in self._paths(run_id))

    # -- one run -------------------------------------------------------------------------------------------------------

    def _file(self, run_id: str) -> RunFile:
        if run_id not in self._files:
            self._files[run_id] = RunFile(self._record_path(run_id))
        return self._files[run_id]

    def _known(self, run_id: str) -> RunFile:
        """The file of a run that was created."""
        file = self._file(run_id)
        if file.state is None and not file.path.exists():
            raise StoreRejected(f"no run {run_id!r} in {self.folder}: create_run comes first")
        return file

    def _open(self, run_id: str) -> None:
        self._marker(run_id).touch()

    def _change(self, run_id: str, change: Callable[[RunFile], object]) -> None:
        """Make a change, and note that the run's line may not tell of it, or, where it is known to be news, does not.

        The note is made first, since a change without it would never come to a line, and again afterwards, since
        another process may have sealed the run from what it had read before the change.
        """
        file = self._known(run_id)
        self._open(run_id)
        is_news = change(file)
        with lock(self.folder / ".open"):
            self._open(run_id)
            if is_news:
                self._marker(run_id).write_bytes(_NEWS)

    def _copy(self, source: Path, target: Path) -> None:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            copy(file, target / file.relative_to(source))

    def _copy_model(self, source: Path, target: Path, model: Model, file: RunFile) -> None:
        self._copy(source, target)
        file.add([model])

    def _seal(self, state: RunState, *, is_news: bool) -> None:
        line = to_line(state, self._paths(state.spec.key))
        with lock(self.folder / ".lock"):
            if is_news or not _is_last_line(line, self.lines):  # all lines are read only where a run was repeated
                append(self.lines, line, own=LINE_START)

    # -- all runs ------------------------------------------------------------------------------------------------------

    def _runs(self) -> dict[str, RunSummary]:
        open_ids = set(self.iter_open())  # first: a run that is sealed from now on has its line when these are read
        lines = self._lines()
        recorded = set(_names_in(self.folder / "records"))
        runs = _with_keys(lines, recorded)
        for run_id in open_ids | _without_line(lines, recorded):
            try:
                runs[run_id] = _summary(read_state(self._record_path(run_id)))
            except FileNotFoundError:
                if run_id not in runs and self._record_path(run_id).exists():  # else it is being created at this moment
                    warn(f"{self._record_path(run_id)} {_NO_BEGINNING}, so its run is left out. {_COPY}")
        return runs

    def _lines(self) -> Mapping[str, RunSummary]:
        return self._once(self.lines, lambda: {run.id: run for run in read_lines(self.lines)})

    def _once(self, path: Path, read: Callable[[], Mapping[str, RunSummary]]) -> Mapping[str, RunSummary]:
        """What a file says, read again only where it was changed or replaced: runs are often asked for one by one."""
        state = _state_of(path)
        if path not in self._read or self._read[path][0] != state:
            self._read[path] = state, read()
        return self._read[path][1]

    def _line_alone(self, run_id: str) -> RunSummary | None:
        return self._lines().get(run_id)

    def _check_experiment(self, name: str, runs: Iterable[RunSummary]) -> None:
        known = sorted({run.experiment for run in runs})
        if name not in known:
            listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise RunNotFound(f"there is no experiment {name!r} in {self.path}; there is {listed or 'none'}")

    def _read_line_alone(self, run_id: str) -> RunDetails:
        """A run that has a line and no records: the source document's own tracker wrote it."""
        run = self._line_alone(run_id)
        if run is None:
            raise RunNotFound(f"there is no run {run_id} in {self.path}")
        run = replace(run, key=None)  # there are no records that a resumed run could go on with
        return RunDetails(run, dict.fromkeys(run.metrics, 1), (), self._stored_files(run_id), ())


@contextmanager
def _errors_of_files() -> Iterator[None]:
    """An error of the file system as what it means to delivery: this record's own fault, or try again later."""
    try:
        yield
    except OvertError:
        raise
    except OSError as error:
        text = f"{error.filename or 'a file'}: {error.strerror or error}"
        if error.errno in _REFUSED_BY_THE_FILE_SYSTEM:
            raise StoreRejected(text) from error
        raise StoreUnavailable(text) from error


def read_lines(path: Path) -> Iterator[RunSummary]:
    """The runs that the lines of a file are about, in its order; one warning for all lines that are about none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield from_line(line)
            except NotARun as error:
                bad.append((number, str(error)))
    if bad:
        number, reason = bad[0]
        others = f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
        warn(
            f"line {number} of {path} is left out, since it is no run: {reason}{others}. A line that was cut off goes "
            "when the next run is recorded there; any other is yours to mend or remove"
        )


def _is_last_line(line: bytes, path: Path) -> bool:
    """Whether ``line`` is the last of its run that overt wrote; budget: 3 ms for ten thousand lines."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    at = content.rfind(line[: line.index(b",") + 1])  # its id
    return at >= 0 and content.startswith(line, at)


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What is another once the file was changed or replaced; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _names_in(folder: Path) -> list[str]:
    """What is in a folder; nothing in one that the document's own tracker has not made."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _with_keys(runs: Mapping[str, RunSummary], recorded: Set[str]) -> dict[str, RunSummary]:
    """``runs``, without a key where there are no records that a resumed run could go on with."""
    return {
        run_id: run if run.key is None or f"{run_id}.jsonl" in recorded else replace(run, key=None)
        for run_id, run in runs.items()
    }


def _without_line(runs: Mapping[str, RunSummary], recorded: Set[str]) -> set[str]:
    """Ids of runs that have records and no line: somebody cut it off or took it away, and the records tell the same.

    Budget: 1 us a run, since a store may hold ten thousand; so ids are looked at only where there is no line.
    """
    names = recorded - {f"{run_id}.jsonl" for run_id in runs}
    return set(filter(is_id, (name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))))


def _summary(state: RunState) -> RunSummary:
    spec = state.spec
    return RunSummary(
        id=spec.key,
        name=spec.name,
        experiment=spec.experiment,
        status=state.status,
        started_ms=spec.started_ms,
        ended_ms=state.ended_ms,
        key=spec.key,
        metrics={name: point.value for name, point in state.last.items()},
        params=state.params,
        tags=state.tags,
    )


def _checked(run_id: str) -> str:
    """``run_id`` as part of a path; ids come from files and command lines."""
    if not is_id(run_id):
        raise RunNotFound(f"no run has such an id: {run_id!r}")
    return run_id


def _conforms(store: JsonlStore) -> tuple[Store, ModelStore, ModelSource, ResumableStore, SealableStore, QueryStore]:
    return store, store, store, store, store, store
