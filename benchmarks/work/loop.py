"""Times a loop of about 240 us a step, bare and with a metric a step, in alternating blocks of one process.

Arguments: the side (``overt``, ``mlflow``, ``mlflow-async``) and the number of torch threads (``default`` for torch's).
The first tracked second, in which a courier starts, is reported apart as ``cold_ratio``.
"""

import json
import statistics
import sys
import time
from functools import partial

import torch
from steps import ignore, seconds_per_step, step_near

side, threads = sys.argv[1:3]
if threads != "default":
    torch.set_num_threads(int(threads))
torch.manual_seed(0)

STEPS = {"overt": 4_000, "mlflow": 40, "mlflow-async": 200}[side]
BLOCKS = {"overt": 16, "mlflow": 6, "mlflow-async": 12}[side]


step = step_near(240e-6)
seconds_per_step(step, ignore, 500)

cold_ratio = None
if side == "overt":
    import overt

    bare = seconds_per_step(step, ignore, 2000)
    run = overt.start_run("bench")
    log = partial(run.log_metric, "loss")

    began = time.perf_counter()
    cold = []
    while time.perf_counter() - began < 1.0:
        cold.append(seconds_per_step(step, log, 100))
    cold_ratio = statistics.mean(cold) / bare
    logged = 100 * len(cold) + BLOCKS * (STEPS + STEPS // 2)  # counting them is no part of a loop
    overt.wait()
else:
    import mlflow

    mlflow.start_run()
    logged = 0

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
