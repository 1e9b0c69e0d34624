"""Copies, pickles and files of what a loop was given hold the real objects, and nobody needs overt to read them.

Those of a decorated function are what they are of a bare one.
"""

from __future__ import annotations

import copy
import io
import itertools
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import overt

torch = pytest.importorskip("torch")
pytest.importorskip("wrapt")

import cloudpickle  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402
from overt.integrations.torch.observers import is_observer  # noqa: E402


class BatchLoader:
    """A loader whose ``__new__`` is given arguments, and which knows who has it."""

    def __new__(cls, n: int) -> BatchLoader:
        made = super().__new__(cls)
        made.n = n
        return made

    def __getnewargs__(self) -> tuple[int]:
        return (self.n,)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n))


class Criterion:
    """A loss that is an object; one of its methods may be the loss too."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.itself: Any = None

    def __call__(self, out: Any, y: Any) -> Any:
        return self.weight * functional.mse_loss(out, y)

    def compute(self, out: Any, y: Any) -> Any:
        return self(out, y)


def by_torch(value: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def from_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)


WAYS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    **{
        f"pickle {protocol}": (lambda value, p=protocol: pickle.dumps(value, p), pickle.loads)
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "python's pickle": (pickle._dumps, pickle.loads),
    "cloudpickle": (cloudpickle.dumps, cloudpickle.loads),
    "torch.save": (by_torch, from_torch),
    "torch.save with cloudpickle": (lambda value: by_torch(value, pickle_module=cloudpickle), from_torch),
}


def within_a_call(**given: Any) -> dict[str, Any]:
    """The arguments as a function sees them; each of them is observed."""
    seen: dict[str, Any] = {}

    def train(model: Any, **observed: Any) -> None:
        assert all(map(is_observer, observed.values()))
        seen.update(observed)

    with overt.testing.captured_runs():
        track_training(log_model=False)(train)(torch.nn.Linear(1, 1), **given)
    return seen


def loader() -> Any:
    return DataLoader(TensorDataset(torch.arange(6.0).reshape(6, 1)), 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_pickle_yields_the_real_object_and_names_nothing_of_overt(way: str) -> None:
    dump, load = WAYS[way]
    data, criterion = loader(), Criterion(2.0)
    seen = within_a_call(
        data_loader=data, batch_loader=BatchLoader(3), criterion=criterion, loss_fn=functional.mse_loss, loss_2=abs
    )
    seen["loss_of_an_object"] = within_a_call(loss=criterion.compute)["loss"]
    for name, observer in seen.items():
        dumped = dump(observer)
        assert b"overt" not in dumped.replace(__name__.encode(), b""), name
        loaded = load(dumped)
        assert not is_observer(loaded), name
        assert type(loaded) is type(observer.__wrapped__), name
    assert [batch[0].tolist() for batch in load(dump(seen["data_loader"]))] == [batch[0].tolist() for batch in data]
    assert load(dump(seen["batch_loader"])).n == 3
    assert load(dump(seen["criterion"])).weight == 2.0
    assert load(dump(seen["loss_of_an_object"]))(torch.ones(1), torch.zeros(1)) == 2.0
    assert load(dump(seen["loss_2"])) is abs
    if "cloudpickle" not in way:  # which takes the proxy for a function that is not the one under its name
        assert load(dump(seen["loss_fn"])) is functional.mse_loss
    assert load(dump(seen["loss_fn"]))(torch.ones(1), torch.zeros(1)) == 1.0


@pytest.mark.parametrize("way", WAYS)
def test_a_pickle_that_has_both_has_one_object(way: str) -> None:
    dump, load = WAYS[way]
    data = loader()
    observer = within_a_call(loader=data)["loader"]
    for both in ([observer, data], [data, observer], [observer, observer]):
        one, other = load(dump(both))
        assert one is other
        assert type(one) is DataLoader


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_holds_its_own_observer_comes_back_as_one_that_holds_itself(way: str) -> None:
    dump, load = WAYS[way]
    criterion = Criterion(1.0)
    criterion.itself = within_a_call(criterion=criterion)["criterion"]
    for start in (criterion, criterion.itself):
        loaded = load(dump(start))
        assert loaded.itself is loaded
        copied = copy.deepcopy(start)
        assert copied.itself is copied


def test_a_lambda_and_what_is_made_within_a_function_are_pickled_where_they_would_be_without() -> None:
    observer = within_a_call(loss=lambda out, y: out - y)["loss"]
    assert cloudpickle.loads(cloudpickle.dumps(observer))(3, 1) == 2
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(observer)


def test_copies_are_copies_of_the_real_object() -> None:
    criterion = Criterion(1.0)
    seen = within_a_call(loader=loader(), criterion=criterion, loss_fn=functional.mse_loss)
    for make in (copy.copy, copy.deepcopy):
        assert type(make(seen["loader"])) is DataLoader
        assert make(seen["loss_fn"]) is functional.mse_loss
        assert type(make(seen["criterion"])) is Criterion
        assert make(seen["criterion"]) is not criterion
    one, other = copy.deepcopy([seen["criterion"], criterion])
    assert one is other


def test_an_iterator_is_shared_out_and_copied_as_it_would_be_without() -> None:
    def train(loader: Any, data: Any) -> tuple[Any, ...]:
        one, other = itertools.tee(loader)
        first = [x.tolist() for (x,) in one], [x.tolist() for (x,) in other]
        batches = iter(data)
        next(batches)
        twins = copy.copy(batches), copy.deepcopy(batches), pickle.loads(pickle.dumps(batches))
        with pytest.raises(NotImplementedError, match="cannot be pickled"):
            copy.copy(iter(loader))
        return first, [list(twin) for twin in twins], list(map(type, twins)), hasattr(iter(loader), "__copy__")

    given = loader(), [[1], [2], [3]]
    with overt.testing.captured_runs():
        tracked = track_training(observe=["data"], log_model=False)(train)(*given)
    assert tracked == train(*given)


@pytest.mark.timeout(120)
def test_they_are_read_where_overt_cannot_be_imported(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)

    @track_training
    def train(model: Any, loader: Any, criterion: Any, module_loss: Any, optimizer: Any) -> None:
        model.criterion = criterion
        state = {"model": model, "loader": loader, "criterion": criterion, "module_loss": module_loss, "o": optimizer}
        torch.save(state, tmp_path / "torch.pth")
        torch.save(state, tmp_path / "cloudpickle.pth", pickle_module=cloudpickle)
        (tmp_path / "plain.pkl").write_bytes(pickle.dumps(state))
        torch.save(copy.deepcopy(state), tmp_path / "copied.pth")

    with overt.testing.captured_runs():
        train(model, loader(), functional.mse_loss, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1))
    code = """
        import sys
        sys.modules["overt"] = None  # not there
        import pickle, torch
        places = [torch.load(f"{name}.pth", weights_only=False) for name in ("torch", "cloudpickle", "copied")]
        for state in (*places, pickle.load(open("plain.pkl", "rb"))):
            assert type(state["loader"]) is torch.utils.data.DataLoader
            assert len(list(state["loader"])) == 3
            for loss in (state["criterion"], state["model"].criterion, state["module_loss"]):
                assert loss(torch.ones(1), torch.zeros(1)) == 1
            state["o"].step()
        assert not [name for name in sys.modules if name.startswith("overt") and sys.modules[name] is not None]
        print("read")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


# -- decorated functions -----------------------------------------------------------------------------------------------


class Bare:
    """What is asked of the decorated ones is what these do."""

    def method(self) -> str:
        return type(self).__name__

    @staticmethod
    def static() -> str:
        return "static"

    static_inside = static

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    of_class_inside = of_class


class Decorated:
    """Decorated in each way there is."""

    @track_training
    def method(self) -> str:
        return type(self).__name__

    @track_training
    @staticmethod
    def static() -> str:
        return "static"

    @staticmethod
    @track_training
    def static_inside() -> str:
        return "static"

    @track_training
    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @classmethod
    @track_training
    def of_class_inside(cls) -> str:
        return cls.__name__


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{name: lambda value, dump=dump, load=load: load(dump(value)) for name, (dump, load) in WAYS.items()},
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ["method", "static", "static_inside", "of_class", "of_class_inside"])
def test_a_decorated_function_in_a_class_is_copied_and_pickled_as_a_bare_one(name: str, way: str) -> None:
    make = COPIES[way]
    made = make(getattr(Decorated, name))
    assert made == getattr(Decorated, name)
    assert type(made) is type(getattr(Decorated, name))
    own, bare = Decorated(), Bare()
    of_own, of_bare = make(getattr(own, name)), make(getattr(bare, name))
    if "cloudpickle" not in way:  # which makes another method of a bare class of its own accord
        assert (of_own == getattr(own, name)) is (of_bare == getattr(bare, name))  # of the same or of another object
    with overt.testing.captured_runs() as runs:
        assert of_own() == of_bare().replace("Bare", "Decorated")
    assert len(runs) == 1


def test_a_method_goes_with_the_copy_of_its_object() -> None:
    own = Decorated()
    own.kept = own.method
    twin = copy.deepcopy(own)
    assert twin.kept.__self__ is twin


JOB = """
    import cloudpickle, joblib, torch
    import overt
    from torch.utils.data import DataLoader, TensorDataset

    @overt.track_training(run_name="job", tags={"kept": 1})
    def train(model, loader, criterion, optimizer):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()

    class Trainer:
        @overt.track_training(run_name="method")
        def fit(self):
            return overt.current_run().name

        @overt.track_training(run_name="static")
        @staticmethod
        def fit_static():
            return overt.current_run().name

    class Plain:
        @overt.track_training
        def fit(self):
            return 1

        @overt.track_training
        @staticmethod
        def fit_static():
            return 2

    def job():
        model = torch.nn.Linear(2, 1)
        loader = DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4, 1)), 2)
        train(model, loader, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1))
        train.run_.finish()
        return train.run_.name, train.run_.status, train.run_.metrics["n_steps"], train.run_.tags["kept"]

    if __name__ == "__main__":
        called = (job, Trainer().fit, Trainer.fit_static)
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(one)() for one in called))
        open("job.pkl", "wb").write(cloudpickle.dumps([train, Plain]))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_cloudpickle_writes_by_value_records_elsewhere_and_is_read_without_overt(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    (tmp_path / "job.py").write_text(textwrap.dedent(JOB))
    (tmp_path / "read.py").write_text(
        "import pickle, sys, types\n"
        "sys.modules['overt'] = None\n"
        "train, Plain = pickle.load(open('job.pkl', 'rb'))\n"
        "print(type(train) is type(Plain.fit) is type(Plain.fit_static) is types.FunctionType)\n"
    )
    environment = os.environ | {"OVERT_DELIVERY": "manual", "OVERT_DIR": str(tmp_path / "overt")}
    outputs = []
    for script in ("job.py", "read.py"):
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    assert outputs == [["[('job', 'FINISHED', 2.0, '1'), 'method', 'static']"], ["True"]]


def test_what_a_function_made_calls_itself_by_is_the_decorated_one() -> None:
    def make(offset: int) -> Any:
        @track_training
        def count(n: int) -> int:
            return offset if n == 0 else 1 + count(n - 1)

        return count

    loaded = cloudpickle.loads(cloudpickle.dumps(make(5)))
    with overt.testing.captured_runs() as runs:
        assert loaded(1) == 6
    assert [run.params["n"] for run in runs] == ["1"]
    with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
        pickle.dumps(make(5))
