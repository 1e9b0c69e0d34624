"""Delivers journals that no courier delivers any more: a week later, on another machine, of a process long dead.

The code that sends is the courier's. What is added is the question whether a run is over: its processes are gone, or
the user says so, because on another machine nobody can tell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overt.delivery.deliver import RunDelivery, has_live_owner, is_left_without_end
from overt.delivery.lock import holder, lock_within
from overt.errors import JournalError, StoreError, StoreUnavailable
from overt.journal.folder import GONE, LOCK, iter_run_folders, segment_paths
from overt.journal.owner import is_alive
from overt.journal.reader import iter_heads, iter_records, newest_head
from overt.records import RunEnd, RunSpec
from overt.stores.protocols import ProbeStore, Store
from overt.stores.uri import open_store, public_name

LOCK_PATIENCE_S = 5.0
"""How long a run that another process delivers at this moment is waited for."""

State = Literal["live", "elsewhere", "vanished", "ended", "unreadable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One journal as it lies there.

    Attributes
    ----------
    state : str
        ``live``: its process runs, or it has its ending and a copy of it in another process may still add to it.
        ``elsewhere``: it was written on another host and has no ending, so it may run there. ``vanished``: its process
        is gone without an ending. ``ended``: it has its ending. ``unreadable``: no segment of it can be read.
    """

    folder: Path
    spec: RunSpec | None
    state: State
    host: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one journal.

    Attributes
    ----------
    delivered : bool
        Whether all of it has arrived.
    sent : bool
        Whether anything had to be sent for it.
    closed : bool
        Whether it got the ending KILLED.
    problem : str
        Why not all of it arrived, or what was refused; empty if all is well.
    tried : bool
        Whether its delivery was tried at all; it is not where the same store did not answer a moment before.
    """

    finding: Finding
    delivered: bool
    sent: bool = False
    closed: bool = False
    run_id: str | None = None
    problem: str = ""
    tried: bool = True


def find(base: Path) -> Iterator[Finding]:
    """The journals in a ``.overt`` folder, a ``runs`` folder or a single run's folder, oldest first."""
    for folder in _run_folders(base):
        try:
            yield examine(folder)
        except FileNotFoundError:
            pass  # delivered and removed at this moment, by its courier
        except OSError:
            yield Finding(folder, None, "unreadable")


def examine(folder: Path) -> Finding:
    """How the journal in ``folder`` stands."""
    heads = [head for _, head in iter_heads(folder)]
    newest = newest_head(folder)
    if newest is None:
        return Finding(folder, None, "unreadable")
    spec, host = newest.spec, newest.owner.host
    lives = [is_alive(head.owner) for head in heads]
    has_ended = any(isinstance(record, RunEnd) for record in iter_records(folder, attempt=newest.attempt.number))
    if True in lives and (has_ended or not is_left_without_end(folder)):
        return Finding(folder, spec, "live", host)
    if has_ended:
        return Finding(folder, spec, "ended", host)
    return Finding(folder, spec, "elsewhere" if None in lives else "vanished", host)


def sync(
    base: Path,
    *,
    store_of: Callable[[RunSpec], str | None],
    keep: bool = False,
    assume_over: bool = False,
) -> Iterator[Outcome]:
    """Deliver every journal in ``base``.

    Parameters
    ----------
    base : Path
        A ``.overt`` folder, its ``runs`` folder, or one run's folder.
    store_of : callable
        URI of the store for a run; None where it is not to be delivered.
    keep : bool
        Whether delivered journals stay.
    assume_over : bool
        Close runs that have no ending although they were written on another host.

    Yields
    ------
    Outcome
        One for each journal, when it is done with.
    """
    for left in (base / "runs").glob(f"*{GONE}"):  # by a deliverer that died while it removed one
        shutil.rmtree(left, ignore_errors=True)
    stores: dict[str, Store] = {}
    unavailable: dict[str, str] = {}
    for finding in find(base):
        if finding.spec is None and not segment_paths(finding.folder):
            continue  # its process died before it recorded anything
        if finding.spec is None:
            yield Outcome(finding, delivered=False, problem="no segment of it can be read by this version of overt")
            continue
        uri = store_of(finding.spec)
        if uri is None:
            yield Outcome(finding, delivered=False, problem="no store was named for it: use --store")
        elif uri in unavailable:
            yield Outcome(finding, delivered=False, problem=unavailable[uri], tried=False)
        else:
            try:
                if uri not in stores:
                    stores[uri] = open_store(uri)
                yield _sync_one(finding, stores[uri], uri, keep=keep, assume_over=assume_over)
            except StoreError as error:
                if uri not in stores or (isinstance(error, StoreUnavailable) and not _is_working(stores[uri])):
                    unavailable[uri] = str(error)  # what it costs to find out, a whole time limit, is paid once
                yield Outcome(finding, delivered=False, problem=str(error))
            except JournalError as error:
                yield Outcome(finding, delivered=False, problem=str(error))
            except OSError as error:  # a folder that this user may read and not write: progress cannot be kept
                yield Outcome(finding, delivered=False, problem=f"{error.filename or finding.folder}: {error.strerror}")
            except Exception as error:  # noqa: BLE001  whatever goes wrong with one journal stops none of the others
                yield Outcome(finding, delivered=False, problem=f"{type(error).__name__}: {error}")
    for store in stores.values():
        with suppress(StoreError):
            store.close()


def _sync_one(finding: Finding, store: Store, uri: str, *, keep: bool, assume_over: bool) -> Outcome:
    from overt.figures import draw

    lock = finding.folder / LOCK
    with lock_within(lock, LOCK_PATIENCE_S) as is_ours:
        if not is_ours:
            return Outcome(
                finding, delivered=False, problem=f"{_described(holder(lock))} is delivering it at this moment"
            )
        delivery = RunDelivery(finding.folder, store, store_name=public_name(uri), draw=draw)
        if finding.state != "live":  # else its courier goes on, from where it remembers that it was
            delivery.begin_again_if_refused()
        is_over = not has_live_owner(finding.folder) or (assume_over and finding.state == "elsewhere")
        sent = delivery.deliver(is_over=is_over)
        closed = (is_over or is_left_without_end(finding.folder)) and delivery.close_vanished()
        if closed:
            delivery.deliver(is_over=is_over)
        is_complete = delivery.is_complete
        problems = list(delivery.problems)
        if finding.state == "elsewhere" and not is_over:
            problems.append(
                f"it has no ending and was written on host {finding.host}, so it may still run there; "
                f"if it does not: overt doctor --close {finding.folder}"
            )
        if not keep:
            delivery.remove_if_safe(is_over=is_over or finding.state == "ended")
        return Outcome(finding, is_complete, sent or closed, closed, delivery.progress.run_id, "; ".join(problems))


def _is_working(store: Store) -> bool:
    """Whether a failure may be one run's own trouble; a store that cannot be asked has the benefit of the doubt."""
    if isinstance(store, ProbeStore):
        try:
            store.probe()
        except StoreError:
            return False
    return True


def _described(pid: int | None) -> str:
    """Who a process is, in words."""
    if pid is None:
        return "another process"
    is_courier = False
    with suppress(OSError):
        is_courier = b"overt.delivery.courier" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return f"its courier (process {pid})" if is_courier else f"process {pid}"


def _run_folders(base: Path) -> Iterator[Path]:
    if (base / "runs").is_dir():
        yield from iter_run_folders(base)
    elif any(base.glob("journal*.jsonl")):
        yield base
    elif base.name == "runs" and base.is_dir():
        yield from iter_run_folders(base.parent)
    elif not base.is_dir():
        raise JournalError(f"there is no journal folder at {base}")
