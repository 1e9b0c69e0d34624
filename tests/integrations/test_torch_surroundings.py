"""What a loop may stand in: torch.compile, worker processes, threads, modes and default devices of the user's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import overt
from overt.stores.memory import MemoryRun

torch = pytest.importorskip("torch")
pytest.importorskip("wrapt")

from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def make(criterion: Any = None, **settings: Any) -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    X = torch.randn(20, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2))
    loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), 5, shuffle=True, **settings)
    return model, loader, criterion or torch.nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), 0.1)


def loop(model, train_loader, criterion, optimizer, epochs=2):
    for _ in range(epochs):
        for x, y in train_loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return model


def assert_same_weights(function: Any, **settings: Any) -> Any:
    bare = function(*make(**settings))
    torch._dynamo.reset()
    tracked = track_training(function)(*make(**settings))
    for mine, theirs in zip(bare.parameters(), tracked.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    return tracked


@pytest.mark.timeout(120)
def test_a_compiled_model_and_a_compiled_step_train_as_without(captured: list[MemoryRun]) -> None:
    def compiled_model(model, train_loader, criterion, optimizer):
        loop(torch.compile(model, backend="eager", fullgraph=True), train_loader, criterion, optimizer)
        return model

    def compiled_step(model, train_loader, criterion, optimizer):
        @torch.compile(backend="eager", fullgraph=True)
        def loss_of(x, y):
            return criterion(model(x), y)

        for x, y in train_loader:
            optimizer.zero_grad()
            loss_of(x, y).backward()
            optimizer.step()
        return model

    assert_same_weights(compiled_model)
    assert len(series(captured[0], "train_loss_step")) == 8
    for criterion in (torch.nn.CrossEntropyLoss(), functional.cross_entropy):
        with pytest.warns(overt.OvertWarning, match="torch.compile hides"):
            assert_same_weights(compiled_step, criterion=criterion)
    assert captured[1].metrics["n_steps"] == 4
    assert captured[1].tags["overt.not_observed"] == "loss"


@pytest.mark.timeout(120)
def test_a_model_that_is_given_compiled_is_saved_as_itself(captured: list[MemoryRun]) -> None:
    model, loader, criterion, optimizer = make()
    track_training(loop)(torch.compile(model, backend="eager"), loader, criterion, optimizer)
    assert captured[0].params["model_type"] == "Sequential"
    assert captured[0].models["model"].signature is not None
    assert b"OptimizedModule" not in captured[0].artifacts["model/data/model.pth"]
    assert "overt.model_note" not in captured[0].tags


@pytest.mark.parametrize("is_persistent", [False, True])
@pytest.mark.timeout(120)
def test_worker_processes_deliver_the_same_batches(captured: list[MemoryRun], is_persistent: bool) -> None:
    assert_same_weights(loop, num_workers=1, persistent_workers=is_persistent, multiprocessing_context="fork")
    assert series(captured[0], "n_steps") == [(0, 4), (1, 4)]


def test_a_stream_without_a_length_is_observed(captured: list[MemoryRun]) -> None:
    class Stream(IterableDataset):
        def __len__(self):
            return 2  # a wrong one: torch says so to whoever has asked

        def __iter__(self):
            yield from ((torch.full((4,), float(i)), i % 2) for i in range(6))

    model, _, criterion, optimizer = make()
    track_training(loop)(model, DataLoader(Stream(), 2), criterion, optimizer)
    assert series(captured[0], "n_steps") == [(0, 3), (1, 3)]


def test_batches_of_any_shape_are_passed_on_as_they_are(captured: list[MemoryRun]) -> None:
    class Odd(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"x": torch.ones(2) * index, "text": "a", "target": {"y": torch.tensor([1.0])}}

    seen = []

    @track_training
    def train(model, loader, criterion, optimizer, epochs):
        for batch in loader:
            seen.append(type(batch))
            criterion(model(batch["x"]), batch["target"]["y"]).backward()
            optimizer.step()

    model = torch.nn.Linear(2, 1)
    train(model, DataLoader(Odd(), 2), torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), 1)
    assert seen == [dict, dict]
    assert captured[0].metrics["n_steps"] == 2


def test_a_default_device_may_change_within_the_call(captured: list[MemoryRun]) -> None:
    def train(model, train_loader, optimizer):
        torch.set_default_device("cpu")
        try:
            for x, y in train_loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        finally:
            torch.set_default_device(None)
        return model

    model, loader, _, optimizer = make()
    loader = DataLoader(loader.dataset, 5)
    track_training(every_n_steps=2)(train)(model, loader, optimizer)
    assert [step for step, _ in series(captured[0], "train_loss_step")] == [0, 2]
    assert torch.overrides._get_current_function_mode_stack() == []


def test_two_threads_train_two_models_at_once(captured: list[MemoryRun]) -> None:
    both_in = threading.Barrier(2, timeout=20)

    @track_training(log_model=False)
    def train(model, train_loader, optimizer, epochs):
        both_in.wait()
        for _ in range(epochs):
            for x, y in train_loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()

    def work() -> None:
        model, loader, _, optimizer = make()
        train(model, loader, optimizer, 3)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.status for run in captured] == ["FINISHED", "FINISHED"]
    assert [[step for step, _ in series(run, "n_steps")] for run in captured] == [[0, 1, 2]] * 2


def test_a_model_may_be_copied_and_saved_in_the_loop(captured: list[MemoryRun], tmp_path) -> None:
    import copy

    averages = []

    def train(model, train_loader, criterion, optimizer):
        averages.append(copy.deepcopy(model))
        loop(model, train_loader, criterion, optimizer)
        torch.save({"model": model, "criterion": criterion}, tmp_path / "checkpoint.pth")
        return model

    assert_same_weights(train)
    loaded = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert float(loaded["criterion"](torch.zeros(1, 2), torch.tensor([0]))) > 0
    averages[-1](torch.zeros(1, 4))


def test_a_loss_under_inference_mode_is_an_evaluation(captured: list[MemoryRun]) -> None:
    def train(model, train_loader, val_loader, criterion, optimizer):
        loop(model, train_loader, criterion, optimizer, epochs=1)
        with torch.inference_mode():
            for x, y in val_loader:
                criterion(model(x), y)

    model, loader, criterion, optimizer = make()
    track_training(train)(model, loader, DataLoader(loader.dataset, 6), criterion, optimizer)
    assert "val_accuracy" in captured[0].metrics


# -- what the function makes for itself --------------------------------------------------------------------------------


def self_made(model, train_loader, epochs=2, log=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    criterion = torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            if log is not None:
                log.append(loss.item())
        scheduler.step()


def test_an_optimizer_that_the_function_makes_is_observed_while_it_is_called(captured: list[MemoryRun]) -> None:
    from torch.optim import optimizer as optimizers

    bare, loader, _, _ = make()
    self_made(bare, loader)
    model, loader, _, _ = make()
    log: list[float] = []
    track_training(every_n_steps=1)(self_made)(model, loader, log=log)
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), model.parameters(), strict=True))
    (run,) = captured
    assert series(run, "train_loss_step") == list(enumerate(log))
    assert series(run, "lr") == [(0, 0.1), (1, 0.05)]
    assert series(run, "n_steps") == [(0, 4), (1, 4)]
    assert (run.params["optimizer"], run.params["lr"]) == ("SGD", "0.1")
    assert not optimizers._global_optimizer_pre_hooks
    assert not optimizers._global_optimizer_post_hooks


def test_optimizers_of_other_threads_and_of_calls_within_are_not_taken_for_its_own(captured: list[MemoryRun]) -> None:
    stranger = torch.nn.Linear(1, 1)
    strange_optimizer = torch.optim.SGD(stranger.parameters(), 0.1)

    @track_training(run_name="inner", log_model=False)
    def inner(model, train_loader, epochs):
        self_made(model, train_loader, epochs)

    @track_training(run_name="outer")
    def outer():
        thread = threading.Thread(target=strange_optimizer.step)
        thread.start()
        thread.join()
        model, loader, _, _ = make()
        inner(model, loader, 1)

    outer()
    by_name = {run.name: run for run in captured}
    assert by_name["inner"].metrics["n_steps"] == 4
    assert by_name["outer"].metrics == {}


def test_losses_of_a_call_within_that_has_a_run_of_its_own_are_not_the_outer_ones(captured: list[MemoryRun]) -> None:
    @track_training(run_name="inner", log_model=False)
    def inner(model, train_loader, epochs):
        self_made(model, train_loader, epochs)

    @track_training(run_name="outer", log_model=False)
    def outer(model, epochs):
        functional.mse_loss(model(torch.ones(1, 4)), torch.zeros(1, 2)).backward()
        other, loader, _, _ = make()
        inner(other, loader, 1)

    outer(make()[0], 1)
    by_name = {run.name: run for run in captured}
    assert by_name["inner"].metrics["n_steps"] == 4
    assert {name for name in by_name["outer"].metrics if "loss" in name} == {"train_loss_step", "train_loss"}


def test_a_loop_without_any_optimizer_has_a_step_for_each_loss(captured: list[MemoryRun]) -> None:
    log = []

    def by_hand(model, train_loader, criterion, epochs=2):
        for _ in range(epochs):
            for x, y in train_loader:
                loss = criterion(model(x), y)
                loss.backward()
                log.append(loss.item())
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.sub_(0.1 * parameter.grad)
                        parameter.grad = None

    model, loader, criterion, _ = make()
    track_training(by_hand)(model, loader, criterion)
    assert series(captured[0], "train_loss_step") == list(enumerate(log))
    assert [step for step, _ in series(captured[0], "train_loss")] == [0, 1]


def test_a_training_without_a_visible_loss_is_told_what_to_do(captured: list[MemoryRun]) -> None:
    def train(model, train_loader, optimizer, epochs):
        for x, _ in train_loader:
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()

    model, loader, _, optimizer = make()
    with pytest.warns(overt.OvertWarning, match=r"no training loss was seen in train\(\).*observe="):
        track_training(train)(model, loader, optimizer, 1)
    assert captured[0].status == "FINISHED"
    assert captured[0].metrics["n_steps"] == 4


@pytest.mark.timeout(120)
def test_a_compiled_model_is_not_compiled_again_for_losses_in_the_body(captured: list[MemoryRun]) -> None:
    def train(model, train_loader, val_loader, optimizer):
        for _ in range(2):
            for x, y in train_loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                for x, y in val_loader:
                    functional.cross_entropy(model(x), y)

    def graphs(train: Any) -> int:
        model, loader, _, optimizer = make()
        compiled = []

        def backend(graph: Any, inputs: Any) -> Any:
            compiled.append(graph)
            return graph.forward

        torch.compiler.reset()
        train(torch.compile(model, backend=backend, fullgraph=True), loader, loader, optimizer)
        return len(compiled)

    assert graphs(track_training(train)) == graphs(train)
    assert len(series(captured[0], "train_loss_step")) == captured[0].metrics["n_steps"] * 2


def test_that_a_loss_of_an_evaluation_was_seen_does_not_keep_that_from_being_told(
    captured: list[MemoryRun], recwarn: pytest.WarningsRecorder
) -> None:
    @track_training
    def train(model, train_loader, optimizer):
        for x, _ in train_loader:
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()
        test(model, train_loader)

    @track_training
    def test(model, val_loader):
        with torch.no_grad():
            for x, y in val_loader:
                torch.nn.functional.cross_entropy(model(x), y)

    model, loader, _, optimizer = make()
    for _ in range(2):
        train(model, loader, optimizer)
        test(model, loader)
    run = captured[0]
    assert [str(warning.message)[:40] for warning in recwarn] == ["no training loss was seen in train(), so"]
    assert run.tags["overt.not_observed"] == "loss"
    assert "training_loss" in run.metrics


# -- nothing is patched ------------------------------------------------------------------------------------------------


def test_a_call_leaves_every_attribute_of_torch_as_it_was(captured: list[MemoryRun]) -> None:
    def snapshot() -> dict[tuple[Any, str], int]:
        owners = (
            torch,
            torch.nn,
            functional,
            torch.nn.Module,
            torch.nn.CrossEntropyLoss,
            torch.nn.modules.module,
            torch.optim,
            torch.optim.Optimizer,
            torch.optim.Adam,
            sys.modules["torch.optim.optimizer"],
            torch.optim.lr_scheduler,
            torch.utils.data,
            DataLoader,
            torch.utils.data.dataloader._SingleProcessDataLoaderIter,
            torch.Tensor,
            torch.overrides,
        )
        return {(str(owner), name): id(value) for owner in owners for name, value in list(vars(owner).items())}

    parts = make()
    loop(*make())  # what torch sets up itself on first use
    before = snapshot()
    during = []

    def train(*args):
        during.append(snapshot())
        return loop(*args)

    track_training(train)(*parts)
    assert snapshot() == during[0] == before


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_torch_jit_has_compiled_is_observed_as_far_as_it_can_be(captured: list[MemoryRun]) -> None:
    model, loader, criterion, optimizer = make()
    track_training(loop)(model, loader, torch.jit.script(criterion), optimizer)
    (run,) = captured
    assert [step for step, _ in series(run, "train_loss")] == [0, 1]
    assert len(series(run, "train_loss_step")) == 8
    assert set(run.models) == {"model"}

    scripted = torch.jit.script(torch.nn.Linear(4, 2))
    with pytest.warns(overt.errors.OvertWarning, match=r"model of run .*torch\.jit has compiled it"):
        track_training(loop)(scripted, loader, criterion, torch.optim.SGD(scripted.parameters(), 0.1))
    assert [name for name in captured[1].tags if name.startswith("overt.not_recorded")] == ["overt.not_recorded.model"]
    assert captured[1].metrics["samples_per_second"] > 0
    assert captured[1].models == {}


def test_an_object_that_refuses_its_hook_keeps_no_other_from_theirs(captured: list[MemoryRun]) -> None:
    class Closed(torch.optim.SGD):
        def register_step_post_hook(self, hook: Any) -> Any:
            raise RuntimeError("not here")

    model, loader, criterion, _ = make()
    with pytest.warns(overt.errors.OvertWarning, match="observer optimizer of run .* could not be recorded"):
        track_training(loop)(model, loader, criterion, Closed(model.parameters(), 0.1))
    assert [step for step, _ in series(captured[0], "train_loss")] == [0, 1]
