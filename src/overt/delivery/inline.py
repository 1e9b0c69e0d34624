"""Delivery within the training process, for where no child process can be started: only when somebody waits for it.

It runs in a thread that the waiter leaves behind when its time is up, so even here a hanging store blocks nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from overt.delivery.capturing import Launch, capture_beside
from overt.delivery.deliver import RunDelivery
from overt.delivery.lock import try_lock
from overt.delivery.messages import Delivered, Trouble, Watch
from overt.delivery.supervisor import Deliveries
from overt.errors import StoreUnavailable
from overt.journal.folder import LOCK
from overt.stores.protocols import Store
from overt.stores.uri import open_store, public_name


class InlineDelivery:
    """Delivers watched runs in a thread of this process, when told to hurry.

    Parameters
    ----------
    deliveries : Deliveries
        Told how far it got.
    stores : dict
        Stores that exist as objects, by the name that stands for them; others are opened from their URI.
    """

    def __init__(self, deliveries: Deliveries, stores: dict[str, Store]) -> None:
        self._deliveries = deliveries
        self._stores = stores
        self._watched: dict[str, Watch] = {}
        self._thread: threading.Thread | None = None
        self._again = False
        self._lock = threading.RLock()  # a signal handler of the user's may record, in the midst of us

    def watch(self, watch: Watch) -> None:
        """Capture the run's surroundings as they are now, and remember it."""
        import concurrent.futures.thread  # noqa: F401  MLflow imports it, which at the script's end is too late

        folder = Path(watch.folder)
        if watch.launch is not None:  # before it can be delivered, and then removed
            try:
                capture_beside(folder, Launch.from_message(watch.launch))
            except Exception as error:  # noqa: BLE001  it is about git, packages and devices: no reason to deliver nothing
                text = f"the run's surroundings were not recorded: {error}"
                self._deliveries.hear(Trouble(f"capture {folder.name}", text, is_refusal=True))
        self._watched[folder.name] = watch

    def hurry(self) -> None:
        """Begin to deliver, or let the delivery that goes on begin once more when it is done."""
        if not self._watched:
            return
        with self._lock:
            self._again = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_while_asked, name="overt-inline", daemon=True)
                self._thread.start()

    def _deliver_while_asked(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._thread = None
                    return
                self._again = False
            self._deliver_all()

    def _deliver_all(self) -> None:
        n_hurries = self._deliveries.n_hurries
        for key, watch in list(self._watched.items()):
            try:
                self._deliver(key, watch, n_hurries)
            except StoreUnavailable as error:
                self._deliveries.hear(Trouble(f"store {public_name(watch.store)}", str(error)))
            except Exception as error:  # noqa: BLE001  whatever goes wrong with one run stops neither others nor training
                if not Path(watch.folder).exists():  # somebody else delivered and removed it, or the user did
                    self._watched.pop(key, None)
                    self._deliveries.hear(Delivered(key, None, removed=True))
                    continue
                self._deliveries.hear(Trouble(f"run {key}", f"{type(error).__name__}: {error}", is_refusal=True))

    def _deliver(self, key: str, watch: Watch, n_hurries: int) -> None:
        from overt.figures import draw

        folder = Path(watch.folder)
        with try_lock(folder / LOCK) as is_ours:
            if not is_ours:
                return
            if watch.store not in self._stores:
                self._stores[watch.store] = open_store(watch.store)
            delivery = RunDelivery(folder, self._stores[watch.store], store_name=public_name(watch.store), draw=draw)
            delivery.deliver()
            for problem in delivery.problems:
                self._deliveries.hear(Trouble(f"records of {key}", problem, is_refusal=True))
            removed = not watch.keep and delivery.remove_if_safe(is_over=False)
            progress = delivery.progress
            delivered = Delivered(
                key,
                progress.run_id,
                dict(progress.offsets),
                dict(progress.models),
                removed=removed,
                held_at=n_hurries if progress.held_params else None,
            )
            self._deliveries.hear(delivered)
            if removed:
                self._watched.pop(key, None)
