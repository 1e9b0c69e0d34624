"""The child process that delivers: everything slow lives here, at the lowest priority, where no Ctrl-C comes.

It is told which runs to watch, tails their journals, and notices through a pidfd when the training process is gone;
then it delivers what is left, closes the runs that have no ending, and exits. It never runs anything from a journal.
A store that is away is left alone for growing pauses; after the training process has gone it gets ``LINGER_S`` more.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overt.delivery.breaker import Breaker
from overt.delivery.capturing import Launch, capture_beside
from overt.delivery.deliver import RunDelivery, has_live_owner, is_left_without_end
from overt.delivery.lock import are_unused, try_lock
from overt.delivery.messages import Alive, Delivered, Hurry, Message, Trouble, Watch, from_line, to_line
from overt.delivery.priority import GIVE_WAY, begin, compete, core_time, give_way, leave_session
from overt.delivery.processes import open_pidfd
from overt.delivery.sampling import Sampled, Sampling
from overt.errors import StoreRejected, StoreUnavailable
from overt.journal.folder import LOCK, last_attempt, main_segment
from overt.journal.reader import newest_head
from overt.stores.protocols import Store
from overt.stores.uri import open_store, public_name

BUSY_PAUSE_S = 0.05
IDLE_PAUSE_S = 0.2
LONGEST_PAUSE_S = 1.0
REST_PER_WORK = 9
"""How long the courier rests for each second of work, up to the longest pause: a fixed pause of 50 ms, with a metric a
step of 240 us, cost 78 % of a core, most of it MLflow's share per call. Whoever waits is not made to: see ``Hurry``."""
LINGER_S = 30.0
_MOST_LACKED_S = 0.5
"""How long one that is waited for may wait for a core itself, in an idle way, until it is to get one in another."""


@dataclass(slots=True)
class _Watched:
    """One run that is being delivered."""

    folder: Path
    store: str
    keep: bool
    captured: bool
    attempt: int = 1
    sampled: Sampled | None = None
    delivery: RunDelivery | None = None
    failures: int = 0
    refused: Breaker = field(default_factory=Breaker)
    reported: Delivered | None = None


class Courier:
    """Delivers the runs of one training process until that process is gone and nothing is left to do.

    Parameters
    ----------
    parent_pid : int
        The training process.
    is_to_give_way : bool
        Whether it gives way while nobody waits; False for one that follows another that could not come back from that.
    inbox, outbox : int
        File descriptors of the pipes to it.
    """

    def __init__(self, parent_pid: int, *, is_to_give_way: bool = True, inbox: int = 0, outbox: int = 1) -> None:
        self._parent_pid = parent_pid
        self._is_to_give_way = is_to_give_way
        self._inbox = inbox
        self._outbox = outbox
        self._watched: dict[str, _Watched] = {}
        self._stores: dict[str, Store] = {}
        self._breakers: dict[str, Breaker] = {}
        self._unread = b""
        self._wake = threading.Event()
        self._parent_gone = threading.Event()
        self._last_success = time.monotonic()
        self._sampling: Sampling | None = None
        self._is_awaited = False
        self._n_hurries = self._n_hurries_heeded = 0
        self._lacked_before_s = 0.0
        self._gives_way = is_to_give_way
        self._spoke_at = 0.0

    def run(self) -> None:
        """Work until there is nothing left to do."""
        deliverer = threading.Thread(target=self._deliver_until_done, name="overt-deliver")
        deliverer.start()
        try:
            self._listen_until_parent_is_gone()
        finally:  # a listener that fails must not leave a courier behind that nobody can talk to
            self._last_success = time.monotonic()
            leave_session()  # give way to whom? And the run's next attempt may be waiting for what we hold
            self._give_way(False)
            self._parent_gone.set()
            self._wake.set()
            deliverer.join()

    # -- listening -----------------------------------------------------------------------------------------------------

    def _listen_until_parent_is_gone(self) -> None:
        os.set_blocking(self._inbox, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._inbox, selectors.EVENT_READ)
            parent = open_pidfd(self._parent_pid)
            if parent is not None:
                selector.register(parent, selectors.EVENT_READ)
            while os.getppid() == self._parent_pid:
                is_to_compete = self._is_awaited and self._gives_way  # it was refused, as it takes privileges
                timeout_s = BUSY_PAUSE_S if is_to_compete else None if parent is not None else 1.0
                ready = {key.fd for key, _ in selector.select(timeout_s)}
                if is_to_compete and core_time(os.getpid()).lacked_s - self._lacked_before_s > _MOST_LACKED_S:
                    leave_session()  # others of this session are at work, and we get no core among them
                    self._give_way(False)
                if self._inbox in ready and not self._read_inbox():
                    selector.unregister(self._inbox)
                if parent in ready:
                    break
        self._read_inbox()  # what was said just before the end

    def _read_inbox(self) -> bool:
        """Obey all that has been said so far; False when nothing more can come."""
        try:
            while chunk := os.read(self._inbox, 65536):
                *lines, self._unread = (self._unread + chunk).split(b"\n")
                for line in lines:
                    self._obey(from_line(line))
        except BlockingIOError:
            return True
        return False

    def _obey(self, message: Message) -> None:
        if isinstance(message, Watch):
            folder = Path(message.folder)
            known = self._watched.get(folder.name)
            captured = message.launch is None or (known is not None and known.captured)
            watched = _Watched(folder, message.store, message.keep, captured, attempt=last_attempt(folder))
            if message.system_metrics and (head := newest_head(folder)) is not None:
                sampled = known.sampled if known else None
                is_same = sampled is not None and sampled.attempt == head.attempt
                watched.sampled = sampled if is_same else Sampled(folder, head.spec, head.attempt)
            self._watched[folder.name] = watched
            if not captured:
                self._capture(watched, message.launch or {})
        elif isinstance(message, Hurry):
            if not self._is_awaited:
                self._lacked_before_s = core_time(os.getpid()).lacked_s
            self._n_hurries = message.number
            self._is_awaited = True
            self._give_way(False)
            for breaker in self._breakers.values():
                breaker.hurry()
        self._wake.set()

    def _capture(self, watched: _Watched, launch: dict[str, Any]) -> None:
        """Write a segment of our own about the training process's surroundings."""
        try:
            capture_beside(watched.folder, Launch.from_message(launch))
        except Exception as error:  # noqa: BLE001  it is about git, packages and devices: no reason to deliver nothing
            self._say(Trouble(f"capture {watched.folder.name}", f"the run's surroundings were not recorded: {error}"))
        watched.captured = True

    def _sample(self) -> None:
        """Record a sample of the training process, if it is time, into each run that it still writes to."""
        wanting = [watched for watched in list(self._watched.values()) if watched.sampled is not None]
        if not wanting:
            return
        if self._sampling is None:
            self._sampling = Sampling(self._parent_pid, wanting[0].folder.parent)
        sample = self._sampling.take()
        for watched in wanting if sample else ():
            if watched.sampled is None or not watched.sampled.is_long_enough:
                continue
            with suppress(OSError), try_lock(watched.folder / LOCK) as is_ours:  # nobody removes it meanwhile
                if is_ours and not are_unused([watched.folder / main_segment(watched.attempt)]):
                    watched.sampled.add(sample)

    # -- delivering ----------------------------------------------------------------------------------------------------

    def _deliver_until_done(self) -> None:
        while True:
            is_last_round = self._parent_gone.is_set()
            was_awaited = self._is_awaited
            if (n_hurries := self._n_hurries) != self._n_hurries_heeded:
                self._n_hurries_heeded = n_hurries
                for watched in list(self._watched.values()):
                    if watched.delivery is not None:
                        watched.delivery.ask_caller()
            self._give_way(self._is_to_give_way and not (was_awaited or is_last_round))
            began = time.monotonic()
            was_busy = False
            # a run whose own trouble looks like its store's must not be the first to try that store each time
            for watched in sorted(self._watched.values(), key=lambda watched: watched.failures):
                was_busy |= self._attempt(watched, is_last_round)
            if not is_last_round:
                self._sample()
            if is_last_round and (not self._watched or time.monotonic() - self._last_success > LINGER_S):
                return
            if was_awaited and not was_busy:
                self._is_awaited = False
            shortest_s = BUSY_PAUSE_S if was_busy else IDLE_PAUSE_S
            rest_s = REST_PER_WORK * (time.monotonic() - began)
            self._wake.wait(min(max(shortest_s, rest_s), LONGEST_PAUSE_S))
            self._wake.clear()

    def _give_way(self, is_wanted: bool) -> None:
        """Be of the lowest priority, or of the normal one: while somebody waits, and when the training is gone."""
        if is_wanted != self._gives_way and (give_way() if is_wanted else compete()):
            self._gives_way = is_wanted

    def _attempt(self, watched: _Watched, is_last_round: bool) -> bool:
        """Deliver what one run has; whether anything was sent. Nothing that goes wrong with it stops the others."""
        breaker = self._breakers.setdefault(watched.store, Breaker())
        if not (breaker.allows and watched.refused.allows):
            return False
        try:
            sent = self._deliver(watched, is_last_round)
        except StoreUnavailable as error:
            breaker.failed()
            watched.failures += 1
            self._say(Trouble(f"store {public_name(watched.store)}", str(error)))
        except StoreRejected as error:
            watched.refused.failed()
            self._say(Trouble(f"run {watched.folder.name}", str(error), is_refusal=True))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one run, the others are delivered
            if not watched.folder.exists():
                self._forget(watched)  # somebody else delivered and removed it, or the user did
                return False
            watched.refused.failed()
            self._say(Trouble(f"run {watched.folder.name}", f"{type(error).__name__}: {error}", is_refusal=True))
        else:
            watched.refused.succeeded()
            if sent:  # else the store was perhaps not asked
                breaker.succeeded()
                watched.failures = 0
                self._last_success = time.monotonic()
            return sent
        return False

    def _deliver(self, watched: _Watched, is_last_round: bool) -> bool:
        with try_lock(watched.folder / LOCK) as is_ours:
            if not is_ours:
                return False
            if last_attempt(watched.folder) > watched.attempt:
                self._drop(watched)  # it was resumed: the courier of that attempt delivers what is left of this one too
                return False
            if watched.delivery is None:
                watched.delivery = self._open(watched)
            delivery = watched.delivery
            captured = watched.captured  # read once: it is the listener that sets it, at any moment
            is_over = is_last_round and not has_live_owner(watched.folder)
            sent = delivery.deliver(is_over=is_over, is_captured=captured)
            if is_last_round and is_left_without_end(watched.folder) and delivery.close_vanished():
                sent = delivery.deliver(is_over=is_over, is_captured=captured) or sent
            for problem in delivery.problems:
                self._say(Trouble(f"records of {watched.folder.name}", problem, is_refusal=True))
            delivery.problems.clear()
            removed = not watched.keep and delivery.remove_if_safe(is_over=is_over)
            self._report(watched, captured=captured, removed=removed)
            if removed or (is_over and delivery.is_complete):
                self._drop(watched)
        return sent

    def _open(self, watched: _Watched) -> RunDelivery:
        from overt.figures import draw

        def draw_alive(kind: str, data: Mapping[str, Any]) -> bytes:
            self._say_alive()
            return draw(kind, data)

        if watched.store not in self._stores:
            self._stores[watched.store] = open_store(watched.store)
        self._say_alive()
        return RunDelivery(
            watched.folder,
            self._stores[watched.store],
            store_name=public_name(watched.store),
            draw=draw_alive,
            on_progress=self._say_alive,
        )

    def _report(self, watched: _Watched, *, captured: bool, removed: bool) -> None:
        assert watched.delivery is not None
        progress = watched.delivery.progress
        delivered = Delivered(
            watched.folder.name,
            progress.run_id,
            dict(progress.offsets),
            dict(progress.models),
            captured=captured,
            removed=removed,
            held_at=self._n_hurries_heeded if progress.held_params else None,
        )
        if delivered != watched.reported:
            watched.reported = delivered
            self._say(delivered)

    def _forget(self, watched: _Watched) -> None:
        self._drop(watched)
        self._say(Delivered(watched.folder.name, None, removed=True))

    def _drop(self, watched: _Watched) -> None:
        """Stop watching, unless the training process has taken the run up again in the meantime."""
        if self._watched.get(watched.folder.name) is watched:
            del self._watched[watched.folder.name]

    def _say_alive(self) -> None:
        """Tell whoever waits that time passes here, and not in a store that does not answer; at most twice a second."""
        if time.monotonic() - self._spoke_at > 0.5:
            self._spoke_at = time.monotonic()
            self._say(Alive())

    def _say(self, message: Message) -> None:
        with suppress(OSError):  # the training process is gone: nobody listens
            os.write(self._outbox, to_line(message))


def main(parent_pid: str, way: str) -> None:
    """Entry point of the child process.

    Up to here, a tenth of a second, it has got a core like any other, so that on a full machine it comes to listen.
    """
    is_to_give_way = way == GIVE_WAY
    begin(is_to_give_way=is_to_give_way)
    Courier(int(parent_pid), is_to_give_way=is_to_give_way).run()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and libraries' exit handlers would only delay it
