"""Runs held in this process: for tests, and as the shortest complete reading of the store contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overt.errors import StoreRejected
from overt.records import Attempt, Batchable, Dataset, EndStatus, Figure, Metric, Model, Param, RunSpec, Status, Tag
from overt.stores.protocols import ModelStore, ResumableStore, Store


@dataclass(slots=True)
class MemoryRun:
    """One run, as plain Python.

    Attributes
    ----------
    metrics : dict
        Last value of each metric; ``history`` has every point as a :class:`~overt.records.Metric`.
    artifacts : dict
        Path to content.
    figures : dict
        Pictures that were recorded and, in :func:`overt.testing.captured_runs`, not drawn.
    attempts : list of Attempt
        Those from the second on: how often the run was resumed.
    """

    id: str
    spec: RunSpec
    status: Status = "RUNNING"
    ended_ms: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[Metric] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    points: set[tuple[str, int, int, str]] = field(default_factory=set, repr=False)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.spec.name

    @property
    def experiment(self) -> str:
        """The run's experiment."""
        return self.spec.experiment


class MemoryStore:
    """A store whose runs are gone with the process."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}

    def create_run(self, spec: RunSpec) -> str:
        """Create the run; its id is its key, or the id of the run it was asked to join."""
        run_id = spec.joined_run_id or spec.key
        if run_id not in self.runs:
            self.runs[run_id] = MemoryRun(run_id, spec, tags=dict(spec.tags))
        return run_id

    def log_batch(self, run_id: str, records: Sequence[Batchable]) -> None:
        """Add records; a changed param becomes the tag ``param_drift.<name>``, as in MLflow."""
        run = self._run(run_id)
        for record in records:
            match record:
                case Metric():
                    point = (record.name, record.step, record.time_ms, repr(record.value))  # NaN equals NaN as text
                    if point not in run.points:
                        run.points.add(point)
                        run.history.append(record)
                    run.metrics[record.name] = record.value
                case Param():
                    if run.params.setdefault(record.name, record.value) != record.value:
                        run.tags[f"param_drift.{record.name}"] = record.value
                case Tag():
                    run.tags[record.name] = record.value
                case Dataset():
                    if record not in run.datasets:
                        run.datasets.append(record)

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Add every file below ``folder``."""
        run = self._run(run_id)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            run.artifacts[file.relative_to(folder).as_posix()] = file.read_bytes()

    def log_model(self, run_id: str, model: Model, folder: Path) -> str:
        """Add a model's files below its name."""
        run = self._run(run_id)
        run.models[model.name] = model
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            run.artifacts[f"{model.name}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
        return f"memory:/{run_id}/{model.name}"

    def is_running(self, run_id: str) -> bool:
        """Whether the run has not ended yet."""
        return self._run(run_id).status == "RUNNING"

    def begin_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Have the run running again."""
        run = self._run(run_id)
        if attempt not in run.attempts:
            run.attempts.append(attempt)
        run.status, run.ended_ms = "RUNNING", None

    def attempt_starts(self, run_id: str) -> Sequence[int]:
        """When the attempts from the second on began."""
        return [attempt.started_ms for attempt in self._run(run_id).attempts]

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """Every point of one series."""
        return (point for point in list(self._run(run_id).history) if point.name == name)

    def finish(self, run_id: str, status: EndStatus, ended_ms: int) -> None:
        """Set the ending."""
        run = self._run(run_id)
        run.status, run.ended_ms = status, ended_ms

    def close(self) -> None:
        """Nothing is held."""

    def _run(self, run_id: str) -> MemoryRun:
        try:
            return self.runs[run_id]
        except KeyError as error:
            raise StoreRejected(f"no run {run_id!r} in this store: create_run comes first") from error


_: Store = MemoryStore()
_models: ModelStore = MemoryStore()
_resumable: ResumableStore = MemoryStore()
