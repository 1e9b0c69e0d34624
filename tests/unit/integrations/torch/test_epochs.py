"""The state machine alone: events in, epochs out, with numbers for losses and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

pytest.importorskip("torch")
pytest.importorskip("wrapt")

from hypothesis import given
from hypothesis import strategies as st

from overt.integrations.torch import epochs as module
from overt.integrations.torch.epochs import Epoch, Epochs, Loss, Pass, Step


class Machine(Epochs):
    """With everything that came out, and a clock that goes on by a second whenever it is looked at."""

    def __init__(self, *optimizers: str) -> None:
        self.told: list[Epoch] = []
        self.steps: list[Step] = []
        self.reads = 0
        self.seconds = 0.0
        super().__init__(self.read, self.told.append, self.steps.extend, self.tick)
        self.optimizers.extend(optimizers)

    def tick(self) -> float:
        self.seconds += 1
        return self.seconds

    def read(self, values: Sequence[float]) -> Sequence[float]:
        self.reads += 1
        return list(values)

    def over(
        self, loader: str, batches: int, each: Callable[[], None], *, length: int = 0, identity: object = None
    ) -> Pass:
        begun = self.begin_pass(loader, length, identity)
        for _ in range(batches):
            self.draw(begun, samples=2)
            each()
        self.end_pass(begun)
        return begun

    def trained(self, value: float = 1.0, samples: int = 2, **how: object) -> None:
        self.train(Loss("loss", value, samples, **how))
        self.step("sgd")

    def evaluated(self, value: float = 1.0, samples: int = 2) -> tuple[str, bool]:
        return self.evaluate(Loss("loss", value, samples))

    def series(self, name: str) -> list[tuple[int, float]]:
        return [(epoch.index, epoch.metrics[name]) for epoch in self.told if name in epoch.metrics]


def test_an_epoch_lasts_until_its_loader_is_started_again() -> None:
    machine = Machine("sgd")
    for value in (1.0, 2.0, 3.0):
        machine.over("train", 4, lambda value=value: machine.trained(value))
        machine.over("val", 2, lambda value=value: machine.evaluated(value / 2) and None)
    machine.close()
    assert machine.series("train_loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert machine.series("val_loss") == [(0, 0.5), (1, 1.0), (2, 1.5)]
    assert machine.series("n_steps") == [(0, 4), (1, 4), (2, 4)]
    assert [step.number for step in machine.steps] == list(range(12))


def test_values_are_read_once_an_epoch() -> None:
    machine = Machine("sgd")
    for _ in range(3):
        machine.over("train", 50, machine.trained)
    machine.close()
    assert machine.reads == 3


def test_a_long_epoch_is_read_in_pieces_and_its_mean_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 7)
    machine = Machine("sgd")
    values = iter(range(50))
    machine.over("train", 50, lambda: machine.trained(float(next(values))))
    machine.close()
    assert machine.reads > 7
    assert machine.series("train_loss") == [(0, sum(range(50)) / 50)]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(1, 64), st.booleans()), min_size=1))
def test_the_mean_is_the_one_that_a_loop_adds_up(losses: list[tuple[float, int, bool]]) -> None:
    machine = Machine("sgd")
    total, count = 0.0, 0
    for value, samples, is_sum in losses:
        machine.trained(value, samples, is_sum=is_sum)
        total += value if is_sum else value * samples
        count += samples
    machine.close()
    assert machine.series("train_loss") == [(0, total / count)]


def test_a_shorter_loader_beside_the_longer_may_start_again() -> None:
    machine = Machine("sgd")
    for _ in range(2):
        short = machine.begin_pass("short", 2)

        def each() -> None:
            nonlocal short
            if short.batches == 2:
                machine.end_pass(short)
                short = machine.begin_pass("short", 2)
            machine.draw(short)
            machine.trained()

        machine.over("long", 5, each, length=5)
    machine.close()
    assert machine.series("n_steps") == [(0, 5), (1, 5)]


def test_a_pass_that_was_left_ends_when_its_loader_is_started_again() -> None:
    machine = Machine("sgd")
    for _ in range(3):
        machine.draw(machine.begin_pass("train"))  # never ended
        machine.trained()
    machine.close()
    assert machine.series("n_steps") == [(0, 1), (1, 1), (2, 1)]


def test_a_look_at_one_batch_is_no_epoch() -> None:
    machine = Machine("sgd")
    machine.over("train", 1, lambda: None)
    machine.over("train", 3, machine.trained)
    machine.close()
    assert machine.series("n_steps") == [(0, 3)]


def test_the_last_evaluation_of_an_epoch_is_the_one_that_counts() -> None:
    machine = Machine("sgd")
    begun = machine.begin_pass("train")
    for value in (1.0, 2.0):
        machine.draw(begun)
        machine.trained()
        machine.over("val", 3, lambda value=value: machine.evaluated(value) and None)
    machine.trained()
    machine.end_pass(begun)
    machine.close()
    assert machine.series("val_loss") == [(0, 2.0)]
    assert machine.series("n_steps") == [(0, 3)]


def test_a_new_evaluation_is_told_from_one_that_goes_on() -> None:
    machine = Machine("sgd")
    told: list[tuple[str, bool]] = []
    for _ in range(2):
        machine.over("val", 2, lambda: told.append(machine.evaluated()))
    assert told == [("val", True), ("val", False), ("val", True), ("val", False)]
    machine.trained()
    told.clear()
    for _ in range(2):
        machine.trained()
        told += [machine.evaluated(), machine.evaluated()]
    assert told == [("val_without_loader", True), ("val_without_loader", False)] * 2


def test_what_is_evaluated_on_a_batch_of_the_training_is_never_held_out() -> None:
    machine = Machine("sgd")
    names = []

    def each() -> None:
        machine.trained()
        names.append(machine.evaluated(3.0)[0])  # of a loader that has no name and no identity to know it by

    for _ in range(2):
        machine.over("loader", 2, each)
        machine.over("other", 2, lambda: machine.evaluated(5.0) and None)
    machine.close()
    assert names == ["training"] * 4
    assert machine.series("training_loss") == [(0, 3.0), (1, 3.0)]
    assert machine.series("val_loss") == [(0, 5.0), (1, 5.0)]


def test_a_batch_that_was_looked_at_before_the_training_makes_its_loader_none_of_the_training() -> None:
    machine = Machine("sgd")
    hanging = machine.begin_pass("held_out", 9, identity="held out")
    machine.draw(hanging, samples=1000)
    begun = machine.over("loader", 4, machine.trained, identity="trained on")
    seconds = machine.seconds - begun.began
    machine.over("held_out", 2, lambda: machine.evaluated(5.0) and None, identity="held out")
    machine.over("loader", 4, machine.trained, identity="trained on")
    machine.close()
    assert machine.series("val_loss") == [(0, 5.0)]
    assert machine.series("n_steps") == [(0, 4), (1, 4)]
    assert machine.series("samples_per_second")[0] == (0, 8 / seconds)


def test_an_iterator_that_is_drawn_from_once_an_epoch_is_no_training() -> None:
    machine = Machine("sgd")
    hanging = machine.begin_pass("held_out")
    names = []
    for _ in range(2):
        begun = machine.begin_pass("loader")
        for batch in range(3):
            machine.draw(begun)
            machine.trained()
            if batch == 1:
                machine.draw(hanging)
                names.append(machine.evaluated()[0])
        machine.end_pass(begun)
        machine.over("held_out", 2, lambda: names.append(machine.evaluated()[0]))
    machine.close()
    assert names == ["val"] * 6
    assert machine.series("n_steps") == [(0, 3), (1, 3)]


def test_loaders_that_are_drawn_from_together_are_both_trained_on() -> None:
    machine = Machine("sgd")
    for _ in range(2):
        long, short = machine.begin_pass("long", 3, identity=1), machine.begin_pass("short", 1, identity=2)
        machine.draw(long, samples=2)
        machine.draw(short, samples=2)
        machine.trained()
        for _ in range(2):
            machine.draw(long, samples=2)
            machine.trained()
    machine.close()
    assert machine.series("n_steps") == [(0, 3), (1, 3)]
    names = []
    for identity, loader in enumerate(("long", "short"), 1):
        machine.over(loader, 1, lambda: names.append(machine.evaluated()[0]), identity=identity)
    assert names == ["training", "training_short"]


def test_losses_that_share_a_batch_are_told_from_those_that_go_through_it_again() -> None:
    machine = Machine("sgd")
    further: list[bool] = []

    def each() -> None:
        for samples in (1, 1, 2):  # the batch in two parts, and once again as a whole
            loss = Loss("loss", 1.0, samples)
            machine.evaluate(loss)
            further.append(loss.is_further)

    machine.over("val", 2, each)
    assert further == [False, False, True] * 2


def test_sets_have_names_of_their_own() -> None:
    machine = Machine("sgd")
    names = []
    for loader in ("valid_loader", "test_loader", "train_loader"):
        machine.over(loader, 1, lambda: names.append(machine.evaluated()[0]))
    assert names == ["val", "test", "training"]
    other = Machine()
    other.over("test_loader", 1, lambda: names.append(other.evaluated()[0]))
    assert names[-1] == "val"  # the only one there is


def test_sets_of_several_loaders_under_one_name_are_told_apart_in_each_epoch() -> None:
    machine = Machine("sgd")
    names: list[list[str]] = []
    for epoch in range(2):
        machine.over("loader", 1, machine.trained, identity="trained on")
        names.append([])
        for identity in ("trained on", f"a new one {epoch}", f"another new one {epoch}"):
            machine.over("loader", 1, lambda: names[-1].append(machine.evaluated()[0]), identity=identity)
            machine.close()
    assert names == [["training", "val", "val_2"]] * 2


def test_a_doubtful_loss_is_one_of_a_training_only_if_it_went_back() -> None:
    machine = Machine("sgd")
    for went_back in (True, False):
        machine.trained(1.0 if went_back else 9.0, is_doubtful=True, went_back=went_back)
    machine.close()
    assert machine.series("train_loss") == [(0, 1.0)]
    assert machine.series("n_steps") == [(0, 2)]
    assert machine.n_left_out == 1


def test_losses_that_no_step_came_after_count_for_their_epoch() -> None:
    machine = Machine("sgd")
    machine.over("train", 2, machine.trained)
    machine.train(Loss("loss", 7.0, 2))
    machine.close()
    assert machine.series("train_loss") == [(0, (1 + 1 + 7) / 3)]
    assert machine.series("n_steps") == [(0, 2)]


def test_with_several_optimizers_a_step_takes_what_went_backward() -> None:
    machine = Machine("one", "two")
    first, second, unused = (Loss("loss", value, 1) for value in (1.0, 2.0, 3.0))
    for loss in (first, second, unused):
        machine.train(loss)
    second.went_back = True
    machine.step("two")
    first.went_back = True
    machine.step("one")
    machine.close()
    assert machine.series("train_loss_two") == [(0, 2.0)]
    assert machine.series("train_loss_one") == [(0, 1.0)]


def test_an_epoch_may_be_given_its_number() -> None:
    machine = Machine("sgd")
    for epoch in (5, 6):
        machine.begin(epoch)
        machine.over("train", 1, machine.trained)
        machine.close()
        machine.begin()
        machine.over("test", 1, lambda: machine.evaluated() and None)
        machine.close()
    assert [index for index, _ in machine.series("train_loss")] == [5, 6]
    assert [index for index, _ in machine.series("val_loss")] == [5, 6]


def test_the_first_loss_that_is_no_number_is_told_with_its_place() -> None:
    machine = Machine("sgd")
    values = iter([1.0, float("inf"), float("nan")])

    def each() -> None:
        loss = Loss("loss", next(values), 2, batch=machine.batch)
        machine.train(loss)
        machine.step("sgd")

    machine.over("train", 3, each)
    machine.close()
    loss, value = machine.told[0].not_finite
    assert (loss.place, value) == (", batch 1, step 1", float("inf"))


def test_speed_counts_samples_of_the_training_and_seconds_of_it() -> None:
    machine = Machine("sgd")
    begun = machine.over("train", 4, machine.trained)
    trained_until = machine.seconds
    machine.over("val", 4, lambda: machine.evaluated() and None)
    machine.close()
    metrics = machine.told[0].metrics
    assert metrics["samples_per_second"] == 8 / (trained_until - begun.began)
    assert metrics["epoch_seconds"] > trained_until - begun.began


def test_steps_are_told_together_each_with_its_own_loss_and_number() -> None:
    machine = Machine("sgd")
    machine._now = lambda: 0.0
    values = iter(range(module.MOST_STEPS + 3))
    machine.over("train", module.MOST_STEPS - 1, lambda: machine.trained(float(next(values))))
    assert machine.steps == []
    assert machine.count_of("sgd") == module.MOST_STEPS - 1
    machine.over("other", 4, lambda: machine.trained(float(next(values))))
    assert len(machine.steps) == module.MOST_STEPS
    machine.close()
    told = [(step.number, loss.value) for step in machine.steps for loss in step.losses["train_loss"]]
    assert told == [(number, float(number)) for number in range(module.MOST_STEPS + 3)]


def test_no_step_waits_longer_than_a_moment_for_the_others() -> None:
    machine = Machine("sgd")  # a second and more for each step
    machine.over("train", 2, machine.trained)
    assert [step.number for step in machine.steps] == [0, 1]


def test_steps_that_wait_keep_their_place_before_those_that_do_not() -> None:
    machine = Machine("sgd")
    machine._now = lambda: 0.0
    machine.trained(1.0)
    machine.train(Loss("loss", 2.0, 2))
    machine.trained(3.0)
    machine.optimizers.append("adam")
    machine.train(Loss("loss", 4.0, 2, went_back=True))
    machine.step("adam")
    assert [(step.optimizer, step.number) for step in machine.steps] == [("sgd", 0), ("sgd", 1), ("adam", 0)]
    assert [len(losses) for step in machine.steps for losses in step.losses.values()] == [1, 2, 1]


@pytest.mark.parametrize("ends", [Machine.close, Machine.abandon, Machine.state_dict])
def test_what_waits_is_told_before_an_epoch_ends_and_before_its_state_is_asked_for(
    ends: Callable[[Machine], object],
) -> None:
    machine = Machine("sgd")
    machine._now = lambda: 0.0
    machine.over("train", 3, machine.trained)
    assert machine.steps == []
    ends(machine)
    assert [step.number for step in machine.steps] == [0, 1, 2]
    assert machine.state_dict()["counts"] == {"sgd": 3}
