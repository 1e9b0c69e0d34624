from __future__ import annotations

import os
from pathlib import Path

import pytest

from overt.delivery import courier as courier_module
from overt.delivery.courier import Courier
from overt.delivery.messages import Watch
from overt.errors import StoreUnavailable
from overt.journal.codec import encode
from overt.journal.folder import run_folder
from overt.journal.writer import JournalWriter
from overt.records import Metric, RunEnd, RunSpec, Seal
from overt.stores.memory import MemoryStore


class HalfAway(MemoryStore):
    """Away for one run and there for the others."""

    def create_run(self, spec: RunSpec) -> str:
        if spec.name == "troubled":
            raise StoreUnavailable("500")
        return super().create_run(spec)


def test_a_run_whose_own_trouble_looks_like_the_stores_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "LINGER_S", 4.0)
    store = HalfAway()
    outbox = os.open(os.devnull, os.O_WRONLY)
    courier = Courier(os.getpid(), inbox=-1, outbox=outbox)
    courier._stores["http://store"] = store
    for number, name in enumerate(("troubled", "fine")):
        spec = RunSpec(f"{number:032x}", name, "Default", 1_700_000_000_000)
        folder = run_folder(tmp_path / ".overt", spec.key)
        writer = JournalWriter(folder, spec)
        for record in (Metric("x", 1.0, 0, 1), RunEnd("FINISHED", 1_700_000_000_009), Seal()):
            writer.append(encode(record))
        writer.close()
        courier._obey(Watch(str(folder), "http://store"))
    courier._parent_gone.set()
    courier._deliver_until_done()
    os.close(outbox)
    assert [run.status for run in store.runs.values()] == ["FINISHED"]
