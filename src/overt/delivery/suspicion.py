"""Tells a record that a store cannot take from a store that takes nothing: the first must not hold up its run for ever.

A store raises ``StoreUnavailable`` for every error of unknown kind, so the failure of one record (an HTTP 500 for it
alone, a ``TypeError`` in the client) looks like the failure of the store. A call is given up only when it failed
``ATTEMPTS`` times and the store took something else, of the same kind and in the same run, after each of them. A store
that cannot prove that it works, because it is no ``ProbeStore``, is tried for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from overt.errors import StoreError, StoreRejected, StoreUnavailable
from overt.stores.protocols import ProbeStore, Store

ATTEMPTS = 3
PAUSE_S = 0.5
MOST_IN_A_ROW = 10
"""Records given up with none taken between them; where more fail than that, it is the store after all."""

T = TypeVar("T")


class Suspicion:
    """Calls a store about one run, and turns a failure that is not the store's into ``StoreRejected``.

    Parameters
    ----------
    store, run_id
        Where to.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._in_a_row = 0

    def call(self, send: Callable[[], T], *, is_single: bool, with_file: bool = False) -> T:
        """Call ``send``.

        Parameters
        ----------
        send : callable
            What the store is to do; it may be repeated.
        is_single : bool
            Whether it is about one record. Of several, the first failure is enough to have them sent apart.
        with_file : bool
            Whether files are sent: they may lie elsewhere than records.

        Raises
        ------
        StoreUnavailable
            When the store may be away.
        StoreRejected
            When it is not, and will not take this.
        """
        attempts = 0
        while True:
            try:
                result = send()
            except StoreUnavailable as failure:
                self._require_working(failure, with_file=with_file)
                attempts += 1
                if not is_single:
                    raise StoreRejected(str(failure)) from failure
                if attempts >= ATTEMPTS:
                    self._give_up(failure)
                time.sleep(PAUSE_S)
            else:
                self._in_a_row = 0
                return result

    def _require_working(self, failure: StoreUnavailable, *, with_file: bool) -> None:
        """Raise ``failure`` if it may be the store's."""
        if not isinstance(self._store, ProbeStore):
            raise failure
        try:
            self._store.probe_run(self._run_id, with_file=with_file)
        except StoreError:
            raise failure from None

    def _give_up(self, failure: StoreUnavailable) -> None:
        self._in_a_row += 1
        if self._in_a_row > MOST_IN_A_ROW:
            raise failure
        raise StoreRejected(f"{failure} ({ATTEMPTS} times, while the store took other things)") from failure
