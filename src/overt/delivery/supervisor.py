"""The training process's side of delivery: starts the courier, replaces it when it dies, and knows how far it has got.

Nothing here is on the path of a recording call. The first run starts one thread, which starts the courier and then
sleeps on its pipe; a second thread feeds it. Whatever goes wrong ends in one warning per cause and never in training.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from overt.delivery.messages import Alive, Delivered, Hurry, Message, Trouble, Watch, from_line, to_line
from overt.delivery.priority import COMPETE, GIVE_WAY, CoreTime, can_share_session, core_time, raise_to_normal
from overt.delivery.processes import iter_lines_of_child
from overt.delivery.threads import background_thread
from overt.journal.folder import segment_paths
from overt.stores.mlflow.environment import CLIENT_ENVIRONMENT

Mode = Literal["process", "inline", "manual"]

USUAL_START_S = 4.0
LONGEST_START_S = 60.0
"""How long a courier may take to speak for the first time: at the lowest priority, on a machine without a free core."""
_MOST_QUICK_DEATHS = 3
_QUICK_S = 3.0
_MOST_SAID_AHEAD_BYTES = 16 * 1024  # below what any system's pipe holds, so that writing cannot block
_BOOT = (
    "import os; os.closerange(3, 65536)\n"  # whoever waits for the end of a pipe given to training must not wait for us
    "import sys; sys.path.append(sys.argv[2])\n"
    # importing MLflow makes Python look for garbage some hundred times, and find none: a fifth of a start's CPU time
    "import gc; gc.set_threshold(50_000)\n"
    "from overt.delivery.courier import main; main(sys.argv[1], sys.argv[3])"
)
_ENVIRONMENT = {
    # more threads would take the training's cores, and hurry nothing here
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


OBJECT = "object:"
"""What the name of a store begins with that was given as an object, and has no URI."""


class Deliverer(Protocol):
    """Brings watched runs to their stores."""

    def watch(self, watch: Watch) -> None:
        """Deliver this run from now on."""

    def hurry(self) -> None:
        """Try at once: somebody waits."""


@dataclass(slots=True)
class _Known:
    """A run that was watched, and what is known of its delivery."""

    watch: Watch
    delivered: Delivered | None = None

    @property
    def folder(self) -> Path:
        return Path(self.watch.folder)

    def is_delivered(self, n_hurries: int) -> bool:
        """Whether all that is in the journal now has arrived, but for params whose caller has gone on since then."""
        if self.delivered is None or not self.delivered.captured:
            return False
        if self.delivered.removed:
            return True
        if self.delivered.held_at is not None and self.delivered.held_at < n_hurries:
            return False
        offsets = self.delivered.offsets
        with suppress(FileNotFoundError):
            sizes = {path.name: path.stat().st_size for path in segment_paths(self.folder)}
            if sizes and offsets.keys() <= sizes.keys():
                return all(size <= offsets.get(name, 0) for name, size in sizes.items())
        return False  # being removed at this moment: the courier is about to say so, and what it delivered last


class Deliveries:
    """What this process knows of the delivery of its runs.

    Parameters
    ----------
    on_trouble : callable
        Called with each new cause of trouble.
    """

    def __init__(self, on_trouble: Callable[[Trouble], None]) -> None:
        self._on_trouble = on_trouble
        self._known: dict[str, _Known] = {}
        self._changed = threading.Condition()
        self._causes: set[str] = set()
        self.failures = 0
        self.n_hurries = 0
        self.is_starting = False
        self.last_news = time.monotonic()

    def expect_start(self) -> None:
        """A courier is being started: until it speaks, its silence says nothing about the store."""
        self.is_starting = True

    def add(self, watch: Watch) -> None:
        """Begin to follow a run, or follow it again after its delivered journal was removed."""
        key = Path(watch.folder).name
        with self._changed:
            delivered = self.of(key)
            self._known[key] = _Known(watch, delivered and replace(delivered, offsets={}, removed=False))

    def hear(self, message: Message) -> None:
        """Take in what a deliverer says."""
        new_trouble = None
        with self._changed:
            if isinstance(message, Alive):
                # a start takes this long on a machine with a free core, and whoever waits has waited that long already
                usual_s = USUAL_START_S if self.is_starting else 0.0
                self.last_news = max(self.last_news, time.monotonic() - usual_s)
            elif isinstance(message, Delivered) and message.key in self._known:
                known = self._known[message.key]
                if message.run_id is None and known.delivered is not None:
                    message = replace(known.delivered, removed=True)
                known.delivered = message
                self.last_news = time.monotonic()
            elif isinstance(message, Trouble):
                self.failures += 1
                if message.cause not in self._causes:
                    self._causes.add(message.cause)
                    new_trouble = message
            self.is_starting = False
            self._changed.notify_all()
        if new_trouble is not None:
            self._on_trouble(new_trouble)

    def of(self, key: str) -> Delivered | None:
        """What was last heard of a run."""
        known = self._known.get(key)
        return known.delivered if known else None

    def keys_of(self, store: str) -> set[str]:
        """Keys of the runs that go to the store with this URI, or may: one that goes to a store object could."""
        uri = store.rstrip("/")
        with self._changed:
            routes = {key: known.watch.store.rstrip("/") for key, known in self._known.items()}
        return {key for key, route in routes.items() if route == uri or route.startswith(OBJECT)}

    def undelivered(self, keys: Iterable[str] | None = None) -> list[Path]:
        """Folders of the runs that have not arrived in full."""
        with self._changed:
            return list(self._iter_undelivered(keys))

    def have_arrived(self, keys: Iterable[str] | None = None) -> bool:
        """Whether all runs have; looks at the disk no further than to the first that has not, as waiters ask often."""
        with self._changed:
            return next(self._iter_undelivered(keys), None) is None

    def _iter_undelivered(self, keys: Iterable[str] | None) -> Iterator[Path]:
        for key, known in self._known.items():
            if (keys is None or key in keys) and not known.is_delivered(self.n_hurries):
                yield known.folder

    def unfinished_watches(self) -> list[Watch]:
        """What a new courier has to be told; what an earlier one has captured is not looked at again."""
        with self._changed:
            return [
                replace(known.watch, launch=None) if known.delivered and known.delivered.captured else known.watch
                for known in self._known.values()
                if known.delivered is None or not known.delivered.removed
            ]

    def wait(self, seconds: float) -> None:
        """Sleep until there is news, or for so long."""
        with self._changed:
            self._changed.wait(seconds)


class CourierProcess:
    """One courier and the threads that talk to it.

    Parameters
    ----------
    deliveries : Deliveries
        Told whatever the courier says.
    on_hopeless : callable
        Called with a reason when no courier can be kept running.
    """

    def __init__(self, deliveries: Deliveries, on_hopeless: Callable[[str], None], *, log: Path) -> None:
        self._deliveries = deliveries
        self._on_hopeless = on_hopeless
        self._log = log
        self._outgoing: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._unsaid = b""
        self._inbox: int | None = None
        self.pid: int | None = None
        self._gives_way = True
        self._unreaped: int | None = None
        self._ending = threading.RLock()  # a signal handler of the user's may wait, in the midst of us
        self._keeper: threading.Thread | None = None

    def watch(self, watch: Watch) -> None:
        """Tell the courier of a run; the first one starts it."""
        self._outgoing.put(watch)
        if self._keeper is None:
            self._keeper = background_thread(self._keep_alive, name="overt-courier")
            self._keeper.start()

    def hurry(self) -> None:
        """Let the courier try at once."""
        self._outgoing.put(Hurry(self._deliveries.n_hurries))

    def core_time(self) -> CoreTime:
        """What the courier has had of the machine's cores, and lacked."""
        return CoreTime(0.0, 0.0) if self.pid is None else core_time(self.pid)

    def help_to_a_core(self, since: CoreTime) -> CoreTime:
        """While somebody waits: have a courier that gives way get a core, or another one that never has follow it.

        Returns what is to be asked with the next time. The courier's work is safe at any moment.
        """
        now = self.core_time()
        with self._ending:
            if self._gives_way and self._unreaped is not None:
                raise_to_normal(self._unreaped)  # as it does itself once it has a core, where that may be done
                if now.is_starved_since(since):
                    self._gives_way = False
                    os.kill(self._unreaped, signal.SIGKILL)
        return now if now.tells_since(since) else since

    def _keep_alive(self) -> None:
        quick_deaths = 0
        while True:
            began = time.monotonic()
            try:
                pid, inbox, outbox = self._start()
            except OSError as error:
                self._on_hopeless(f"it could not be started: {error}")
                return
            self.pid = self._unreaped = pid
            self._deliveries.expect_start()
            background_thread(self._feed, inbox, self._outgoing, name="overt-courier-inbox").start()
            for line in iter_lines_of_child(pid, outbox):
                with suppress(ValueError, KeyError, TypeError):  # cut off by the courier's death
                    self._deliveries.hear(from_line(line))
            self._reap(pid)
            self._deliveries.is_starting = False
            finished, self._outgoing = self._outgoing, queue.SimpleQueue()  # else its feeder could take the next one's
            finished.put(Hurry())  # ends that feeder, which finds its pipe closed
            quick_deaths = quick_deaths + 1 if time.monotonic() - began < _QUICK_S else 0
            if quick_deaths >= _MOST_QUICK_DEATHS:
                self._on_hopeless(f"it ended {quick_deaths} times within {_QUICK_S:.0f} s of starting: {self._log}")
                return
            for watch in self._deliveries.unfinished_watches():
                self._outgoing.put(watch)
            if not self._gives_way:  # since somebody waits
                self._outgoing.put(Hurry(self._deliveries.n_hurries))

    def _start(self) -> tuple[int, int, int]:
        """Start a courier; its pid and the two ends of the pipes that are ours."""
        log = self._open_log()
        their_inbox, inbox = os.pipe()
        outbox, their_outbox = os.pipe()
        self._say_ahead(inbox)
        root = str(Path(__file__).parent.parent.parent)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", _BOOT, str(os.getpid()), root, GIVE_WAY if self._gives_way else COMPETE],
                {**CLIENT_ENVIRONMENT, **os.environ, **_ENVIRONMENT},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, their_inbox, 0),
                    (os.POSIX_SPAWN_DUP2, their_outbox, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                # never in the training's process group: Ctrl-C is for that one
                **({"setpgroup": 0} if can_share_session() else {"setsid": True}),
                setsigmask=(),  # else it would have that of this thread, and of the user's that started it
            )
        except BaseException:
            os.close(inbox)
            os.close(outbox)
            raise
        finally:
            os.close(their_inbox)
            os.close(their_outbox)
            os.close(log)
        return pid, inbox, outbox

    def _open_log(self) -> int:
        """The courier's log, whose folder somebody may be removing at this very moment."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return os.open(self._log, flags, 0o600)
        except FileNotFoundError:
            self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._log, flags, 0o600)

    def _say_ahead(self, inbox: int) -> None:
        """Say what is known before the courier starts, so that it knows of it even if we die at this moment."""
        said = 0
        with suppress(queue.Empty):
            while not self._unsaid:
                line = to_line(self._outgoing.get_nowait())
                if said + len(line) > _MOST_SAID_AHEAD_BYTES:  # a command line can be longer than a pipe
                    self._unsaid = line
                else:
                    said += os.write(inbox, line)

    def _feed(self, inbox: int, outgoing: queue.SimpleQueue[Message]) -> None:
        line, self._unsaid = self._unsaid, b""
        try:
            while True:
                line = line or to_line(outgoing.get())
                while line:  # a signal may cut a write short
                    line = line[os.write(inbox, line) :]
        except BrokenPipeError:
            pass  # this courier is gone; the next is told everything again
        finally:
            os.close(inbox)

    def _reap(self, pid: int) -> None:
        with self._ending:
            self._unreaped = None  # from now on its number may be another process's
        with suppress(ChildProcessError):  # the user's own code waits for all children
            os.waitpid(pid, 0)


def can_start_courier() -> bool:
    """Whether this interpreter can be started again as a courier."""
    return bool(sys.executable) and not getattr(sys, "frozen", False) and hasattr(os, "posix_spawn")
