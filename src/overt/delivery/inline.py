"""Delivery within the training process, for where no child process can be started: only when somebody waits for it.

It runs in a thread that the waiter leaves behind when its time is up, so even here a hanging store blocks nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from overt.delivery.deliver import RunDelivery
from overt.delivery.lock import try_lock
from overt.delivery.messages import Delivered, Trouble, Watch
from overt.delivery.supervisor import Deliveries
from overt.errors import JournalError, StoreError
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

    def watch(self, watch: Watch) -> None:
        """Remember the run."""
        self._watched[Path(watch.folder).name] = watch

    def hurry(self) -> None:
        """Begin to deliver, unless that goes on already."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._deliver_all, name="overt-inline", daemon=True)
            self._thread.start()

    def _deliver_all(self) -> None:
        for key, watch in list(self._watched.items()):
            try:
                self._deliver(key, watch)
            except (StoreError, JournalError) as error:
                self._deliveries.hear(Trouble(f"store {public_name(watch.store)}", str(error)))

    def _deliver(self, key: str, watch: Watch) -> None:
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
            self._deliveries.hear(
                Delivered(key, progress.run_id, dict(progress.offsets), dict(progress.models), removed=removed)
            )
            if removed:
                self._watched.pop(key, None)
