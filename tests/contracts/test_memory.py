from __future__ import annotations

import pytest

from overt.stores.memory import MemoryStore
from overt.testing import FlakyStore, StoreContract, StoredPoint, StoredRun


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def read(self, store: MemoryStore | FlakyStore, run_id: str) -> StoredRun:
        memory = store.store if isinstance(store, FlakyStore) else store
        assert isinstance(memory, MemoryStore)
        run = memory.runs[run_id]
        mark = "param_drift."
        return StoredRun(
            name=run.name,
            experiment=run.experiment,
            status=run.status,
            started_ms=run.spec.started_ms,
            ended_ms=run.ended_ms,
            params=dict(run.params),
            drifted={name.removeprefix(mark): text for name, text in run.tags.items() if name.startswith(mark)},
            tags=dict(run.tags),
            points=tuple(StoredPoint(p.name, p.step, p.time_ms, p.value) for p in run.history),
            artifacts=dict(run.artifacts),
            datasets=frozenset((data.name, data.digest, data.context) for data in run.datasets),
            models={name: f"memory:/{run_id}/{name}" for name in run.models},
            parent_id=run.spec.parent_key,
        )


class TestFlakyStoreWithoutFaults(TestMemoryStore):
    """A wrapper with an empty plan is the store that it wraps."""

    @pytest.fixture
    def store(self) -> FlakyStore:  # type: ignore[override]
        return FlakyStore(MemoryStore())
