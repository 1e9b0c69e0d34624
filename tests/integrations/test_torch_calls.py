"""What a decorated call is: one run with a true ending, the function's own result, its arguments as params."""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import inspect
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

import overt
from overt.errors import ConfigurationError, OvertWarning
from overt.stores.memory import MemoryRun, MemoryStore

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")
pytest.importorskip("wrapt")

from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402
from overt.integrations.torch.observers import is_observer  # noqa: E402


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


def saved(run: MemoryRun) -> Any:
    return torch.load(io.BytesIO(run.artifacts["model/data/model.pth"]), weights_only=False)


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


# -- the decorated function is the function ----------------------------------------------------------------------------


@track_training
def documented(model: int, *, epochs: int = 3) -> str:
    """What it says."""
    return f"{model} {epochs}"


@track_training(experiment="mine", run_name="named")
def with_keywords(a, b=2):
    return a + b


def test_signature_annotations_and_docstring_are_the_functions_own() -> None:
    assert str(inspect.signature(documented)) == "(model: 'int', *, epochs: 'int' = 3) -> 'str'"
    assert documented.__doc__ == "What it says."
    assert documented.__name__ == "documented"
    assert documented.__annotations__ == {"model": "int", "epochs": "int", "return": "str"}
    assert inspect.isfunction(documented)


def test_it_is_pickled_by_its_name_and_copied_as_itself() -> None:
    sys.modules.setdefault(__name__, sys.modules[documented.__module__])
    assert copy.copy(documented) is copy.deepcopy(documented) is documented
    assert pickle.loads(pickle.dumps(documented)) is documented


class Trainer:
    epochs = 2

    @track_training
    def fit(self, lr):
        return self.epochs, lr, overt.current_run().name

    @track_training
    @staticmethod
    def fit_static(lr):
        return lr

    @staticmethod
    @track_training
    def fit_static_inside(lr):
        return lr

    @track_training
    @classmethod
    def fit_class(cls, lr):
        return cls, lr

    @classmethod
    @track_training
    def fit_class_inside(cls, lr):
        return cls, lr


def test_methods_static_and_class_methods_are_recorded(captured: list[MemoryRun]) -> None:
    trainer = Trainer()
    assert trainer.fit(0.1)[:2] == (2, 0.1)
    assert trainer.fit_static(0.2) == Trainer.fit_static_inside(0.2) == 0.2
    assert Trainer.fit_class(0.3) == trainer.fit_class_inside(0.3) == (Trainer, 0.3)
    assert [run.params for run in captured] == [{"lr": str(lr)} for lr in (0.1, 0.2, 0.2, 0.3, 0.3)]
    assert [run.name.rpartition("-")[0] for run in captured] == [
        "fit",
        "fit_static",
        "fit_static_inside",
        "fit_class",
        "fit_class_inside",
    ]
    assert str(inspect.signature(trainer.fit)) == "(lr)"
    assert pickle.loads(pickle.dumps(Trainer().fit)).__name__ == "fit"
    assert trainer.fit.run_.key == captured[0].spec.key


def test_a_wrong_call_says_what_python_says_and_starts_no_run(captured: list[MemoryRun]) -> None:
    with pytest.raises(TypeError, match="documented\\(\\) missing 1 required positional argument"):
        documented()
    assert captured == []


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"experiment": 3}, "`experiment`"),
        ({"run_name": ""}, "`run_name`"),
        ({"tags": ["a"]}, "`tags`"),
        ({"log_model": "no"}, "`log_model`"),
        ({"evaluate": 1}, "`evaluate`"),
        ({"every_n_steps": 0}, "`every_n_steps`"),
        ({"observe": "loss"}, "`observe`"),
        ({"class_names": "ab"}, "`class_names`"),
        ({"observe": ["nothing"]}, "`observe` must name arguments of train"),
        ({"run": "abc"}, "`run` must be a Run"),
        ({"tracker": "abc"}, "`tracker` must be a Tracker"),
        ({"system_metrics": 1}, "`system_metrics` must be True, False or None"),
    ],
)
def test_a_mistake_raises_at_the_decorator(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):

        @track_training(**keywords)
        def train(loss):
            pass


def test_an_unknown_keyword_is_named() -> None:
    with pytest.raises(TypeError, match=r"track_training\(\) got an unexpected keyword argument 'lr'"):
        track_training(lr=3)


def test_async_functions_and_classes_are_refused() -> None:
    async def train():
        pass

    with pytest.raises(ConfigurationError, match="async"):
        track_training(train)
    with pytest.raises(ConfigurationError, match="functions and methods"):
        track_training(Trainer)


# -- one call, one run -------------------------------------------------------------------------------------------------


def test_a_call_is_a_finished_run_of_the_functions_name(captured: list[MemoryRun]) -> None:
    assert documented(1, epochs=5) == "1 5"
    (run,) = captured
    assert run.name.rpartition("-")[0] == "documented"
    assert run.status == "FINISHED"
    assert run.params == {"model": "1", "epochs": "5"}
    assert documented.run_.key == run.spec.key
    assert overt.current_run() is None


def test_keywords_are_the_runs(captured: list[MemoryRun]) -> None:
    assert with_keywords(1) == 3
    assert (captured[0].name, captured[0].experiment, captured[0].params) == ("named", "mine", {"a": "1", "b": "2"})

    @track_training(tags={"t": 1}, params={"p": 2}, notes="why")
    def train():
        pass

    train()
    assert (captured[1].tags["t"], captured[1].params["p"], captured[1].tags["mlflow.note.content"]) == (
        "1",
        "2",
        "why",
    )


@pytest.mark.parametrize(("asked", "configured"), [(True, False), (False, True), (None, True), (None, False)])
def test_whether_the_process_is_watched_is_said_by_the_keyword_else_configured(
    asked: bool | None, configured: bool
) -> None:
    tracker = overt.Tracker(store=MemoryStore(), delivery="manual", system_metrics=configured)

    @track_training(tracker=tracker, system_metrics=asked)
    def train():
        pass

    train()
    assert train.run_._link._route.system_metrics is (configured if asked is None else asked)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(3), "FAILED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_the_ending_is_true(captured: list[MemoryRun], error: BaseException, status: str) -> None:
    @track_training
    def train():
        overt.current_run().log_metric("x", 1.0)
        raise error

    with pytest.raises(type(error)) as raised:
        train()
    assert raised.value is error
    assert captured[0].status == status
    assert train.run_._sealed  # nothing more is expected of it: its journal may go when it is delivered
    if status == "FAILED":
        assert type(error).__name__ in captured[0].tags["overt.error"]
        assert "def train" not in captured[0].artifacts["overt/traceback.txt"].decode()
        assert "raise error" in captured[0].artifacts["overt/traceback.txt"].decode()
    assert overt.current_run() is None


def test_two_calls_are_two_runs(captured: list[MemoryRun]) -> None:
    documented(1)
    documented(2)
    assert [run.params["model"] for run in captured] == ["1", "2"]


def test_a_given_run_is_left_open(captured: list[MemoryRun]) -> None:
    run = overt.start_run("mine")

    @track_training(run=run)
    def train(lr):
        assert overt.current_run() is run
        return {"accuracy": 0.5}

    train(0.1)
    assert captured[0].status == "RUNNING"
    assert captured[0].params == {"lr": "0.1"}
    assert captured[0].metrics == {"accuracy": 0.5}


def test_a_parent_may_be_named(captured: list[MemoryRun]) -> None:
    parent = overt.start_run("parent")
    track_training(parent=parent)(lambda: None)()
    assert captured[1].spec.parent_key == parent.key
    assert captured[1].status == "FINISHED"


def test_the_first_call_in_a_run_joins_it_and_another_training_is_its_child(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, epochs):
        return {"last": float(epochs)}

    one, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with overt.start_run("outer") as outer:
        train(one, 1)
        train(other, 2)
    assert [run.name.partition("-")[0] for run in captured] == ["outer", "train"]
    assert captured[1].spec.parent_key == outer.key
    assert [run.metrics["last"] for run in captured] == [1, 2]
    assert [run.status for run in captured] == ["FINISHED", "FINISHED"]


def test_trouble_with_recording_never_reaches_the_function(captured: list[MemoryRun], monkeypatch) -> None:
    import overt.integrations.torch.call as call

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of order")

    for name in ("params_of", "summarize_model", "hook_loss", "points_of"):
        monkeypatch.setattr(call, name, broken)
    monkeypatch.setattr("overt.integrations.torch.session.learning_rates", broken)
    monkeypatch.setattr("overt.integrations.torch.session.count_samples", broken)
    monkeypatch.setattr("overt.integrations.torch.trainings.torch_model", broken)
    model = torch.nn.Linear(2, 1)
    loader = DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4, 1)), 2)

    @track_training
    def train(model, loader, criterion, optimizer, epochs):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()
        return "done"

    with pytest.warns(overt.OvertWarning, match="out of order"):
        assert train(model, loader, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), 1) == "done"
    assert captured[0].status == "FINISHED"
    assert {name for name in captured[0].tags if name.startswith("overt.not_recorded")} >= {
        "overt.not_recorded.arguments",
        "overt.not_recorded.observer_criterion",
        "overt.not_recorded.returned_values",
        "overt.not_recorded.model",
    }


def test_switched_off_the_function_is_called_and_nothing_is_observed(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("OVERT_DISABLED", "1")
    criterion = torch.nn.MSELoss()

    @track_training
    def train(criterion, run=None):
        assert not criterion._forward_hooks
        run.log_metric("x", 1.0)
        return run

    run = train(criterion)
    assert run.metrics == {"x": 1.0}
    assert run.status == "FINISHED"
    assert list(tmp_path.iterdir()) == []


# -- params ------------------------------------------------------------------------------------------------------------


@dataclass
class Config:
    lr: float = 0.1
    layers: list[int] = field(default_factory=lambda: [8, 8])
    seed: int = 1


def test_configurations_are_flattened_bare_and_with_the_arguments_name_on_collision(captured: list[MemoryRun]) -> None:
    @track_training
    def train(config, args, seed, *rest, device="cpu", epoch=0, **more):
        pass

    train(Config(), argparse.Namespace(batch=4, lr=0.2), 7, 1, 2, extra={"deep": {"a": 1}}, api_key="abc")
    captured_params = captured[0].params
    assert captured_params["lr"] == "0.1"
    assert captured_params["args.lr"] == "0.2"
    assert captured_params["layers"] == "[8, 8]"
    assert captured_params["batch"] == "4"
    assert (captured_params["seed"], captured_params["config.seed"]) == ("7", "1")
    assert captured_params["rest"] == "(1, 2)"
    assert captured_params["device"] == "cpu"
    assert captured_params["deep.a"] == "1"
    assert captured_params["api_key"] == "[redacted]"
    assert "epoch" not in captured_params


def test_machinery_is_summarised(captured: list[MemoryRun]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    loader = DataLoader(TensorDataset(torch.ones(12, 4), torch.ones(12, 1)), 3, shuffle=True)
    config = {"model": model, "width": 3}

    @track_training(log_model=False)
    def train(model, optimizer, scheduler, train_loader, criterion, weights, config, epochs):
        pass

    train(model, optimizer, scheduler, loader, torch.nn.HuberLoss(delta=2.0), torch.ones(100), config, 1)
    params = captured[0].params
    expected = {
        "model_type": "Sequential",
        "n_params": "13",
        "optimizer": "SGD",
        "lr": "0.1",
        "momentum": "0.9",
        "scheduler": "StepLR",
        "scheduler.step_size": "5",
        "criterion": "HuberLoss",
        "criterion.delta": "2.0",
        "train_loader.batch_size": "3",
        "train_loader.shuffle": "True",
        "train_loader.n_samples": "12",
        "batch_size": "3",
        "width": "3",
        "epochs": "1",
    }
    assert {name: params.get(name) for name in expected} == expected
    assert params["weights"].startswith("<tensor shape=(100,)")
    assert not [value for value in params.values() if "0x" in value]
    assert b"13 parameters" in captured[0].artifacts["model_summary.txt"]
    assert captured[0].models == {}


# -- what is returned --------------------------------------------------------------------------------------------------


def test_a_mapping_of_numbers_is_the_final_metrics(captured: list[MemoryRun]) -> None:
    @track_training
    def train():
        return {"accuracy": 0.9, "n": 3, "loss": torch.tensor(0.5), "path": "x"}, "other"

    assert train()[0]["path"] == "x"
    assert captured[0].metrics == {"accuracy": 0.9, "n": 3.0, "loss": 0.5}


@pytest.mark.parametrize(
    "returned",
    [
        {"train_loss": [0.5, 0.25], "val_loss": (0.75, 0.5)},
        [{"train_loss": 0.5, "val_loss": 0.75}, {"train_loss": 0.25, "val_loss": 0.5}],
    ],
)
def test_lists_are_series_of_epochs(captured: list[MemoryRun], returned: Any) -> None:
    track_training(lambda: returned)()
    assert series(captured[0], "train_loss") == [(0, 0.5), (1, 0.25)]
    assert series(captured[0], "val_loss") == [(0, 0.75), (1, 0.5)]


@dataclass
class Outcome:
    accuracy: float = 0.5
    best: dict[str, float] = field(default_factory=lambda: {"loss": 0.25})


class Scores(NamedTuple):
    accuracy: float = 0.5
    best: dict[str, Any] = {"loss": numpy.float32(0.25)}  # noqa: RUF012


@pytest.mark.parametrize("are_copied", [False, True])
def test_weights_are_no_metrics(captured: list[MemoryRun], *, are_copied: bool) -> None:
    def train() -> Any:
        model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.BatchNorm1d(1))
        weights = model.state_dict()
        best = {name: value.clone() for name, value in weights.items()} if are_copied else copy.deepcopy(weights)
        return best, {"model": weights, "accuracy": 0.5}

    track_training(train)()
    assert captured[0].metrics == {"accuracy": 0.5}


@pytest.mark.parametrize("returned", [{"accuracy": 0.5, "best": {"loss": torch.tensor([0.25])}}, Outcome(), Scores()])
def test_what_has_a_name_is_recorded_however_deep(captured: list[MemoryRun], returned: Any) -> None:
    track_training(lambda: (returned, "more"))()
    assert captured[0].metrics == {"accuracy": 0.5, "best.loss": 0.25}


def test_an_array_with_a_value_for_each_epoch_is_a_series(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, loader, criterion, optimizer, epochs):
        for _ in range(epochs):
            for x, y in loader:
                criterion(model(x), y).backward()
                optimizer.step()
        return {"a": numpy.array([0.5, 0.25]), "b": torch.tensor([1, 2]), "c": [None, 3.0], "preds": torch.ones(9)}

    model, loader, _, optimizer = make()
    train(model, loader, torch.nn.CrossEntropyLoss(), optimizer, 2)
    (run,) = captured
    assert [series(run, name) for name in "abc"] == [[(0, 0.5), (1, 0.25)], [(0, 1.0), (1, 2.0)], [(1, 3.0)]]
    assert "preds" not in run.metrics


def test_another_value_than_the_one_measured_is_kept_beside_it(captured: list[MemoryRun]) -> None:
    model = torch.nn.Linear(2, 1)
    loader = DataLoader(TensorDataset(torch.ones(3, 2), torch.ones(3, 1)), 2)

    @track_training
    def train(model, loader, criterion, optimizer, epochs):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()
        return {"train_loss": [7.0]}

    train(model, loader, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), 1)
    assert len(series(captured[0], "train_loss")) == 1
    assert series(captured[0], "reported_train_loss") == [(0, 7.0)]


@pytest.mark.parametrize("is_named", [False, True])
def test_a_returned_module_is_the_model(captured: list[MemoryRun], *, is_named: bool) -> None:
    best = torch.nn.Linear(3, 2)

    @track_training
    def train(model):
        return {"model": best, "accuracy": 1.0} if is_named else (best, {"accuracy": 1.0})

    train(torch.nn.Linear(3, 2))
    assert set(captured[0].models) == {"model"}
    assert torch.equal(saved(captured[0]).weight, best.weight)
    assert captured[0].metrics == {"accuracy": 1.0}


# -- generators --------------------------------------------------------------------------------------------------------


@track_training
def epochs_of(n: int, log: list[Any]) -> Generator[dict[str, float], Any, str]:
    """Yield epochs."""
    log.append("started")
    try:
        for epoch in range(n):
            sent = yield {"train_loss": 1.0 / (epoch + 1), "val_accuracy": epoch / 10}
            log.append(sent)
    except ValueError as error:
        log.append(error)
        yield {"train_loss": -1.0}
    finally:
        log.append("closed")
    return "result"


def test_each_yield_is_an_epoch_recorded_before_the_next_is_begun(captured: list[MemoryRun]) -> None:
    log: list[Any] = []
    generator = epochs_of(2, log)
    assert inspect.isgenerator(generator)
    assert inspect.isgeneratorfunction(epochs_of)
    assert (log, captured) == ([], [])
    assert next(generator) == {"train_loss": 1.0, "val_accuracy": 0.0}
    assert captured[0].metrics == {"train_loss": 1.0, "val_accuracy": 0.0}
    assert captured[0].status == "RUNNING"
    assert overt.current_run() is None
    assert next(generator) == {"train_loss": 0.5, "val_accuracy": 0.1}
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "result"
    assert log == ["started", None, None, "closed"]
    assert series(captured[0], "train_loss") == [(0, 1.0), (1, 0.5)]
    assert captured[0].status == "FINISHED"
    assert "stopped_early" not in captured[0].tags


def test_numbers_that_are_yielded_without_a_name_are_said_not_to_be_recorded(captured: list[MemoryRun]) -> None:
    @track_training
    def train():
        for epoch in range(2):
            yield epoch, 0.5

    with pytest.warns(overt.OvertWarning, match=r"train\(\) yields numbers without names") as told:
        assert list(train()) == [(0, 0.5), (1, 0.5)]
    assert len(told) == 1


def test_what_is_yielded_may_say_of_which_epoch_it_is(captured: list[MemoryRun]) -> None:
    @track_training
    def train():
        yield {"epoch": 10, "loss": 1.0}
        yield {"epoch": 20, "loss": 0.5}

    list(train())
    assert series(captured[0], "loss") == [(10, 1.0), (20, 0.5)]
    assert "epoch" not in captured[0].metrics


def test_sent_and_thrown_values_reach_the_generator(captured: list[MemoryRun]) -> None:
    log: list[Any] = []
    generator = epochs_of(3, log)
    next(generator)
    generator.send("hello")
    thrown = ValueError("thrown")
    assert generator.throw(thrown) == {"train_loss": -1.0}
    assert log == ["started", "hello", thrown]
    assert list(generator) == []
    assert captured[0].status == "FINISHED"


def test_closing_early_is_finished_with_a_tag(captured: list[MemoryRun]) -> None:
    log: list[Any] = []
    for row in epochs_of(10, log):
        if row["train_loss"] < 0.4:
            break
    assert log[-1] == "closed"
    assert captured[0].status == "FINISHED"
    assert captured[0].tags["stopped_early"] == "true"
    assert len(series(captured[0], "train_loss")) == 3


def test_closing_early_records_the_model_once_with_its_signature(captured: list[MemoryRun]) -> None:
    @track_training
    def fit(model, loader):
        while True:
            for x, _ in loader:
                model(x)
            yield {"loss": 0.5}

    epochs = fit(*make()[:2])
    next(epochs)
    epochs.close()
    assert captured[0].tags["stopped_early"] == "true"
    assert captured[0].models["model"].signature is not None
    assert "overt.model_note" not in captured[0].tags


def test_a_generator_that_is_still_held_when_the_run_ends_was_stopped_early() -> None:
    @track_training
    def train(model, loader, criterion, epochs):
        for _ in range(epochs):
            with torch.no_grad():
                for x, y in loader:
                    criterion(model(x), y)
            yield {}

    model, _, loader, _ = make()
    with overt.testing.captured_runs() as captured:
        kept = train(model, loader, torch.nn.CrossEntropyLoss(), 10)
        for _ in range(2):
            next(kept)
    (run,) = captured
    assert run.status == "FINISHED"
    assert run.tags["stopped_early"] == "true"
    assert set(run.models) == {"model"}
    assert "val_confusion_matrix.json" in run.artifacts
    n_records = len(run.history), len(run.tags)
    kept.close()
    assert (len(run.history), len(run.tags)) == n_records
    assert not model._forward_pre_hooks


def test_an_error_in_a_generator_fails_the_run(captured: list[MemoryRun]) -> None:
    @track_training
    def train():
        yield {"loss": 1.0}
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        list(train())
    assert captured[0].status == "FAILED"
    assert captured[0].metrics == {"loss": 1.0}


def test_an_error_thrown_in_and_not_caught_fails_the_run(captured: list[MemoryRun]) -> None:
    generator = epochs_of(3, [])
    next(generator)
    with pytest.raises(KeyError):
        generator.throw(KeyError("x"))
    assert captured[0].status == "FAILED"


def test_a_generator_observes_its_loop_and_its_own_numbers_stand_beside(captured: list[MemoryRun]) -> None:
    model = torch.nn.Linear(2, 1)
    loader = DataLoader(TensorDataset(torch.ones(5, 2), torch.ones(5, 1)), 2)

    @track_training
    def train(model, loader, criterion, optimizer, epochs):
        for _ in range(epochs):
            total = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(x)
            yield {"train_loss": total / 5, "mine": 1.0}

    rows = list(train(model, loader, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), 3))
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(rows)]
    assert series(captured[0], "mine") == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert series(captured[0], "n_steps") == [(0, 3), (1, 3), (2, 3)]
    assert not [name for name in captured[0].metrics if name.startswith("reported")]
    assert "model" in captured[0].models
    assert not model._forward_pre_hooks


def test_a_run_that_is_current_around_a_generator_stays_so(captured: list[MemoryRun]) -> None:
    inside = []

    @track_training(run_name="inner")
    def train():
        for _ in range(2):
            inside.append(overt.current_run().name)
            yield {}

    with overt.start_run("outer") as outer:
        for _ in train():
            assert overt.current_run() is outer
    assert inside == ["inner", "inner"]


# -- a parameter called run --------------------------------------------------------------------------------------------


def test_a_parameter_called_run_gets_the_run(captured: list[MemoryRun]) -> None:
    @track_training
    def train(lr, run, epochs=2):
        for epoch in range(epochs):
            run.log_metric("mine", lr * epoch, epoch=epoch)
        return run

    run = train(0.5)
    assert run.key == captured[0].spec.key
    assert series(captured[0], "mine") == [(0, 0.0), (1, 0.5)]
    assert "run" not in captured[0].params


def test_the_run_may_stand_first_whatever_defaults_follow(captured: list[MemoryRun]) -> None:
    @track_training
    def train(run, model, loader, epochs=2):
        return run.key, model, len(loader), epochs

    model, loader, *_ = make()
    for epochs in (2, 3):
        key, *others = train(model, loader, *([epochs] if epochs > 2 else []))
        assert others == [model, 4, epochs]
        assert key == captured[-1].spec.key
    with overt.start_run("mine") as mine:
        assert train(mine, model, loader, 4) == (mine.key, model, 4, 4)
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        train(model)


def test_another_run_than_overts_stays_in_its_place(captured: list[MemoryRun]) -> None:
    @track_training
    def train(run, lr, epochs=2):
        return run, lr, epochs

    assert train("of wandb", 0.1) == ("of wandb", 0.1, 2)


def test_a_run_that_the_caller_gives_is_the_one_that_is_recorded_into(captured: list[MemoryRun]) -> None:
    @track_training
    def train(run=None):
        assert overt.current_run() is run
        return {"x": 1.0}

    mine = overt.start_run("mine")
    train(run=mine)
    assert len(captured) == 1
    assert captured[0].metrics == {"x": 1.0}
    assert captured[0].status == "RUNNING"


# -- one call per epoch ------------------------------------------------------------------------------------------------


def make() -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    X = torch.randn(20, 4)
    y = (X[:, 0] > 0).long()
    model = torch.nn.Linear(4, 2)
    return (
        model,
        DataLoader(TensorDataset(X, y), 5, shuffle=True),
        DataLoader(TensorDataset(X[:8], y[:8]), 4),
        torch.optim.SGD(model.parameters(), 0.1),
    )


@track_training
def train_epoch(args, model, device, train_loader, optimizer, epoch):
    model.train()
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.nll_loss(torch.log_softmax(model(data), 1), target)
        loss.backward()
        optimizer.step()


@track_training
def evaluate(model, device, test_loader):
    model.eval()
    right = 0
    with torch.no_grad():
        for data, target in test_loader:
            out = torch.log_softmax(model(data), 1)
            torch.nn.functional.nll_loss(out, target, reduction="sum")
            right += (out.argmax(1) == target).sum().item()
    return {"right": right}


def test_a_script_of_calls_is_one_run(captured: list[MemoryRun]) -> None:
    model, loader, test_loader, optimizer = make()
    args = argparse.Namespace(lr=0.1, epochs=3)
    for epoch in range(1, 4):
        train_epoch(args, model, "cpu", loader, optimizer, epoch)
        evaluate(model, "cpu", test_loader)
    (run,) = captured
    assert run.status == "RUNNING"  # nobody has said that there will not be another epoch
    assert series(run, "n_steps") == [(1, 4), (2, 4), (3, 4)]
    assert [step for step, _ in series(run, "val_loss")] == [1, 2, 3]
    assert [step for step, _ in series(run, "right")] == [1, 2, 3]
    assert run.metrics["val_accuracy"] == run.metrics["right"] / 8
    assert run.models == {}
    train_epoch.run_.finish()
    assert run.status == "FINISHED"
    assert set(run.models) == {"model"}
    assert "val_confusion_matrix.json" in run.artifacts
    assert "param_drift.epoch" not in run.tags


def test_a_call_without_a_model_records_into_the_run_around_it(captured: list[MemoryRun]) -> None:
    @track_training
    def score(epoch):
        return {"score": epoch / 2}

    with overt.start_run("mine"):
        for epoch in range(3):
            score(epoch)
    (run,) = captured
    assert series(run, "score") == [(0, 0.0), (1, 0.5), (2, 1.0)]
    score(7)
    assert [run.status for run in captured] == ["FINISHED", "FINISHED"]  # outside any, nothing could follow


def test_what_a_configuration_nests_is_described_once(captured: list[MemoryRun]) -> None:
    model, loader, _, optimizer = make()
    config = {
        "train": {"loaders": {"a": loader}, "epochs": 3},
        "nets": [model],
        "sizes": [1, 2],
        "optimizer": [optimizer],
    }
    track_training(lambda config: None)(config)
    params = captured[0].params
    assert (params["train.epochs"], params["sizes"], params["model_type"]) == ("3", "[1, 2]", "Linear")
    assert not [name for name, value in params.items() if "DataLoader" in value or "(" in value]


def test_a_vocabulary_is_one_param(captured: list[MemoryRun]) -> None:
    words = {f"word_{index}": index for index in range(3000)}
    track_training(lambda words, config: None)(words, {"words": words, "size": 3})
    params = captured[0].params
    assert set(params) == {"words", "size"}
    assert "2990 more" in params["words"]


def test_a_warning_from_within_a_hook_points_at_the_users_line(captured: list[MemoryRun]) -> None:
    class Odd(torch.nn.Module):
        def forward(self, *_: Any) -> Any:
            return {"loss": 1}

    with pytest.warns(OvertWarning, match="loss criterion of run .* could not be recorded") as warned:
        track_training(lambda criterion: criterion(1, 2))(Odd())
    assert [each.filename for each in warned] == [__file__]


def test_params_are_those_of_the_first_call(captured: list[MemoryRun]) -> None:
    @track_training
    def train(lr, epoch):
        pass

    with overt.start_run("mine"):
        for epoch in range(3):
            train(0.1 / (epoch + 1), epoch)
    assert captured[0].params == {"lr": "0.1"}
    assert not [name for name in captured[0].tags if name.startswith("param_drift")]


def test_inside_a_run_calls_record_into_it(captured: list[MemoryRun]) -> None:
    model, loader, test_loader, optimizer = make()
    with overt.start_run("mine"):
        for epoch in range(2):
            train_epoch(None, model, "cpu", loader, optimizer, epoch)
            evaluate(model, "cpu", test_loader)
    (run,) = captured
    assert run.status == "FINISHED"
    assert series(run, "n_steps") == [(0, 4), (1, 4)]
    assert [step for step, _ in series(run, "val_loss")] == [0, 1]
    assert set(run.models) == {"model"}


def test_calls_without_an_epoch_are_counted(captured: list[MemoryRun]) -> None:
    @track_training
    def train_loop(dataloader, model, loss_fn, optimizer):
        for X, y in dataloader:
            loss_fn(model(X), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    @track_training
    def test_loop(dataloader, model, loss_fn):
        with torch.no_grad():
            for X, y in dataloader:
                loss_fn(model(X), y)

    model, loader, test_loader, optimizer = make()
    for _ in range(3):
        train_loop(loader, model, torch.nn.CrossEntropyLoss(), optimizer)
        test_loop(test_loader, model, torch.nn.CrossEntropyLoss())
    (run,) = captured
    assert series(run, "n_steps") == [(0, 4), (1, 4), (2, 4)]
    assert [step for step, _ in series(run, "val_loss")] == [0, 1, 2]


def test_models_that_take_turns_are_a_run_each(captured: list[MemoryRun]) -> None:
    members = [make() for _ in range(2)]
    for epoch in range(3):
        for model, loader, test_loader, optimizer in members:
            train_epoch(None, model, "cpu", loader, optimizer, epoch)
            evaluate(model, "cpu", test_loader)
    assert [series(run, "n_steps") for run in captured] == [[(0, 4), (1, 4), (2, 4)]] * 2
    assert [run.status for run in captured] == ["RUNNING", "RUNNING"]


def test_models_one_after_the_other_each_end_with_their_own_model_and_report(captured: list[MemoryRun]) -> None:
    trained, weights = [], []
    for _ in range(3):
        model, loader, test_loader, optimizer = make()
        for epoch in range(2):
            train_epoch(None, model, "cpu", loader, optimizer, epoch)
            evaluate(model, "cpu", test_loader)
        trained.append(model)
        weights.append(model.weight.detach().clone())
    assert [run.status for run in captured] == ["FINISHED", "FINISHED", "RUNNING"]
    for run, weight in zip(captured[:2], weights, strict=False):
        assert torch.equal(saved(run).weight, weight)
        assert "val_confusion_matrix.json" in run.artifacts
        assert series(run, "n_steps") == [(0, 4), (1, 4)]
    evaluate(trained[0], "cpu", test_loader)  # the best of them once more: of the run that has trained it
    assert len(captured) == 3
    assert captured[0].status == "FINISHED"
    assert series(captured[0], "right")[2:] == [(1, captured[0].metrics["right"])]


def test_a_model_that_was_trained_is_held_no_longer_than_its_training(captured: list[MemoryRun]) -> None:
    known = []
    for _ in range(3):
        model, loader, _, optimizer = make()
        known.append(weakref.ref(model))
        for epoch in range(2):
            train_epoch(None, model, "cpu", loader, optimizer, epoch)
    del model, optimizer
    gc.collect()
    assert [model() is None for model in known] == [True, True, False]


def test_an_optimizer_of_each_epoch_goes_on_with_the_one_before(captured: list[MemoryRun]) -> None:
    model, loader, test_loader, _ = make()
    for epoch in range(3):
        train_epoch(None, model, "cpu", loader, torch.optim.SGD(model.parameters(), 0.5 ** (epoch + 1)), epoch)
        evaluate(model, "cpu", test_loader)
    (run,) = captured
    assert series(run, "lr") == [(0, 0.5), (1, 0.25), (2, 0.125)]
    assert series(run, "n_steps") == [(0, 4), (1, 4), (2, 4)]
    assert [step for step, _ in series(run, "val_loss")] == [0, 1, 2]
    assert not [name for name in run.metrics if "optimizer" in name]


def test_an_evaluation_of_a_model_that_was_loaded_anew_is_said_once_to_be_a_run_of_its_own(
    captured: list[MemoryRun],
) -> None:
    @track_training
    def check(model, loader, criterion):
        with torch.no_grad():
            for x, y in loader:
                criterion(model(x), y)

    model, loader, test_loader, optimizer = make()
    check(model, test_loader, torch.nn.CrossEntropyLoss())  # before any training there is nothing to say
    train_epoch(None, model, "cpu", loader, optimizer, 0)
    check(model, test_loader, torch.nn.CrossEntropyLoss())
    best, *_ = make()
    best.load_state_dict(model.state_dict())
    with pytest.warns(overt.OvertWarning, match=r"check\(\) evaluated a model that no call has trained"):
        check(best, test_loader, torch.nn.CrossEntropyLoss())
    check(best, test_loader, torch.nn.CrossEntropyLoss())  # said already: a second warning would fail the test
    assert len(captured) == 4


def test_epochs_that_begin_again_with_another_optimizer_are_another_run(captured: list[MemoryRun]) -> None:
    model, loader, _, optimizer = make()
    train_epoch(None, model, "cpu", loader, optimizer, 0)
    weight = model.weight.detach().clone()
    second = torch.optim.SGD(model.parameters(), 0.2)
    for epoch in range(2):
        train_epoch(None, model, "cpu", loader, second, epoch)
    assert [series(run, "n_steps") for run in captured] == [[(0, 4)], [(0, 4), (1, 4)]]
    assert torch.equal(saved(captured[0]).weight, weight)  # not as the second has left it


def test_another_function_with_another_optimizer_is_another_run(captured: list[MemoryRun]) -> None:
    @track_training
    def finetune(model, loader, criterion, optimizer, epochs):
        for _ in range(epochs):
            for x, y in loader:
                criterion(model(x), y).backward()
                optimizer.step()

    model, loader, _, optimizer = make()
    train_epoch(None, model, "cpu", loader, optimizer, 0)
    weight = model.weight.detach().clone()
    finetune(model, loader, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.2), 2)
    assert [run.status for run in captured] == ["FINISHED", "FINISHED"]
    assert torch.equal(saved(captured[0]).weight, weight)


def test_trainings_of_other_threads_go_on(captured: list[MemoryRun]) -> None:
    mine, others = make(), make()
    train_epoch(None, mine[0], "cpu", mine[1], mine[3], 0)

    def work() -> None:
        for epoch in range(3):
            train_epoch(None, others[0], "cpu", others[1], others[3], epoch)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    train_epoch(None, mine[0], "cpu", mine[1], mine[3], 1)
    assert [series(run, "n_steps") for run in captured] == [[(0, 4), (1, 4)], [(0, 4), (1, 4), (2, 4)]]


@track_training
def fit(model, loader, criterion, optimizer, epochs, meanwhile=lambda: None):
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            meanwhile()


def test_a_loss_that_threads_share_is_of_the_training_that_asked_it(captured: list[MemoryRun]) -> None:
    criterion, both = torch.nn.CrossEntropyLoss(), threading.Barrier(2, timeout=60)
    alone, *together = [make() for _ in range(3)]
    fit(alone[0], alone[2], criterion, alone[3], 2)
    threads = [
        threading.Thread(target=fit, args=(model, in_order, criterion, optimizer, 2, both.wait))
        for model, _, in_order, optimizer in together
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [series(captured[0], name) for name in ("train_loss", "train_loss_step")]
    assert [[series(run, name) for name in ("train_loss", "train_loss_step")] for run in captured] == 3 * [expected]


@pytest.mark.parametrize("criterion", [torch.nn.CrossEntropyLoss(), torch.nn.functional.cross_entropy])
def test_a_run_within_observes_what_the_call_around_it_has_handed_on(captured: list[MemoryRun], criterion: Any) -> None:
    @track_training
    def search(model, loader, criterion, optimizer):
        teacher, _, _, its_own = make()
        track_training(run_name="inner")(fit.__wrapped__)(teacher, loader, criterion, its_own, 3)
        assert is_observer(loader)
        fit.__wrapped__(model, loader, criterion, optimizer, 2)

    model, _, in_order, optimizer = make()
    search(model, in_order, criterion, optimizer)
    outer, inner = captured
    assert [len(series(run, "train_loss")) for run in (inner, outer)] == [3, 2]
    assert [series(run, "n_steps") for run in (inner, outer)] == [[(0, 2), (1, 2), (2, 2)], [(0, 2), (1, 2)]]
    assert inner.params["loader.n_samples"] == "8"


def test_nothing_of_ours_stays_in_a_configuration_that_threads_share() -> None:
    began, may_end = threading.Event(), threading.Event()
    loader = make()[1]
    config = {"loader": loader}

    @track_training
    def first(config):
        began.set()
        assert may_end.wait(60)

    @track_training
    def second(config):
        may_end.set()
        thread.join()

    with overt.testing.captured_runs():
        thread = threading.Thread(target=first, args=(config,))
        thread.start()
        assert began.wait(60)
        second(config)
    assert config["loader"] is loader


def test_a_loss_that_a_run_within_shares_is_not_that_of_the_call_around_it(captured: list[MemoryRun]) -> None:
    criterion = torch.nn.CrossEntropyLoss()

    @track_training
    def distil(student, loader, criterion, optimizer, epochs):
        teacher, _, in_order, its_own = make()
        track_training(run_name="teacher")(fit.__wrapped__)(teacher, in_order, criterion, its_own, 3)
        fit.__wrapped__(student, loader, criterion, optimizer, epochs)

    for train in (fit, distil):
        model, _, in_order, optimizer = make()
        train(model, in_order, criterion, optimizer, 2)
    alone, student, teacher = (series(run, "train_loss_step") for run in captured)
    assert (len(alone), student, len(teacher)) == (4, alone, 6)
    assert series(captured[1], "train_loss") == series(captured[0], "train_loss")


@pytest.mark.parametrize("error", [None, ValueError("later")])
def test_trainings_in_a_run_end_with_it(captured: list[MemoryRun], error: Exception | None) -> None:
    with contextlib.suppress(ValueError), overt.start_run("folds"):
        for _ in range(3):
            model, loader, test_loader, optimizer = make()
            for epoch in range(2):
                train_epoch(None, model, "cpu", loader, optimizer, epoch)
                evaluate(model, "cpu", test_loader)
        if error is not None:
            raise error
    last = "FINISHED" if error is None else "FAILED"
    assert [run.status for run in captured] == [last, "FINISHED", last]
    assert [bool(run.models) for run in captured] == [True, True, error is None]
    assert all("val_confusion_matrix.json" in run.artifacts for run in captured)


def test_captured_runs_end_with_the_block_as_with_a_script() -> None:
    with overt.testing.captured_runs() as captured:
        model, loader, test_loader, optimizer = make()
        train_epoch(None, model, "cpu", loader, optimizer, 0)
        evaluate(model, "cpu", test_loader)
    (run,) = captured
    assert run.status == "FINISHED"
    assert torch.equal(saved(run).weight, model.weight)
    assert "val_confusion_matrix.json" in run.artifacts
    with contextlib.suppress(ValueError), overt.testing.captured_runs() as captured:
        train_epoch(None, model, "cpu", loader, optimizer, 0)
        raise ValueError("later")
    assert captured[0].status == "FAILED"
    assert captured[0].tags["overt.error"] == "ValueError: later"


def test_a_call_that_fails_ends_the_run_of_its_epochs(captured: list[MemoryRun]) -> None:
    model, loader, _, optimizer = make()
    train_epoch(None, model, "cpu", loader, optimizer, 0)
    with pytest.raises(TypeError):
        train_epoch(None, model, "cpu", 3, optimizer, 1)
    assert [run.status for run in captured] == ["FAILED"]
    assert captured[0].models == {}


def test_a_decorated_call_inside_a_decorated_call_is_of_its_run(captured: list[MemoryRun]) -> None:
    @track_training
    def main(epochs):
        model, loader, test_loader, optimizer = make()
        for epoch in range(epochs):
            train_epoch(None, model, "cpu", loader, optimizer, epoch)
            evaluate(model, "cpu", test_loader)
        return {"final": 1.0}

    main(2)
    (run,) = captured
    assert run.status == "FINISHED"
    assert series(run, "n_steps") == [(0, 4), (1, 4)]
    assert run.metrics["final"] == 1.0
    assert set(run.models) == {"model"}


def test_what_is_observed_outside_is_not_counted_twice_inside(captured: list[MemoryRun]) -> None:
    @track_training
    def one(model, loader, criterion, optimizer):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()

    @track_training
    def main(model, loader, criterion, optimizer, epochs):
        for _ in range(epochs):
            one(model, loader, criterion, optimizer)

    model, loader, _, optimizer = make()
    main(model, loader, torch.nn.CrossEntropyLoss(), optimizer, 2)
    (run,) = captured
    assert series(run, "n_steps") == [(0, 4), (1, 4)]
    assert len(series(run, "train_loss_step")) == 8
    assert run.status == "FINISHED"


def test_a_function_that_says_its_loss_itself_is_not_told_how_to(recwarn: pytest.WarningsRecorder) -> None:
    @track_training
    def train(lr: float) -> Iterator[dict[str, float]]:
        weight = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr)
        for _ in range(2):
            loss = (weight**2).sum()
            loss.backward()
            optimizer.step()
            yield {"train_loss": loss.item()}

    with overt.testing.captured_runs() as runs:
        list(train(0.1))
    assert runs[0].metrics["train_loss"] > 0
    assert "overt.not_observed" not in runs[0].tags
    assert [str(warning.message) for warning in recwarn] == []


# -- what counts as a loss function ------------------------------------------------------------------------------------


class NormScaler:
    """As in timm: steps, and returns the norm of the gradients."""

    def __call__(self, loss: Any, optimizer: Any, parameters: Any) -> Any:
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return norm


def test_a_scaler_of_the_loss_is_no_loss(captured: list[MemoryRun]) -> None:
    @track_training
    def train_one_epoch(model, criterion, data_loader, optimizer, epoch, loss_scaler):
        for x, y in data_loader:
            optimizer.zero_grad()
            loss_scaler(criterion(model(x), y), optimizer, list(model.parameters()))

    model, loader, _, optimizer = make()
    for epoch in range(2):
        train_one_epoch(model, torch.nn.CrossEntropyLoss(), loader, optimizer, epoch, NormScaler())
    (run,) = captured
    assert len(series(run, "train_loss")) == 2
    assert not [name for name in run.metrics if "val" in name or "scaler" in name]


@pytest.mark.parametrize(
    ("name", "is_loss"),
    [
        *((name, True) for name in ("loss", "loss_fn", "lossfn", "ce_loss", "criterion", "loss_function", "loss_D")),
        *(
            (name, True)
            for name in ("objective", "loss_2", "criterion1", "compute_loss", "loss_funcs_0", "custom_loss")
        ),
        *((name, False) for name in ("loss_scaler", "loss_weight", "loss_history", "loss_meter", "loss_log", "glossy")),
        *((name, False) for name in ("loss_tracker", "loss_fn_weights", "criterion_logger", "lossless", "floss")),
    ],
)
def test_the_last_word_of_its_name_makes_a_callable_a_loss(name: str, *, is_loss: bool) -> None:
    def train(model: Any, **given: Any) -> Any:
        return type(given[name]).__name__

    with overt.testing.captured_runs():
        seen = track_training(train)(torch.nn.Linear(1, 1), **{name: lambda out, y: None})
    assert seen == ("LossFunction" if is_loss else "function")


def test_what_a_mapping_of_losses_holds_is_one_under_any_key(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, losses, settings):
        return [type(item).__name__ for item in (*losses.values(), *settings.values())]

    given = {"box": lambda out, y: None, "kind": int}, {"warm": lambda out, y: None}
    assert train(torch.nn.Linear(1, 1), *given) == ["LossFunction", "type", "function"]


# -- what a function makes for itself ----------------------------------------------------------------------------------


def train_itself(model: Any, dataset: Any, optimizer: Any, epochs: int) -> None:
    for _ in range(epochs):
        for x, y in DataLoader(dataset, 5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def test_a_function_that_makes_everything_itself_has_its_losses(captured: list[MemoryRun]) -> None:
    log = []

    @track_training
    def main(lr):
        model, loader, _, _ = make()
        optimizer = torch.optim.SGD(model.parameters(), lr)
        criterion = torch.nn.CrossEntropyLoss()
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            log.append(loss.item())

    main(0.1)
    assert series(captured[0], "train_loss_step") == list(enumerate(log))
    assert len(series(captured[0], "train_loss")) == 1


@pytest.mark.parametrize("has_model", [False, True])
def test_losses_that_are_observed_by_a_call_within_count_once(captured: list[MemoryRun], *, has_model: bool) -> None:
    @track_training
    def one(model, loader, criterion, optimizer, epoch):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()

    @track_training
    def main(model, epochs):
        net, loader, _, optimizer = make()
        net = model or net
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for epoch in range(epochs):
            one(net, loader, torch.nn.CrossEntropyLoss(), optimizer, epoch)
            with torch.no_grad():
                torch.nn.functional.cross_entropy(net(torch.ones(1, 4)), torch.ones(1, dtype=torch.long))

    main(make()[0] if has_model else None, 2)
    (run,) = captured
    assert len(series(run, "train_loss_step")) == 8
    assert {name for name in run.metrics if name.startswith("train")} == {"train_loss_step", "train_loss"}
    assert [step for step, _ in series(run, "val_loss")] == [0, 1]


def test_epochs_of_a_model_that_is_no_argument_are_said_to_be_runs_of_their_own(captured: list[MemoryRun]) -> None:
    model, loader, _, optimizer = make()

    @track_training
    def train_one_epoch(epoch):
        for x, y in loader:
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    with overt.start_run():
        train_one_epoch(0)
        train_one_epoch(1)
    with pytest.warns(overt.OvertWarning, match=r"goes on with the training of run .*overt.start_run\(\)") as said:
        list(map(train_one_epoch, (2, 3)))
    assert len(said) == 1
    assert [series(run, "n_steps") for run in captured] == [[(0, 4), (1, 4)], [(2, 4)], [(3, 4)]]


def test_a_function_that_trains_nothing_is_told_nothing(recwarn: pytest.WarningsRecorder) -> None:
    @track_training
    def count(epochs):
        return {"n": sum(range(epochs))}

    with overt.testing.captured_runs() as runs:
        count(3)
        list(epochs_of(3, []))
    assert runs[0].metrics == {"n": 3.0}
    assert [str(warning.message) for warning in recwarn] == []


def test_a_loss_that_cannot_be_seen_is_told_where_it_was_looked_for(captured: list[MemoryRun]) -> None:
    def by_hand(model, optimizer, criterion=None):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()

    for given, seen in ((), "torch.nn.functional's losses"), ((torch.nn.MSELoss(),), "criterion"):
        model, _, _, optimizer = make()
        with pytest.warns(
            overt.OvertWarning, match=f"no training loss was seen in by_hand.*only calls of {seen} are seen"
        ):
            track_training(by_hand)(model, optimizer, *given)


class HasLoader:
    def __init__(self) -> None:
        self.model, self.loader, self.val_loader, self.optimizer = make()

    @track_training
    def fit(self, n_epochs, *, evaluates=False):
        for _ in range(n_epochs):
            for x, y in self.loader:
                torch.nn.functional.cross_entropy(self.model(x), y).backward()
                self.optimizer.step()
            if evaluates:
                with torch.no_grad():
                    for x, y in self.val_loader:
                        torch.nn.functional.cross_entropy(self.model(x), y)


def test_epochs_that_cannot_be_told_apart_are_said_to_be_one(captured: list[MemoryRun]) -> None:
    model, loader, _, optimizer = make()
    with pytest.warns(overt.OvertWarning, match=r"no loader was seen in train_itself\(\).*as epoch 0.*run.epochs\(n\)"):
        track_training(train_itself)(model, loader.dataset, optimizer, 2)
    with pytest.warns(overt.OvertWarning, match=r"no loader was seen in fit\(\)"):
        HasLoader().fit(3)
    assert [series(run, "n_steps") for run in captured] == [[(0, 8)], [(0, 12)]]
    assert [run.tags["overt.not_observed"] for run in captured] == ["epochs", "epochs"]


class HasEverything(HasLoader):
    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings

    @track_training
    def fit_all(self):
        for _ in range(self.settings.epochs):
            self.fit_once()

    def fit_once(self):
        for x, y in self.loader:
            torch.nn.functional.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()

    fit_one = track_training(fit_once)


@track_training
def configured(settings, trainer):
    trainer.fit_once()
    trainer.fit_once()


def test_epochs_that_a_configuration_asks_for_are_said_to_be_one(captured: list[MemoryRun]) -> None:
    settings = argparse.Namespace(epochs=2)
    with pytest.warns(overt.OvertWarning, match=r"no loader was seen in configured\(\)"):
        configured(settings, HasEverything(settings))
    HasEverything(settings).fit_all()
    with pytest.warns(overt.OvertWarning, match=r"no loader was seen in fit_all\(\)"):
        HasEverything.fit_all.run_.finish()
    assert [series(run, "n_steps") for run in captured] == [[(0, 8)], [(0, 8)]]


def test_epochs_that_are_calls_of_an_object_that_is_configured_for_many_are_not_spoken_of(
    recwarn: pytest.WarningsRecorder,
) -> None:
    with overt.testing.captured_runs() as runs:
        trainer = HasEverything(argparse.Namespace(epochs=2))
        for _ in range(2):
            trainer.fit_one()
    assert [series(run, "n_steps") for run in runs] == [[(0, 4), (1, 4)]]
    assert [str(warning.message) for warning in recwarn] == []


def test_epochs_that_are_told_apart_are_not_spoken_of(recwarn: pytest.WarningsRecorder) -> None:
    @track_training
    def explicit(model, dataset, optimizer, epochs, run):
        for _ in run.epochs(epochs):
            train_itself(model, dataset, optimizer, 1)

    @track_training
    def yielding(model, dataset, optimizer, epochs):
        for _ in range(epochs):
            train_itself(model, dataset, optimizer, 1)
            yield {}

    @track_training
    def recording(model, dataset, optimizer, epochs, run):
        for epoch in range(epochs):
            train_itself(model, dataset, optimizer, 1)
            run.log_metric("loss", 0.5, epoch=epoch)

    with overt.testing.captured_runs() as runs:
        for function in (explicit, yielding, recording, track_training(train_itself)):
            model, loader, _, optimizer = make()
            result = function(model, loader.dataset, optimizer, epochs=1 if function.__name__ == "train_itself" else 2)
            list(result or ())
        HasLoader().fit(2, evaluates=True)
    assert [len(series(run, "train_loss")) for run in runs] == [2, 2, 1, 1, 2]
    assert [str(warning.message) for warning in recwarn] == []
