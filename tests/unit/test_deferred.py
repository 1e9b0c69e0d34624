"""Tensors recorded as metrics: no device is waited for while training, and no value is another than was recorded."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import overt
from overt import clock
from overt.deferred import MOST_WAITING, Shelf, read_together
from overt.errors import RecordError
from overt.records import Metric
from overt.stores.memory import MemoryRun
from overt.tracker import Tracker

torch = pytest.importorskip("torch")


@pytest.fixture
def stored() -> Iterator[MemoryRun]:
    with overt.testing.captured_runs() as runs, overt.start_run("mine"):
        yield runs[0]


@pytest.fixture
def run(stored: MemoryRun) -> overt.Run:
    found = overt.current_run()
    assert found is not None
    assert found.key == stored.spec.key
    return found


def points(stored: MemoryRun, name: str) -> list[Metric]:
    return [point for point in stored.history if point.name == name]


@contextmanager
def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every way in which Python reads a tensor, by name."""
    reads: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("item", "cpu", "tolist", "numpy", "__float__", "__int__", "__bool__", "__array__"):
            real = getattr(torch.Tensor, name)

            def read(self: Any, *args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
                reads.append(_name)
                return _real(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, read)
        yield reads


def test_no_device_is_read_between_flushes_and_one_transfer_reads_them_all(
    run: overt.Run, stored: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted_reads(monkeypatch) as reads:
        for step in range(500):
            run.log_metric("loss", torch.tensor(1.0 / (step + 1), requires_grad=True), step=step)
            run.log_metrics({"other": torch.tensor([float(step)])}, step=step)
        assert reads == []
        run.flush()
        assert reads == ["cpu", "tolist"]
    assert [(p.step, p.value) for p in points(stored, "loss")] == [
        (step, torch.tensor(1.0 / (step + 1)).double().item()) for step in range(500)
    ]
    assert [p.value for p in points(stored, "other")] == list(map(float, range(500)))


def test_a_tensor_that_is_written_to_afterwards_was_recorded_as_it_was(run: overt.Run, stored: MemoryRun) -> None:
    total = torch.zeros(())
    for _ in range(3):
        total += 1
        run.log_metric("total", total)
    run.flush()
    assert [p.value for p in points(stored, "total")] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor(0.1), 0.10000000149011612),
        (torch.tensor(0.1, dtype=torch.float64), 0.1),
        (torch.tensor(0.1, dtype=torch.bfloat16), 0.10009765625),
        (torch.tensor(7), 7.0),
        (torch.tensor(True), 1.0),
        (torch.tensor([[2.5]]), 2.5),
        (torch.tensor(math.inf), math.inf),
    ],
)
def test_a_value_is_widened_to_float64_and_no_more(
    tensor: Any, expected: float, run: overt.Run, stored: MemoryRun
) -> None:
    run.log_metric("x", tensor)
    assert run.metrics == {"x": expected}
    assert [p.value for p in points(stored, "x")] == [expected]


def test_the_last_value_is_the_one_recorded_last_whatever_it_was(run: overt.Run) -> None:
    run.log_metric("x", torch.tensor(1.0))
    run.log_metric("x", 2.0)
    assert run.metrics == {"x": 2.0}
    run.log_metric("x", torch.tensor(3.0))
    assert run.metrics == {"x": 3.0}


@pytest.mark.parametrize("tensor", [torch.zeros(2), torch.zeros(0), torch.tensor(1j)])
def test_a_tensor_that_is_not_one_number_is_a_record_error(tensor: Any, run: overt.Run) -> None:
    with pytest.raises(RecordError, match="'x' must be one number"):
        run.log_metric("x", tensor)
    assert run.metrics == {}


def test_what_waits_is_read_at_the_end_and_before_the_end_is_said(run: overt.Run, stored: MemoryRun) -> None:
    run.log_metric("x", torch.tensor(1.0))
    assert points(stored, "x") == []
    run.finish()
    assert [p.value for p in points(stored, "x")] == [1.0]


def test_a_record_behind_the_seal_does_not_wait(stored: MemoryRun, run: overt.Run) -> None:
    run.finish()
    run.seal()
    run.log_metric("late", torch.tensor(1.0))
    assert [p.value for p in points(stored, "late")] == [1.0]


def test_as_many_as_may_wait_are_read_without_a_flush(run: overt.Run, stored: MemoryRun) -> None:
    for step in range(MOST_WAITING):
        assert points(stored, "x") == []
        run.log_metric("x", torch.tensor(float(step)), step=step)
    assert len(points(stored, "x")) == MOST_WAITING


def test_after_ten_seconds_the_next_one_has_all_read(
    run: overt.Run, stored: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now_ms()
    monkeypatch.setattr(clock, "time_ns", lambda: now * clock.NS_PER_MS)
    run.log_metric("x", torch.tensor(1.0))
    now += 9_999
    run.log_metric("x", torch.tensor(2.0))
    assert points(stored, "x") == []
    now += 1
    run.log_metric("x", torch.tensor(3.0))
    assert [p.value for p in points(stored, "x")] == [1.0, 2.0, 3.0]


def test_many_threads_lose_no_tensor_and_share_no_step(run: overt.Run, stored: MemoryRun) -> None:
    def work() -> None:
        for _ in range(200):
            run.log_metric("x", torch.tensor(1.0))
            run.log_metric("x", 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.flush()
    assert sorted(p.step for p in points(stored, "x")) == list(range(1600))


def test_a_forked_child_leaves_its_parents_tensors_to_the_parent(tmp_path: Path) -> None:
    run = Tracker(delivery="manual", keep_journal=True).start_run()
    run.log_metric("x", torch.tensor(1.0))
    child = os.fork()
    if child == 0:
        run.flush()
        os._exit(0)
    os.waitpid(child, 0)
    run.finish()
    lines = b"".join(path.read_bytes() for path in (tmp_path / ".overt" / "runs").rglob("*.jsonl")).splitlines()
    assert sum(b'"x"' in line for line in lines) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_recording_call_waits_for_an_accelerator(run: overt.Run) -> None:
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(100):
            run.log_metric("loss", torch.ones((), device="cuda") * step, step=step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.flush()
    assert run.metrics == {"loss": 99.0}


def test_what_a_shelf_keeps_stays_what_it_was_and_lies_side_by_side() -> None:
    """Beside the large tensors of a network, small ones that stay cost page faults in every step."""
    shelf = Shelf()
    loss = torch.tensor(0.0, requires_grad=True)
    kept = []
    for number in range(200):
        value = loss + number
        kept.append(shelf.keep(value))
        with torch.no_grad():
            value += 1000.0
    assert read_together(kept) == [float(number) for number in range(200)]
    assert not any(each.requires_grad or each.ndim for each in kept)
    assert len({each.untyped_storage().data_ptr() for each in kept}) == 4


def test_a_shelf_keeps_each_number_in_its_own_precision() -> None:
    shelf = Shelf()
    given = [torch.tensor(1 / 3, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64) * 3]
    kept = [shelf.keep(each) for each in given]
    assert [each.dtype for each in kept] == [each.dtype for each in given]
    assert [each.item() for each in kept] == [each.item() for each in given]
