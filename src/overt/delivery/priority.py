"""How much the courier gives way: to all others while it works beside a training, to none while somebody waits for it.

Where Linux weighs sessions against each other ("autogroups"), the courier stays in the training's session and is *idle*
there: whatever else of that session wants its core gets it at once, which a low weight alone does not give. Becoming
normal again takes privileges, or a session of its own, which has a full weight: that is why it never leads a process
group, since who leads one cannot found a session. Elsewhere it has a session of its own from the start, and nice 19.

In a container a session of its own weighs nothing, since all its processes are weighed against each other. One without
privileges cannot come back there: that is seen from without, and it is followed by one that never gives way.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOWEST = 19
NORMAL = 0
GIVE_WAY, COMPETE = "give-way", "compete"
"""How a courier is told to begin."""
_AUTOGROUP = Path("/proc/self/autogroup")
_ARE_AUTOGROUPS_USED = Path("/proc/sys/kernel/sched_autogroup_enabled")
_PROCESSES = Path("/proc")
_STARVED_LACKED_S = 3.0
_STARVED_SHARE = 20
"""One without weight has had less than a seventieth of what it lacked, one of twenty equals more than a twentieth."""


class CoreTime(NamedTuple):
    """How long the threads of a process have had a core, and how long they could have worked and had none."""

    had_s: float
    lacked_s: float

    def tells_since(self, before: CoreTime) -> bool:
        """Whether enough has happened since then to judge by; a thread that ends takes its account along."""
        return not 0 <= self.lacked_s - before.lacked_s <= _STARVED_LACKED_S

    def is_starved_since(self, before: CoreTime) -> bool:
        """Whether it got next to nothing while it wanted to work: it has no weight among those that do."""
        had_s, lacked_s = self.had_s - before.had_s, self.lacked_s - before.lacked_s
        return lacked_s > _STARVED_LACKED_S and lacked_s > _STARVED_SHARE * had_s


def core_time(pid: int) -> CoreTime:
    """What a process has had and lacked; nothing of both where the system does not say."""
    had_ns = lacked_ns = 0
    for account in _PROCESSES.glob(f"{pid}/task/*/schedstat"):
        with suppress(OSError, ValueError):  # the thread has ended
            had, lacked, *_ = account.read_text("ascii").split()
            had_ns, lacked_ns = had_ns + int(had), lacked_ns + int(lacked)
    return CoreTime(had_ns / 1e9, lacked_ns / 1e9)


def can_share_session() -> bool:
    """Whether a courier can be idle in the training's session, and get out of it when somebody waits."""
    try:
        return hasattr(os, "SCHED_IDLE") and _ARE_AUTOGROUPS_USED.read_text("ascii").strip() == "1"
    except OSError:
        return False


def begin(*, is_to_give_way: bool = True) -> None:
    """Give way from now on, if that is wanted, as a process that has just been started and has one thread."""
    is_guest = not has_own_session()
    if is_guest:
        with suppress(OSError):
            _follow_in_a_group()
    if not is_to_give_way or (is_guest and give_way()):
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
    return _weigh_session(LOWEST) if has_own_session() else _schedule("SCHED_IDLE", os.getpid())


def compete() -> bool:
    """Get as much of a core as anybody; False if that is to be asked for again, or takes privileges."""
    return _weigh_session(NORMAL) if has_own_session() else raise_to_normal(os.getpid())


def raise_to_normal(pid: int) -> bool:
    """Have a process in the training's session get as much of a core as anybody; False if that takes privileges."""
    return _schedule("SCHED_OTHER", pid)


def leave_session() -> None:
    """Found a session, in which nobody else is, and which weighs as much as any other; there is no way back."""
    with suppress(OSError):  # it has been founded
        os.setsid()


def _follow_in_a_group() -> None:
    """Be in a process group of one's own, which no Ctrl-C is for, without leading it."""
    leader = os.fork() or os._exit(0)
    os.setpgid(leader, leader)
    os.setpgid(0, leader)
    os.waitpid(leader, 0)


def _schedule(policy: str, pid: int) -> bool:
    try:
        for thread in os.listdir(_PROCESSES / f"{pid}/task"):
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
