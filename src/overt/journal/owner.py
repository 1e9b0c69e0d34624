"""Whether the process that wrote a segment still lives, told exactly or not at all.

A process id alone is reused, so it is paired with the process's start time and the machine's boot; on another machine,
or after a reboot that cannot be told apart from one, the answer says so instead of guessing.
"""

from __future__ import annotations

import os
import socket
import subprocess
from functools import lru_cache
from pathlib import Path

from overt.records import Owner


def this_process() -> Owner:
    """The owner that this process writes into its segments."""
    pid = os.getpid()
    return Owner(pid, _started(pid) or "", socket.gethostname(), _boot())


def is_alive(owner: Owner) -> bool | None:
    """Whether ``owner`` still runs; None where this machine cannot tell (it ran on another host)."""
    if owner.host != socket.gethostname():
        return None
    if owner.boot != _boot():
        return False
    started = _started(owner.pid)
    return started is not None and started == owner.started


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""  # not Linux: pid and start time (to the second) have to do


def _started(pid: int) -> str | None:
    """When ``pid`` started, in whatever unit the system gives; None if there is no such process, or only its zombie."""
    if os.path.exists("/proc/self/stat"):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    try:  # macOS: no /proc, and kill(pid, 0) succeeds on zombies and on reused ids
        listed = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, started = listed.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
