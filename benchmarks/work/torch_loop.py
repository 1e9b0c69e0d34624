"""Times a PyTorch training loop bare, with ``@track_training``, and with the same numbers logged by hand.

Arguments: the side (``overt``, ``overt-functional``, ``mlflow``, ``mlflow-async``, ``tensorboard``), about how many
microseconds a step is to take, and the number of torch threads (``default`` for torch's). A step is one batch of a
DataLoader through an MLP. In ``overt-functional`` the loss is no argument of the loop, and is looked for in the scoped
hook.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from blocks import in_turns, timed
from torch.utils.data import DataLoader, TensorDataset

side, step_us, threads = sys.argv[1], float(sys.argv[2]), sys.argv[3]
if threads != "default":
    torch.set_num_threads(int(threads))
torch.manual_seed(0)

EPOCHS = 6
BLOCKS = {"mlflow": 2, "mlflow-async": 4}.get(side, 6)
SECONDS = {"mlflow": 0.01, "mlflow-async": 0.03}.get(side, 0.2)  # of a bare epoch
SIZES = ((8, 32), (16, 64), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512))
Log = Callable[[str, float, int], object]


class NotingLoader(DataLoader):
    """Notes when it is started: the loop itself stays as it is."""

    starts: list[float] = []  # noqa: RUF012 - given for each training

    def __iter__(self):
        self.starts.append(time.perf_counter())
        return super().__iter__()


def train(model, train_loader, val_loader, criterion, optimizer, epochs):
    """A loop as in any tutorial."""
    for _ in range(epochs):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, y in val_loader:
                criterion(model(x), y)


def train_functional(model, train_loader, val_loader, optimizer, epochs):
    """A loop whose loss is a function that it names itself."""
    train(model, train_loader, val_loader, torch.nn.functional.cross_entropy, optimizer, epochs)


def train_and_log(log: Log, model, train_loader, val_loader, criterion, optimizer, epochs):
    """The same loop with the numbers that ``@track_training`` records, logged by hand."""
    step = 0
    for epoch in range(epochs):
        began, total, count = time.perf_counter(), 0.0, 0
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            value = loss.item()
            log("train_loss_step", value, step)
            total, count, step = total + value * len(x), count + len(x), step + 1
        trained = time.perf_counter() - began
        model.eval()
        val_total, right, val_count = 0.0, 0, 0
        with torch.no_grad():
            for x, y in val_loader:
                output = model(x)
                val_total += criterion(output, y).item() * len(x)
                right += (output.argmax(1) == y).sum().item()
                val_count += len(x)
        log("train_loss", total / count, epoch)
        log("val_loss", val_total / val_count, epoch)
        log("val_accuracy", right / val_count, epoch)
        log("lr", optimizer.param_groups[0]["lr"], epoch)
        log("n_steps", len(train_loader), epoch)
        log("samples_per_second", count / trained, epoch)
        log("epoch_seconds", time.perf_counter() - began, epoch)


def arguments(rows: int, width: int, steps: int) -> tuple:
    """What a loop of so many steps an epoch is given: a validation of a tenth of its batches is part of it."""
    X, y = torch.randn(rows * steps, 64), torch.randint(0, 4, (rows * steps,))
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    held_out = rows * max(1, steps // 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train_loader = NotingLoader(TensorDataset(X, y), batch_size=rows, shuffle=True)
    val_loader = DataLoader(TensorDataset(X[:held_out], y[:held_out]), batch_size=rows)
    criterion = () if side == "overt-functional" else (torch.nn.CrossEntropyLoss(),)
    return model, train_loader, val_loader, *criterion, optimizer, EPOCHS


def noting(function: Callable[..., object]) -> Callable[[list[float]], object]:
    """``function`` as what :func:`blocks.timed` takes."""

    def call(starts: list[float]) -> object:
        NotingLoader.starts = starts
        return function(*given)

    return call


def bare_step_s(size: tuple[int, int], steps: int) -> float:
    """Seconds of a step of the bare loop, its share of the validation included, when nothing comes in between."""
    global given
    given = arguments(*size, steps)
    starts: list[float] = []
    noting(bare)(starts)
    return min(later - earlier for earlier, later in pairwise(starts)) / steps


bare = train_functional if side == "overt-functional" else train
size = min(SIZES, key=lambda size: abs(bare_step_s(size, 40) - 1e-6 * step_us))
steps = max(20, int(SECONDS / (1e-6 * step_us)))
given = arguments(*size, steps)
series = dict.fromkeys("train_loss val_loss val_accuracy lr n_steps samples_per_second epoch_seconds".split(), EPOCHS)
if side == "overt-functional":  # every tenth step, and the first of each pass
    series["train_loss_step"] = len({*range(0, EPOCHS * steps, 10), *range(0, EPOCHS * steps, steps)})
else:
    series["train_loss_step"] = EPOCHS * steps
expect: dict[str, object] = {}


def wait() -> None:
    """A bare loop shares the machine with no delivery."""
    if side.startswith("overt"):
        assert overt.wait(60), "not everything arrived"
    elif side.startswith("mlflow"):
        mlflow.flush_async_logging()


if side.startswith("overt"):
    import overt

    followed = overt.track_training(bare)
    runs = []

    def tracked(*arguments) -> None:
        followed(*arguments)
        runs.append(followed.run_)
elif side == "tensorboard":
    from event_files import count_points

    try:
        from torch.utils.tensorboard import SummaryWriter  # which needs tensorboard
    except ImportError:
        from tensorboardX import SummaryWriter

    folders = []

    def tracked(*arguments) -> None:
        folders.append(f"events/{len(folders)}")
        with SummaryWriter(folders[-1]) as writer:
            train_and_log(writer.add_scalar, *arguments)
else:
    import mlflow

    def log(name: str, value: float, step: int) -> None:
        mlflow.log_metric(name, value, step=step, synchronous=side == "mlflow")

    def tracked(*arguments) -> None:
        with mlflow.start_run() as active:
            train_and_log(log, *arguments)
        expect[active.info.run_id] = {"metrics": series}


timed(noting(tracked))  # what is used for the first time, and a courier that starts
wait()
result = in_turns(noting(bare), noting(tracked), blocks=BLOCKS, before_bare=wait)
wait()
if side.startswith("overt"):
    files = ["val_confusion_matrix.json", "val_classification_report.json", "model_summary.txt"]
    expect = {run.id: {"metrics": series, "files": files, "models": 1} for run in runs}
elif side == "tensorboard":
    assert all(count_points(folder) == series for folder in folders), "not every point is in its event file"
print(json.dumps(result | {"step_us": 1e6 * result["epoch_s"] / steps, "expect": expect}))
