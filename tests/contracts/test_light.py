"""The contract on plain files: a folder of JSON lines, and a table. Read back as a stranger would, from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from overt.stores.csv import CsvStore
from overt.stores.jsonl import PARENT_TAG, JsonlStore
from overt.stores.runfile import DRIFT, iter_points, read_state
from overt.testing import StoreContract, StoredPoint, StoredRun


class LightContract(StoreContract):
    def read(self, store: JsonlStore, run_id: str) -> StoredRun:
        path = store.folder / "records" / f"{run_id}.jsonl"
        state = read_state(path)
        place = store.folder / "artifacts" / run_id
        tags = {name: text for name, text in state.tags.items() if name != PARENT_TAG}
        return StoredRun(
            name=state.spec.name,
            experiment=state.spec.experiment,
            status=state.status,
            started_ms=state.spec.started_ms,
            ended_ms=state.ended_ms,
            params=state.params,
            drifted={name.removeprefix(DRIFT): text for name, text in tags.items() if name.startswith(DRIFT)},
            tags=tags,
            points=tuple(StoredPoint(p.name, p.step, p.time_ms, p.value) for p in iter_points(path)),
            artifacts={
                file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()
            },
            datasets=frozenset((data.name, data.digest, data.context) for data in state.datasets),
            models={name: str(place / name) for name in state.models},
            parent_id=state.tags.get(PARENT_TAG),
        )


class TestJsonl(LightContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> JsonlStore:
        return JsonlStore(tmp_path / "experiments")

    def reopened(self, store: JsonlStore) -> JsonlStore:  # type: ignore[override]
        return JsonlStore(store.folder)


class TestCsv(LightContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> CsvStore:
        return CsvStore(tmp_path / "experiments.csv")

    def reopened(self, store: CsvStore) -> CsvStore:  # type: ignore[override]
        return CsvStore(store.path)
