"""Times every single step of a loop of about 240 us a step, bare and while a warm courier delivers: which ones stall?

Argument: the number of torch threads (``default`` for torch's). A loop's mean hides what happens here: with as many
threads as cores, a step waits for the thread whose core the courier has, until the kernel takes that core away from it.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from steps import ignore, seconds_per_step, step_near

import overt

BLOCKS, STEPS = 8, 4_000
STALL_S = 0.002

threads = sys.argv[1]
if threads != "default":
    torch.set_num_threads(int(threads))
torch.manual_seed(0)
step = step_near(240e-6)
run = overt.start_run("bench")
logged = 0


def log(loss: float) -> None:
    """A metric a step."""
    global logged
    logged += 1
    run.log_metric("loss", loss)


def seconds_of_steps(call: Callable[[float], None]) -> list[tuple[float, float]]:
    """Seconds of each step, and of the call after it."""
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = step()
        computed = time.perf_counter()
        call(loss)
        times.append((computed - began, time.perf_counter() - computed))
    return times


seconds_per_step(step, log, STEPS)
bare: list[tuple[float, float]] = []
tracked: list[tuple[float, float]] = []
for _ in range(BLOCKS):
    assert overt.wait(60), "not everything arrived"
    bare += seconds_of_steps(ignore)
    seconds_per_step(step, log, STEPS // 2)  # a courier in the midst of delivering
    tracked += seconds_of_steps(log)
run.finish()


def percentile(values: list[float], share: float) -> float:
    """In microseconds."""
    return 1e6 * sorted(values)[int(share * len(values))]


bare_steps, steps = [step_s for step_s, _ in bare], [step_s for step_s, _ in tracked]
mean = sum(bare_steps) / len(bare_steps)
print(
    json.dumps(
        {
            "median_ratio": percentile(steps, 0.5) / percentile(bare_steps, 0.5),
            "call_us": percentile([call_s for _, call_s in tracked], 0.5),
            "stalled": sum(step_s for step_s in steps if step_s > STALL_S) / len(steps) / mean,
            "bare_stalled": sum(step_s for step_s in bare_steps if step_s > STALL_S) / len(bare_steps) / mean,
            "longest_ms": 1e3 * max(steps),
            "expect": {run.id: {"metrics": {"loss": logged}}},
        }
    )
)
