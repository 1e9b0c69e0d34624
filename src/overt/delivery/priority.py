"""How much the courier gives way: to all others while it works beside a training, to none while somebody waits for it.

A process of the lowest priority may wait for a core without end on a full machine, and whoever waits for it waits too.
A raised nice value cannot be lowered again without privileges, but that of the session (its autogroup) can: on Linux
with autogroups it alone decides between processes of different sessions.
"""

from __future__ import annotations

from pathlib import Path

LOWEST = 19
NORMAL = 0
_AUTOGROUP = Path("/proc/self/autogroup")


def set_session_priority(nice: int) -> bool:
    """Weigh this process's session against the others, where the system does that; False if it is to be asked again."""
    try:
        _AUTOGROUP.write_text(str(nice), "ascii")
    except BlockingIOError:  # Linux takes it from one without privileges ten times a second at most
        return False
    except OSError:
        pass  # no autogroups here
    return True
