from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from overt.delivery.messages import Delivered, Watch, from_line
from overt.delivery.supervisor import CourierProcess, Deliveries

NO_PROCESS = 2**31 - 1


class Played(CourierProcess):
    """Couriers are played by the test, which holds the other ends of their pipes."""

    def __init__(self, log: Path) -> None:
        super().__init__(Deliveries(lambda trouble: None), lambda reason: None, log=log)
        self.started = threading.Semaphore(0)
        self.theirs: list[tuple[int, int]] = []
        self.is_over = False

    def _start(self) -> tuple[int, int, int]:
        if self.is_over:
            raise OSError("the test is over")
        their_inbox, inbox = os.pipe()
        outbox, their_outbox = os.pipe()
        self.theirs.append((their_inbox, their_outbox))
        self.started.release()
        return NO_PROCESS, inbox, outbox


@pytest.mark.timeout(20)
def test_what_is_said_to_a_new_courier_never_goes_to_the_dead_one(tmp_path: Path) -> None:
    """The dead one's pipe is held open by somebody else, so its feeder does not notice that nobody reads."""
    courier = Played(tmp_path / "courier.log")
    courier.watch(Watch("first", "store", False))
    assert courier.started.acquire(timeout=5)
    dead_inbox, dead_outbox = courier.theirs[0]
    assert from_line(os.read(dead_inbox, 65536)) == Watch("first", "store", False)
    os.close(dead_outbox)  # its death, as the supervisor sees it
    assert courier.started.acquire(timeout=5)
    inbox, outbox = courier.theirs[1]
    for number in range(20):
        courier.watch(Watch(str(number), "store", False))
        # with one queue for both, the dead one's feeder has waited longest, and takes it
        assert select.select([inbox], [], [], 5)[0], "the living one never heard of it"
        assert from_line(os.read(inbox, 65536)) == Watch(str(number), "store", False)
    courier.is_over = True
    for descriptor in (outbox, dead_inbox, inbox):
        os.close(descriptor)


def test_a_new_courier_does_not_capture_again_what_the_dead_one_has_captured(tmp_path: Path) -> None:
    """The code may have been edited since the run started."""
    deliveries = Deliveries(lambda trouble: None)
    for key in ("captured", "not captured", "not heard of"):
        deliveries.add(Watch(str(tmp_path / key), "store", launch={"cwd": "/"}))
    for key in ("captured", "not captured"):
        deliveries.hear(Delivered(key, "id", captured=key == "captured"))
    launches = {Path(watch.folder).name: watch.launch for watch in deliveries.unfinished_watches()}
    assert launches == {"captured": None, "not captured": {"cwd": "/"}, "not heard of": {"cwd": "/"}}


def test_a_journal_that_is_just_being_removed_has_arrived_only_when_the_courier_says_so(tmp_path: Path) -> None:
    deliveries = Deliveries(lambda trouble: None)
    folder = tmp_path / "key"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"0123456789")
    deliveries.add(Watch(str(folder), "store", False))
    deliveries.hear(Delivered("key", "1", {"journal.jsonl": 5}))
    (folder / "journal.jsonl").unlink()
    assert deliveries.undelivered() == [folder]
    folder.rmdir()
    assert deliveries.undelivered() == [folder]
    deliveries.hear(Delivered("key", "1", {"journal.jsonl": 10}, {"model": "models:/m"}, removed=True))
    assert deliveries.undelivered() == []


def test_whoever_waits_for_many_runs_looks_at_one_journal_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = Deliveries(lambda trouble: None)
    for key in ("delivered", "first", "second", "third"):
        folder = tmp_path / key
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"0123456789")
        deliveries.add(Watch(str(folder), "store", False))
        deliveries.hear(Delivered(key, "1", {"journal.jsonl": 10 if key == "delivered" else 5}))
    looked_at = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looked_at.append(folder) or scandir(folder))
    assert not deliveries.have_arrived()
    assert [folder.name for folder in looked_at] == ["delivered", "first"]
    assert deliveries.have_arrived(["delivered"])


def test_the_log_is_opened_in_a_folder_that_is_removed_between_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / ".overt" / "courier.log"
    courier = CourierProcess(Deliveries(lambda trouble: None), lambda reason: None, log=log)
    make, removed = Path.mkdir, []

    def make_and_lose(self: Path, *args: object, **keywords: object) -> None:
        make(self, *args, **keywords)  # type: ignore[arg-type]
        if not removed:
            removed.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", make_and_lose)
    os.close(courier._open_log())
    assert removed == [log.parent]
    assert log.exists()
