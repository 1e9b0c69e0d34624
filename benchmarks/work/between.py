"""Times what a call costs between two steps of about 240 us, when the caches hold the network and not the call.

The parts of a recorded point, each alone, in alternating blocks of one process; nothing is delivered.
"""

import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import torch
from steps import ignore, seconds_per_step, step_near

import overt

BLOCKS, STEPS = 60, 400
LINE = b'{"t":"metric","name":"loss","value":1.2345678901234567,"step":1234,"ms":1700000000000}\n'

torch.set_num_threads(1)
torch.manual_seed(0)
step = step_near(240e-6)
overt.configure(delivery="manual")
run = overt.start_run("bench")
file = os.open("lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
nowhere = os.open(os.devnull, os.O_WRONLY)
lock, logged = threading.RLock(), 0


def log_metric(loss: float) -> None:
    """All of it."""
    global logged
    logged += 1
    run.log_metric("loss", loss)


def write(loss: float) -> None:
    """The system call with a line that stands ready."""
    os.write(file, LINE)


def write_nowhere(loss: float) -> None:
    """A system call that does nothing."""
    os.write(nowhere, LINE)


def shortest(loss: float) -> None:
    """The least that gives a durable point: a lock, the time, the encoding, the write."""
    with lock:
        now = time.time_ns() // 1_000_000
        os.write(file, b'{"t":"metric","name":"loss","value":%b,"step":%d,"ms":%d}\n' % (orjson.dumps(loss), 1, now))


calls: dict[str, Callable[[float], None]] = {
    "bare": ignore,
    "log_metric": log_metric,
    "write": write,
    "write_nowhere": write_nowhere,
    "shortest": shortest,
}
times: dict[str, list[float]] = {name: [] for name in calls}
for _ in range(BLOCKS):
    order = list(calls)
    random.shuffle(order)
    for name in order:
        times[name].append(1e6 * seconds_per_step(step, calls[name], STEPS))

over = {
    f"{name}_us": statistics.median(a - b for a, b in zip(times[name], times["bare"], strict=True))
    for name in calls
    if name != "bare"
}
run.finish()
lines = Path(".overt", "runs", run.key, "journal.jsonl").read_bytes().count(b'"t":"metric"')
assert lines == logged == BLOCKS * STEPS, "a point is missing in the journal"
print(json.dumps({"step_us": statistics.median(times["bare"]), "expect": {}, "journals": 1, **over}))
