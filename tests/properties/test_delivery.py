"""Whatever a store and its deliverers do to each other, what arrives in the end is the run, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overt.delivery import deliver as deliver_module
from overt.delivery.deliver import RunDelivery
from overt.errors import StoreUnavailable
from overt.journal.codec import encode
from overt.journal.folder import DELIVERED, run_folder
from overt.journal.reader import read_batch
from overt.journal.writer import JournalWriter
from overt.records import Artifact, Dataset, Metric, Param, RunEnd, RunSpec, Seal, Tag
from overt.stores.memory import MemoryRun, MemoryStore
from overt.testing import FlakyStore

T = TypeVar("T")
SPEC = RunSpec("cd" * 16, "a run", "Default", 1_700_000_000_000, tags={"from": "start"})
NAME = st.sampled_from(["a", "b", "c"])
VALUE = st.sampled_from(["1", "2", "3"])
FLOAT = st.sampled_from([0.5, 1.5, float("nan"), float("inf")])
RECORDS = st.lists(
    st.builds(Metric, NAME, FLOAT, st.integers(0, 3), st.integers(1, 3))
    | st.builds(Param, NAME, VALUE)
    | st.builds(Tag, NAME, VALUE)
    | st.builds(Dataset, NAME, VALUE, NAME, *[st.just("{}")] * 4)
    | st.tuples(NAME, VALUE),  # a file
    min_size=1,
    max_size=14,
)
Event = Literal["none", "unavailable", "after_effect", "die_before", "die_after", "forget"]
EVENTS = st.lists(
    st.sampled_from(["none", "none", "unavailable", "after_effect", "die_before", "die_after"]), max_size=25
)


class Died(BaseException):
    """The deliverer was killed: nothing of it runs on."""


class MortalStore(FlakyStore):
    """A flaky store that also kills who calls it, before or after the work."""

    def __init__(self, store: MemoryStore, events: list[Event]) -> None:
        super().__init__(store)
        self._events = iter(events)

    def _meet(self, verb: str, work: Callable[[], T], culprit: object = None) -> T:
        event = next(self._events, "none")
        if event == "die_before":
            raise Died
        if event == "unavailable":
            raise StoreUnavailable(verb)
        result = work()
        if event == "die_after":
            raise Died
        if event == "after_effect":
            raise StoreUnavailable(verb)
        return result


def write(folder: Path, items: list[Any], *, segment: str | None = None) -> None:
    writer = JournalWriter(folder, SPEC, **({"segment": segment} if segment else {}))
    for item in items:
        is_file = isinstance(item, tuple)
        writer.append(encode(Artifact(item[0], writer.store_bytes(item[1].encode())) if is_file else item))
    writer.close()


def finally_deliver(folder: Path, store: Any, *, restart: list[bool]) -> RunDelivery:
    """Deliver until nothing is left, as one deliverer or, after a death or where told, as a new one."""
    restarts = iter(restart)
    delivery = None
    for _ in range(200):
        if delivery is None or next(restarts, False):
            delivery = new(folder, store)
        try:
            delivery.deliver()
            return delivery
        except StoreUnavailable:
            continue
        except Died:
            delivery = None
    raise AssertionError("it never ends")


def new(folder: Path, store: Any) -> RunDelivery:
    return RunDelivery(folder, store, store_name="store", draw=lambda kind, data: b"")


def plain(run: MemoryRun) -> dict[str, Any]:
    history = sorted(map(repr, run.history))
    return {
        "history": history,
        "params": run.params,
        "tags": run.tags,
        "datasets": sorted(map(repr, run.datasets)),
        "artifacts": run.artifacts,
        "status": run.status,
        "ended_ms": run.ended_ms,
    }


@settings(max_examples=150)
@given(RECORDS, RECORDS, EVENTS, st.lists(st.booleans(), max_size=20), st.booleans(), st.integers(1, 4))
def test_any_faults_and_deaths_change_nothing_of_what_arrives(
    tmp_path_factory: pytest.TempPathFactory,
    main: list[Any],
    further: list[Any],
    events: list[Event],
    restart: list[bool],
    forget: bool,
    batch: int,
) -> None:
    folder = run_folder(tmp_path_factory.mktemp("delivery") / ".overt", SPEC.key)
    write(folder, [*main, RunEnd("FAILED", 1_700_000_000_009), Seal()])
    write(folder, further, segment="journal.2-aa.jsonl")
    expected, arrived = MemoryStore(), MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver_module, "read_batch", partial(read_batch, most_records=batch))
        finally_deliver(folder, expected, restart=[])
        (folder / DELIVERED).unlink()
        finally_deliver(folder, MortalStore(arrived, events), restart=restart)
        if forget:  # delivered.json lost: everything is delivered once more
            (folder / DELIVERED).unlink()
            finally_deliver(folder, MortalStore(arrived, events), restart=restart)
        assert plain(arrived.runs[SPEC.key]) == plain(expected.runs[SPEC.key])
        last = new(folder, arrived)
        last.deliver()
        assert last.remove_if_safe(is_over=False)
    assert not folder.exists()


@settings(max_examples=60)
@given(RECORDS, st.integers(0, 20), st.integers(1, 4))
def test_a_journal_delivered_while_it_grows_arrives_whole(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], torn_at: int, batch: int
) -> None:
    folder = run_folder(tmp_path_factory.mktemp("growing") / ".overt", SPEC.key)
    whole, grown = MemoryStore(), MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver_module, "read_batch", partial(read_batch, most_records=batch))
        delivery = None
        for item in items:
            write(folder, [item])
            path = folder / "journal.jsonl"
            content = path.read_bytes()
            path.write_bytes(content[: len(content) - torn_at])  # caught in the middle of a write
            delivery = delivery or new(folder, grown)
            delivery.deliver()
            assert not (torn_at and delivery.is_complete)
            path.write_bytes(content)
        assert delivery is not None
        delivery.deliver()
        assert delivery.is_complete
        RunDelivery(folder, whole, store_name="other", draw=lambda kind, data: b"").deliver()
    assert plain(grown.runs[SPEC.key]) == plain(whole.runs[SPEC.key])
    assert delivery.progress.bad_lines == 0
    assert replace(SPEC) == grown.runs[SPEC.key].spec
