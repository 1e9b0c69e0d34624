"""A part that fails is said once, and stops neither the others nor what is recorded."""

from __future__ import annotations

import pytest

import overt
from overt.errors import OvertWarning
from overt.guard import Parts
from overt.run import Run
from overt.testing import captured_runs


def test_each_part_that_fails_is_said_once_and_the_others_go_on() -> None:
    def fail_in_each_batch(run: Run) -> None:
        parts = Parts(run)
        for batch in range(3):
            with parts.guarded("the model"):
                raise ValueError(f"at batch {batch}")
            parts.failed("data", KeyError(batch))
            run.log_metric("loss", batch)

    with captured_runs() as runs, overt.start_run("r") as run, pytest.warns(OvertWarning) as warned:
        fail_in_each_batch(run)
    assert len(warned) == 2
    said = {name: value for name, value in runs[0].tags.items() if "not_recorded" in name}
    assert said == {
        "overt.not_recorded.the_model": "ValueError: at batch 0",
        "overt.not_recorded.data": "KeyError: 0",
    }
    assert len(runs[0].history) == 3


def test_strict_tracking_raises_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "is_strict", True)
    with captured_runs() as runs, overt.start_run("r") as run:
        parts = Parts(run)
        for _ in range(2):
            with pytest.raises(ValueError, match="odd"), parts.guarded("model"):
                raise ValueError("odd")
    assert not [name for name in runs[0].tags if "not_recorded" in name]
