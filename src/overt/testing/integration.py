"""What every hook promises, whatever framework it is for: inherit, say how to train, and pytest does the rest.

An inheriting class trains something small and real. It is told what to do in the midst of it, so each ending is that of
a training and not of a stub.
"""

# ruff: noqa: D102  a test's name is its docstring, here as in tests/

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import overt
from overt.errors import ConfigurationError, OvertWarning
from overt.stores.memory import MemoryRun, MemoryStore
from overt.testing.captured import captured_runs
from overt.testing.flaky import FlakyStore, Kind
from overt.tracker import Tracker


class IntegrationContract:
    """Inherit as a test class whose name begins with ``Test`` and implement :meth:`train`.

    Attributes
    ----------
    patchable : tuple of str
        Packages of which no attribute may be another object after training than before.
    counters : tuple of str
        Attributes in which the framework itself counts what official calls of it are made.
    """

    patchable: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        """Train something small through the hook.

        Parameters
        ----------
        during : callable
            To be called at least once within the training, before its last step; it may raise.
        **keywords
            The hook's own: ``experiment run_name tags params notes run parent tracker``.
        """
        raise NotImplementedError("override `train`: it trains something small through the hook under test")

    def train_in_two(self, folder: Path, **keywords: Any) -> None:
        """Train through the hook with checkpoints until it fails, and then go on from the last one.

        Parameters
        ----------
        folder : Path
            For checkpoints.
        **keywords
            As :meth:`train` takes them.
        """
        pytest.skip("this hook has no checkpoints to go on from")

    @pytest.fixture
    def runs(self) -> Iterator[list[MemoryRun]]:
        """Runs of this test, in memory."""
        with captured_runs() as runs:
            yield runs

    # -- what is recorded ----------------------------------------------------------------------------------------------

    def test_a_training_is_one_run_with_params_metrics_and_a_model(self, runs: list[MemoryRun]) -> None:
        self.train(_nothing)
        (run,) = runs
        assert run.status == "FINISHED"
        assert run.params
        assert run.metrics
        assert "model" in run.models
        assert run.name.rpartition("-")[2] == run.spec.key[:4]
        assert overt.current_run() is None

    def test_the_keywords_that_all_hooks_share_mean_the_same(self, runs: list[MemoryRun]) -> None:
        self.train(
            _nothing, experiment="fraud", run_name="mine", tags={"team": "a"}, params={"fold": 3}, notes="**why**"
        )
        (run,) = runs
        assert (run.experiment, run.name) == ("fraud", "mine")
        assert run.tags["team"] == "a"
        assert run.tags["mlflow.note.content"] == "**why**"
        assert run.params["fold"] == "3"

    @pytest.mark.parametrize(
        "keywords",
        [
            {"experiment": 5},
            {"run_name": 5},
            {"tags": 5},
            {"params": 5},
            {"notes": 5},
            {"run": 5},
            {"parent": 5},
            {"tracker": 5},
        ],
        ids=lambda keywords: next(iter(keywords)),
    )
    def test_a_mistake_is_named_before_anything_is_started(
        self, keywords: dict[str, Any], runs: list[MemoryRun]
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"`{next(iter(keywords))}`"):
            self.train(_nothing, **keywords)
        assert runs == []

    # -- endings -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (ValueError("the data is bad"), "FAILED"),
            (KeyboardInterrupt(), "KILLED"),
            (SystemExit(3), "FAILED"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_the_status_says_how_the_training_ended(
        self, error: BaseException, status: str, runs: list[MemoryRun]
    ) -> None:
        with pytest.raises((type(error), SystemExit)):  # a framework may turn Ctrl-C into an exit of its own
            self.train(_raising(error))
        (run,) = runs
        assert run.status == status
        assert overt.current_run() is None
        if isinstance(error, ValueError):
            assert run.tags["overt.error"] == "ValueError: the data is bad"
            assert b"the data is bad" in run.artifacts["overt/traceback.txt"]

    def test_a_training_that_goes_on_from_a_checkpoint_is_one_run_with_every_step_once(self, tmp_path: Path) -> None:
        stored = MemoryStore()
        tracker = Tracker(store=stored, delivery="inline", directory=str(tmp_path / "overt"))
        self.train_in_two(tmp_path / "checkpoints", tracker=tracker)
        assert overt.wait(30)
        (run,) = stored.runs.values()
        assert (run.status, len(run.attempts)) == ("FINISHED", 1)
        places = [(point.name, point.step) for point in run.history]
        assert len(set(places)) == len(places)
        for name in {name for name, _ in places}:
            steps = sorted(step for other, step in places if other == name)
            assert steps == list(range(steps[0], steps[-1] + 1)), name

    # -- which run -----------------------------------------------------------------------------------------------------

    def test_a_run_that_was_given_is_recorded_into_and_left_open(self, runs: list[MemoryRun]) -> None:
        mine = overt.start_run("mine")
        self.train(_nothing, run=mine)
        (run,) = runs
        assert run.status == "RUNNING"
        assert run.metrics
        mine.finish()

    def test_a_failure_does_not_end_a_run_that_was_given(self, runs: list[MemoryRun]) -> None:
        mine = overt.start_run("mine")
        with pytest.raises(ValueError, match="bad"):
            self.train(_raising(ValueError("bad")), run=mine)
        assert [run.status for run in runs] == ["RUNNING"]
        mine.finish()

    def test_a_parent_that_was_given_gets_a_child(self, runs: list[MemoryRun]) -> None:
        parent = overt.start_run("parent")
        self.train(_nothing, parent=parent)
        self.train(_nothing, parent=parent.key)
        assert [run.spec.parent_key for run in runs] == [None, parent.key, parent.key]
        parent.finish()

    def test_the_first_training_joins_the_current_run_and_later_ones_are_its_children(
        self, runs: list[MemoryRun]
    ) -> None:
        with overt.start_run("outer") as outer:
            self.train(_nothing)
            assert outer.status == "RUNNING"
            self.train(_nothing)
        with overt.start_run("other") as other:
            self.train(_nothing, run_name="named")
        assert [run.spec.parent_key for run in runs] == [None, outer.key, None, other.key]
        assert runs[0].metrics

    # -- the training comes first --------------------------------------------------------------------------------------

    def test_a_store_that_takes_nothing_never_reaches_the_training_and_gets_it_all_later(self, tmp_path: Path) -> None:
        is_away = True

        def plan() -> Iterator[Kind]:
            while True:
                yield "unavailable" if is_away else "none"

        stored = MemoryStore()
        happened: list[bool] = []
        tracker = Tracker(store=FlakyStore(stored, plan()), delivery="inline", directory=str(tmp_path / "overt"))
        run = tracker.start_run("mine")
        self.train(lambda: happened.append(True), run=run)
        run.finish()
        assert happened
        assert run.metrics
        with pytest.warns(OvertWarning, match="the store does not take records now"):
            assert not overt.wait(0.5)
        assert stored.runs == {}
        is_away = False
        assert overt.wait(30)
        (arrived,) = stored.runs.values()
        assert arrived.status == "FINISHED"
        assert arrived.metrics == pytest.approx(run.metrics, rel=0, abs=0, nan_ok=True)
        assert arrived.params == run.params

    def test_switched_off_it_records_nothing_and_trains_all_the_same(self, tmp_path: Path) -> None:
        happened: list[bool] = []
        tracker = Tracker(enabled=False, directory=str(tmp_path / "overt"))
        self.train(lambda: happened.append(True), tracker=tracker)
        assert happened
        assert not (tmp_path / "overt").exists()

    # -- nothing is patched --------------------------------------------------------------------------------------------

    def test_no_attribute_of_the_framework_is_another_object_afterwards(self, runs: list[MemoryRun]) -> None:
        self.train(_nothing)  # what the framework itself fills in on first use is filled in
        before = _snapshot(self.patchable)
        self.train(_nothing)
        with pytest.raises(ValueError, match="bad"):
            self.train(_raising(ValueError("bad")))
        after = _snapshot(self.patchable)
        changed = [place for place, value in before.items() if after.get(place) is not value]
        assert [place for place in changed if place[1] not in self.counters] == []
        assert len(before) > 100 * len(self.patchable)


def _nothing() -> None:
    """An undisturbed training."""


def _raising(error: BaseException) -> Callable[[], None]:
    def during() -> None:
        raise error

    return during


def _snapshot(packages: tuple[str, ...]) -> Mapping[tuple[str, str], object]:
    """Every attribute of every loaded module of ``packages``, and of the classes in them."""
    found: dict[tuple[str, str], object] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in packages or module is None:
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = value
            # not isinstance, which asks the value for its class: torch has things that warn when asked anything
            if issubclass(type(value), type) and str(value.__module__).partition(".")[0] in packages:
                found |= {(f"{name}.{key}", inner): item for inner, item in vars(value).items()}
    return found
