"""How much the courier gives way: to all others while it works beside a training, to none while somebody waits for it.

Where Linux weighs sessions against each other ("autogroups"), the courier stays in the training's session and is *idle*
there: whatever else of that session wants its core gets it at once, which a low weight alone does not give. Becoming
normal again takes privileges, or a session of its own, which has a full weight: that is why it never leads a process
group, since who leads one cannot found a session. Elsewhere it has a session of its own from the start, and nice 19.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LOWEST = 19
NORMAL = 0
_AUTOGROUP = Path("/proc/self/autogroup")
_ARE_AUTOGROUPS_USED = Path("/proc/sys/kernel/sched_autogroup_enabled")
_THREADS = Path("/proc/self/task")


def can_share_session() -> bool:
    """Whether a courier can be idle in the training's session, and get out of it when somebody waits."""
    try:
        return hasattr(os, "SCHED_IDLE") and _ARE_AUTOGROUPS_USED.read_text("ascii").strip() == "1"
    except OSError:
        return False


def begin() -> None:
    """Give way from now on, as a process that has just been started and has one thread."""
    if not has_own_session():
        with suppress(OSError):
            _follow_in_a_group()
        if give_way():
            return
        leave_session()
    with suppress(OSError):
        os.nice(LOWEST)
    give_way()


def has_own_session() -> bool:
    """Whether this process has founded its session."""
    return os.getsid(0) == os.getpid()


def give_way() -> bool:
    """Be the last to get a core; False if that is to be asked for again."""
    return _weigh_session(LOWEST) if has_own_session() else _schedule("SCHED_IDLE")


def compete() -> bool:
    """Get as much of a core as anybody; False if that is to be asked for again, or takes privileges."""
    return _weigh_session(NORMAL) if has_own_session() else _schedule("SCHED_OTHER")


def leave_session() -> None:
    """Found a session, in which nobody else is, and which weighs as much as any other; there is no way back."""
    with suppress(OSError):  # it has been founded
        os.setsid()


def waited_for_cores_s() -> float:
    """How long the threads of this process could have worked and had no core; 0 where the system does not say."""
    waited_ns = 0
    for account in _THREADS.glob("*/schedstat"):
        with suppress(OSError, IndexError):  # the thread has ended
            waited_ns += int(account.read_text("ascii").split()[1])
    return waited_ns / 1e9


def _follow_in_a_group() -> None:
    """Be in a process group of one's own, which no Ctrl-C is for, without leading it."""
    leader = os.fork() or os._exit(0)
    os.setpgid(leader, leader)
    os.setpgid(0, leader)
    os.waitpid(leader, 0)


def _schedule(policy: str) -> bool:
    try:
        for thread in os.listdir(_THREADS):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(thread), getattr(os, policy), os.sched_param(0))
    except OSError:
        return False
    return True


def _weigh_session(nice: int) -> bool:
    try:
        _AUTOGROUP.write_text(str(nice), "ascii")
    except BlockingIOError:  # Linux takes it from one without privileges ten times a second at most
        return False
    except OSError:
        pass  # no autogroups here
    return True
