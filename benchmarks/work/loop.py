"""Times a loop of about 240 us a step, bare and with a metric a step, in alternating blocks of one process.

Arguments: the side (``overt``, ``mlflow``, ``mlflow-async``) and the number of torch threads (``default`` for torch's).
The first tracked second, in which a courier starts, is reported apart as ``cold_ratio``.
"""

import json
import statistics
import sys
import time

import torch

side, threads = sys.argv[1:3]
if threads != "default":
    torch.set_num_threads(int(threads))
torch.manual_seed(0)

STEPS = {"overt": 4_000, "mlflow": 40, "mlflow-async": 200}[side]
BLOCKS = {"overt": 16, "mlflow": 6, "mlflow-async": 12}[side]


def make_step(width: int, rows: int):
    """One step of training an MLP of this width on so many rows; returns the loss as a float."""
    X, y = torch.randn(rows, 64), torch.randint(0, 4, (rows,))
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(X), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def seconds_per_step(step, log, count: int) -> float:
    """Mean time of a step that hands its loss to ``log``."""
    began = time.perf_counter()
    for _ in range(count):
        log(step())
    return (time.perf_counter() - began) / count


def ignore(loss: float) -> None:
    """The bare loop."""


def step_near(target_s: float):
    """The size whose step comes nearest to the target."""
    timed = []
    for size in ((16, 16), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (256, 128), (384, 128)):
        step = make_step(*size)
        seconds_per_step(step, ignore, 200)
        timed.append((abs(seconds_per_step(step, ignore, 500) - target_s), size))
    return make_step(*min(timed)[1])


step = step_near(240e-6)
seconds_per_step(step, ignore, 500)

logged = 0
cold_ratio = None
if side == "overt":
    import overt

    bare = seconds_per_step(step, ignore, 2000)
    run = overt.start_run("bench")

    def log(loss: float) -> None:
        global logged
        logged += 1
        run.log_metric("loss", loss)

    began = time.perf_counter()
    cold = []
    while time.perf_counter() - began < 1.0:
        cold.append(seconds_per_step(step, log, 100))
    cold_ratio = statistics.mean(cold) / bare
    overt.wait()
else:
    import mlflow

    mlflow.start_run()

    def log(loss: float) -> None:
        global logged
        mlflow.log_metric("loss", loss, step=logged, synchronous=side == "mlflow")
        logged += 1


ratios, bare_times = [], []
for block in range(BLOCKS):  # bare, tracked; tracked, bare; …: a drift of the machine cancels
    order = (ignore, log) if block % 2 == 0 else (log, ignore)
    times = {}
    for which in order:
        if which is ignore and side == "overt":
            overt.wait()  # the bare block shares the machine with no delivery …
        if which is log and side == "overt":
            seconds_per_step(step, log, STEPS // 2)  # … and the tracked one with a courier in the midst of delivering
        times[which] = seconds_per_step(step, which, STEPS)
    ratios.append(times[log] / times[ignore])
    bare_times.append(times[ignore])

if side == "overt":
    run.finish()
    run_id = run.id
else:
    run_id = mlflow.active_run().info.run_id
    mlflow.end_run()
    mlflow.flush_async_logging()
print(
    json.dumps(
        {
            "ratio": statistics.median(ratios),
            "cold_ratio": cold_ratio,
            "step_us": 1e6 * statistics.median(bare_times),
            "expect": {run_id: {"metrics": {"loss": logged}}},
        }
    )
)
