"""Measures which share of a core a warm courier takes while so many metrics a second (the argument) are recorded."""

import json
import os
import sys
import time

import overt
from overt.delivery.dispatch import dispatch

PER_SECOND = int(sys.argv[1])
SECONDS = 6.0


def seconds_worked(pid: int) -> float:
    """Processor time that a process has had so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


run = overt.start_run("bench")
run.log_metric("loss", 0.0)
overt.wait()
pid = dispatch().courier_pid
assert pid is not None
began, before, logged = time.perf_counter(), seconds_worked(pid), 1
while (passed := time.perf_counter() - began) < SECONDS:
    while logged <= passed * PER_SECOND:
        run.log_metric("loss", 0.5 * logged)
        logged += 1
    time.sleep(0.001)
share = (seconds_worked(pid) - before) / passed
run.finish()
print(json.dumps({"share": share, "expect": {run.id: {"metrics": {"loss": logged}}}}))
