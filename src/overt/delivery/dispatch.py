"""One process's delivery: which way its runs take, who waits for them and for how long, and what the user is told.

Recording never comes here. A warning is given once per cause, at the line of the user's that started the run, and it is
never allowed to become an exception in training.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overt.delivery.inline import InlineDelivery
from overt.delivery.messages import Delivered, Trouble, Watch
from overt.delivery.priority import CoreTime
from overt.delivery.supervisor import LONGEST_START_S, CourierProcess, Deliverer, Deliveries, Mode, can_start_courier
from overt.errors import OvertWarning, StoreUnavailable
from overt.say import say
from overt.stores.protocols import Store

_POLL_S = 0.02
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Route:
    """How one run is delivered.

    Attributes
    ----------
    store : str
        The store's URI, with credentials if it has any, or the name of a store object.
    keep_journal : bool
        Whether the journal stays after delivery.
    drain_timeout_s : float
        How long a waiter goes on without news.
    system_metrics : bool
        Whether a courier samples this process while the run is open.
    """

    folder: Path
    store: str
    mode: Mode
    keep_journal: bool
    drain_timeout_s: float
    launch: dict[str, Any] | None = None
    system_metrics: bool = False


class Dispatch:
    """Delivers the runs of this process and waits for them."""

    def __init__(self) -> None:
        self.stores: dict[str, Store] = {}
        self.deliveries = Deliveries(self._on_trouble)
        self._lock = threading.RLock()  # a signal handler of the user's may record, in the midst of us
        self._courier: CourierProcess | None = None
        self._inline = InlineDelivery(self.deliveries, self.stores)
        self._hopeless = False
        self._n_waiting = 0
        self._blame: tuple[str, int] = ("<overt>", 1)
        self._base = Path(".overt")
        self._said: set[str] = set()

    def watch(self, route: Route) -> None:
        """Deliver a run from now on; called when its journal is opened, and again when it is reopened."""
        self._base = route.folder.parent.parent
        is_known = self.deliveries.of(route.folder.name) is not None
        launch = None if is_known else route.launch
        watch = Watch(str(route.folder), route.store, route.keep_journal, launch, route.system_metrics)
        deliverer = self._deliverer(route)
        if deliverer is not None:
            self.deliveries.add(watch)
            deliverer.watch(watch)
            if self._hopeless:  # perhaps since a moment ago, with the courier just chosen
                self._inline.watch(watch)

    def blame(self, file_name: str, line: int) -> None:
        """Remember the user's line that warnings are to point at."""
        self._blame = (file_name, line)

    def wait(self, keys: Iterable[str] | None, *, timeout_s: float | None, patience_s: float) -> bool:
        """Wait until everything recorded so far has arrived.

        Parameters
        ----------
        keys : iterable of str or None
            Of the runs to wait for; all of this process if None.
        timeout_s : float or None
            Longest wait in all; without one, for as long as news keeps coming.
        patience_s : float
            Longest wait without news.
        """
        keys = None if keys is None else set(keys)
        with self._lock:
            self._n_waiting += 1
        try:
            return self._wait(keys, timeout_s, patience_s)
        finally:
            with self._lock:
                self._n_waiting -= 1

    def _wait(self, keys: set[str] | None, timeout_s: float | None, patience_s: float) -> bool:
        began = news = looked = time.monotonic()
        failures = self.deliveries.failures
        courier = self._courier
        cores = CoreTime(0.0, 0.0) if courier is None else courier.core_time()
        self.hurry()
        while not self.deliveries.have_arrived(keys):
            now = time.monotonic()
            news = max(news, self.deliveries.last_news)
            if timeout_s is not None and now - began > timeout_s:
                return False
            longest_s = max(patience_s, LONGEST_START_S) if self.deliveries.is_starting else patience_s
            if now - news > longest_s or (timeout_s is None and self.deliveries.failures > failures + 1):
                return False
            if courier is not None and now - looked > _LOOK_S:
                looked = now
                cores = courier.help_to_a_core(since=cores)
            self.deliveries.wait(_POLL_S)
        return True

    def require_arrival(self, key: str, patience_s: float) -> Delivered:
        """Wait for one run and say where it is in its store.

        Raises
        ------
        StoreUnavailable
            When it has not arrived.
        """
        arrived = self.wait([key], timeout_s=None, patience_s=patience_s)
        delivered = self.deliveries.of(key)
        if not arrived or delivered is None:
            raise StoreUnavailable(
                f"this run has not arrived in its store yet; it is kept in {self._base}. {self._sync_hint()}"
            )
        return delivered

    def hurry(self) -> None:
        """Let every deliverer try at once."""
        with self._lock:
            self.deliveries.n_hurries += 1
        self._inline.hurry()
        if self._courier is not None:
            self._courier.hurry()

    @property
    def courier_pid(self) -> int | None:
        """Process id of the courier, if one runs."""
        return self._courier.pid if self._courier else None

    def warn(self, text: str) -> None:
        """Warn at the user's line, once per text; where warnings are errors, print: tracking never stops training."""
        if text in self._said:
            return
        self._said.add(text)
        file_name, line = self._blame
        try:
            warnings.warn_explicit(text, OvertWarning, file_name, line, module="overt")
        except (OvertWarning, OSError, ValueError):  # ValueError: a stderr that is closed
            say(text)

    def _deliverer(self, route: Route) -> Deliverer | None:
        if route.mode == "manual":
            return None
        if route.mode == "inline" or route.store in self.stores or self._hopeless:
            return self._inline
        with self._lock:
            if self._courier is None:
                if not can_start_courier():
                    self._give_up_courier("this interpreter cannot be started a second time")
                    return self._inline
                log = route.folder.parent.parent / "courier.log"
                self._courier = CourierProcess(self.deliveries, self._give_up_courier, log=log)
            return self._courier

    def _give_up_courier(self, reason: str) -> None:
        self._hopeless = True
        self.warn(  # before the last of them has arrived, and the script ends
            f"no courier process can be kept running ({reason}). Runs are delivered when something waits for them "
            f"(overt.wait(), the script's end). {self._sync_hint()}"
        )
        for watch in self.deliveries.unfinished_watches():
            self._inline.watch(watch)
        if self._n_waiting:  # and has hurried a courier that is no more
            self._inline.hurry()

    def _on_trouble(self, trouble: Trouble) -> None:
        if trouble.is_refusal:
            self.warn(f"{trouble.text.rstrip('.')}. The journal keeps it: {self._base}")
        else:
            self.warn(
                f"the store does not take records now ({trouble.text}). Training goes on; everything is kept in "
                f"{self._base} and delivered when the store answers. {self._sync_hint()}"
            )

    def _sync_hint(self) -> str:
        return f"To deliver it later: {sync_command(self._base)}"


def sync_command(base: Path) -> str:
    """The command line that delivers what lies in ``base``."""
    return f"overt sync {shlex.quote(str(base))}"


_dispatch: Dispatch | None = None


def dispatch() -> Dispatch:
    """The one delivery of this process; a forked child gets its own, and starts nothing until it has a run."""
    global _dispatch
    if _dispatch is None:
        _dispatch = Dispatch()
    return _dispatch


def _in_forked_child() -> None:
    global _dispatch
    _dispatch = None


os.register_at_fork(after_in_child=_in_forked_child)
