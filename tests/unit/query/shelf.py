"""A store that can only list: what any other than MLflow's is to a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overt.errors import ArtifactNotFound, RunNotFound
from overt.records import Metric, RunDetails, RunSummary, StoredDataset, StoredFile
from overt.stores.protocols import QueryStore, SearchStore


class Shelf:
    """Runs in memory, newest first; ``files`` and ``datasets`` by run id."""

    def __init__(
        self,
        *runs: RunSummary,
        files: Mapping[str, Mapping[str, bytes]] | None = None,
        datasets: Mapping[str, list[StoredDataset]] | None = None,
    ) -> None:
        self.runs = sorted(runs, key=lambda run: -run.started_ms)
        self.files = files or {}
        self.datasets = datasets or {}

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        if experiment is not None and experiment not in {run.experiment for run in self.runs}:
            raise RunNotFound(f"there is no experiment {experiment!r}")
        for run in self.runs:
            if experiment in (None, run.experiment) and name in (None, run.name) and run.id.startswith(prefix or ""):
                yield run

    def read_run(self, run_id: str) -> RunDetails:
        found = next(run for run in self.runs if run.id == run_id)
        files = tuple(StoredFile(path, len(content)) for path, content in self.files.get(run_id, {}).items())
        return RunDetails(found, dict.fromkeys(found.metrics, 1), tuple(self.datasets.get(run_id, ())), files, ())

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        run = self.read_run(run_id).run
        return iter([Metric(name, run.metrics[name], 0, 0)] if name in run.metrics else [])

    def read_file(self, run_id: str, path: str) -> bytes:
        try:
            return self.files[run_id][path]
        except KeyError as error:
            raise ArtifactNotFound(path) from error


_: QueryStore = Shelf()
assert not isinstance(Shelf(), SearchStore)


def run(run_id: str, started_ms: int = 1, experiment: str = "e", **of: object) -> RunSummary:
    return RunSummary(run_id, f"name-{run_id}", experiment, "FINISHED", started_ms, **of)  # type: ignore[arg-type]
