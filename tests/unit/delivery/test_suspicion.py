from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from overt.delivery import suspicion
from overt.delivery.deliver import RunDelivery
from overt.delivery.sync import sync
from overt.errors import StoreUnavailable
from overt.journal.codec import encode
from overt.journal.folder import MAIN_SEGMENT, REJECTED, run_folder
from overt.journal.writer import JournalWriter
from overt.records import Artifact, Metric, Param, Record, RunEnd, RunSpec, Seal, Tag
from overt.stores.memory import MemoryStore

KEY = "ab" * 16
SPEC = RunSpec(KEY, "a run", "Default", 1_700_000_000_000)
END = RunEnd("FINISHED", 1_700_000_000_009)


class Choking(MemoryStore):
    """Raises what a store raises when it does not know what happened: at what is called cursed, or while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cursed = True
        self.away: set[str] = set()
        self.calls: list[str] = []

    def _meet(self, verb: str, *names: str) -> None:
        self.calls.append(verb)
        if verb in self.away:
            raise StoreUnavailable("503")
        if self.is_cursed and any("cursed" in name for name in names):
            raise StoreUnavailable("500")

    def log_batch(self, run_id: str, records: Any) -> None:
        self._meet("log_batch", *(record.name for record in records))
        super().log_batch(run_id, records)

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        self._meet("log_artifacts", *(path.name for path in folder.rglob("*")))
        super().log_artifacts(run_id, folder)

    def log_model(self, run_id: str, model: Any, folder: Path) -> str:
        self._meet("log_model", model.name)
        return super().log_model(run_id, model, folder)

    def finish(self, run_id: str, status: Any, ended_ms: int) -> None:
        self._meet("finish", "cursed" if "finish" in self.runs[run_id].tags else "")
        super().finish(run_id, status, ended_ms)

    def probe(self) -> None:
        self._meet("probe")

    def probe_run(self, run_id: str, *, with_file: bool = False) -> None:
        self._meet("probe file" if with_file else "probe")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspicion, "PAUSE_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / ".overt", KEY)


def write(folder: Path, *records: Record | bytes) -> None:
    writer = JournalWriter(folder, SPEC)
    for record in records:
        writer.append(encode(record))
    writer.close()


def new(folder: Path, store: Any) -> RunDelivery:
    return RunDelivery(folder, store, store_name="store", draw=lambda kind, data: b"picture")


def metric(number: int, name: str = "x") -> Metric:
    return Metric(name, float(number), number, 1)


@pytest.mark.parametrize("poison", [metric(5, "cursed"), Param("cursed", "1"), Tag("cursed", "1")], ids=type)
def test_one_record_that_the_store_chokes_on_is_set_aside_and_the_rest_arrives_in_order(
    folder: Path, poison: Record
) -> None:
    tags = [Tag("newest", str(number)) for number in range(20)]
    write(folder, *map(metric, range(20)), *tags[:10], poison, *tags[10:], Param("lr", "1"), END, Seal())
    store = Choking()
    delivery = new(folder, store)
    delivery.deliver()
    run = store.runs[KEY]
    assert [point.step for point in run.history] == list(range(20))
    assert (run.tags, run.params, run.status) == ({"newest": "19"}, {"lr": "1"}, "FINISHED")
    (line,) = (folder / REJECTED).read_text().splitlines()
    assert json.loads(json.loads(line)["line"])["name"] == "cursed"
    assert delivery.progress.rejected == 1
    assert ["500 (3 times, while the store took other things)" in problem for problem in delivery.problems] == [True]
    assert not delivery.remove_if_safe(is_over=True)


def test_a_file_that_the_store_chokes_on_is_set_aside_and_the_others_arrive(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    for path in ("a", "b", "cursed", "c", "d"):
        writer.append(encode(Artifact(path, writer.store_bytes(path.encode()))))
    writer.append(encode(END))
    store = Choking()
    delivery = new(folder, store)
    delivery.deliver()
    assert store.runs[KEY].artifacts.keys() == {"a", "b", "c", "d"}
    assert store.runs[KEY].status == "FINISHED"
    assert delivery.progress.rejected == 1


def test_an_ending_that_the_store_chokes_on_is_set_aside_and_comes_with_a_later_sync(folder: Path) -> None:
    write(folder, Tag("finish", "cursed"), END, metric(0), Seal())
    store = Choking()
    store.is_cursed = False
    store.create_run(SPEC)
    store.log_batch(KEY, [Tag("finish", "cursed")])
    store.is_cursed = True
    delivery = new(folder, store)
    delivery.progress.run_id = KEY
    delivery.deliver()
    assert (store.runs[KEY].status, store.runs[KEY].metrics) == ("RUNNING", {"x": 0.0})
    store.is_cursed = False
    again = new(folder, store)
    again.begin_again_if_refused()
    again.deliver()
    assert store.runs[KEY].status == "FINISHED"
    assert again.remove_if_safe(is_over=True)


@pytest.mark.parametrize("away", [{"log_batch", "probe"}, {"log_batch", "probe", "probe file", "finish"}])
def test_a_store_that_takes_nothing_leads_to_no_rejection(folder: Path, away: set[str]) -> None:
    write(folder, *map(metric, range(5)), END, Seal())
    store = Choking()
    store.away = away
    delivery = new(folder, store)
    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            delivery.deliver()
    assert (delivery.progress.rejected, delivery.problems) == (0, [])
    assert not (folder / REJECTED).exists()
    store.away = set()
    delivery.deliver()
    assert len(store.runs[KEY].history) == 5


def test_files_that_lie_elsewhere_than_records_are_proved_by_a_file(folder: Path) -> None:
    """Object storage is away while the database answers."""
    writer = JournalWriter(folder, SPEC)
    writer.append(encode(Artifact("a", writer.store_bytes(b"a"))))
    store = Choking()
    store.away = {"log_artifacts", "probe file"}
    delivery = new(folder, store)
    with pytest.raises(StoreUnavailable):
        delivery.deliver()
    assert delivery.progress.rejected == 0


def test_a_store_that_comes_back_between_two_attempts_loses_nothing(folder: Path) -> None:
    write(folder, metric(0), END)

    class Returning(Choking):
        def probe_run(self, run_id: str, *, with_file: bool = False) -> None:
            self.away = set()  # back right after the failure that is being looked into
            super().probe_run(run_id, with_file=with_file)

    store = Returning()
    store.away = {"log_batch"}
    delivery = new(folder, store)
    delivery.deliver()
    assert (store.runs[KEY].metrics, delivery.progress.rejected) == ({"x": 0.0}, 0)


def test_where_everything_fails_but_the_proof_it_is_taken_for_the_stores_trouble(folder: Path) -> None:
    write(folder, *map(metric, range(200)))
    store = Choking()
    store.away = {"log_batch"}
    delivery = new(folder, store)
    with pytest.raises(StoreUnavailable):
        delivery.deliver()
    assert delivery.progress.rejected == suspicion.MOST_IN_A_ROW


def test_a_store_that_cannot_prove_that_it_works_is_never_given_up_on(folder: Path) -> None:
    write(folder, metric(0, "cursed"))
    delivery = RunDelivery(folder, WithoutProbe(), store_name="store", draw=lambda kind, data: b"")
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            delivery.deliver()
    assert delivery.progress.rejected == 0


class WithoutProbe(MemoryStore):
    def log_batch(self, run_id: str, records: Any) -> None:
        raise StoreUnavailable("500")


# -- what was refused is tried again ---------------------------------------------------------------------------------


def died(folder: Path) -> None:
    """As if the process that wrote the journal, which is this one, were gone."""
    segment = folder / MAIN_SEGMENT
    segment.write_text(segment.read_text().replace(f'"pid":{os.getpid()}', f'"pid":{2**22 + 1}'))


def synced(folder: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("overt.delivery.sync.open_store", lambda uri: store)
    died(folder)
    (outcome,) = sync(folder, store_of=lambda spec: "http://store")
    return outcome


def test_what_was_refused_is_tried_again_at_each_sync_and_the_journal_goes_when_all_has_arrived(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, Tag("a", "old"), Tag("cursed", "1"), Tag("a", "new"), metric(1), END, Seal())
    store = Choking()
    for _ in range(2):
        outcome = synced(folder, store, monkeypatch)
        assert "tag cursed was refused" in outcome.problem
        assert len((folder / REJECTED).read_text().splitlines()) == 1  # said again, kept once
    store.is_cursed = False
    outcome = synced(folder, store, monkeypatch)
    assert (outcome.problem, outcome.delivered, outcome.sent) == ("", True, True)
    run = store.runs[KEY]
    assert run.tags == {"a": "new", "cursed": "1"}
    assert len(run.history) == 1
    assert not folder.exists()


def test_what_another_store_refused_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, Tag("cursed", "1"), END, Seal())
    other = json.dumps({"store": "other", "reason": "no", "line": "{}"})
    (folder / REJECTED).write_text(f"{other}\nnot JSON\n")
    store = Choking()
    synced(folder, store, monkeypatch)
    synced(folder, store, monkeypatch)
    lines = (folder / REJECTED).read_text().splitlines()
    assert lines[:2] == [other, "not JSON"]
    assert len(lines) == 3


@pytest.mark.parametrize("spoil", ["link", "folder", "fifo", "nonsense"])
def test_a_strangers_list_of_refusals_is_not_written_through_and_not_waited_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    write(folder, metric(0), END, Seal())
    store = Choking()
    delivery = new(folder, store)
    delivery.deliver()
    delivery.progress.rejected = 1
    delivery._store_name = "http://store"
    delivery._save()
    path = folder / REJECTED
    if spoil == "link":
        path.symlink_to(victim)
    elif spoil == "folder":
        path.mkdir()
    elif spoil == "fifo":
        os.mkfifo(path)
    else:
        path.write_text('[]\n{"store": "http://store", "line": 5}\n{"store": "http://store"}\n\x00\n')
    outcome = synced(folder, store, monkeypatch)
    assert outcome.delivered
    assert victim.read_text() == "precious\n"
    assert store.runs[KEY].metrics == {"x": 0.0}
