"""Journals as the command line sees them: how each stands, what of it has not arrived, and where it may go.

A journal names the store that it was recorded for. In this machine's own journal folder that name is followed; in a
folder that was named on the command line, and so may be anybody's, it is not: MLflow would show this machine's
credentials to whatever server a stranger wrote there. Such a run goes where ``--store`` says, or to the configured
store if that is the one it names, or nowhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overt.cli.options import chosen_store, configured_folder
from overt.delivery.progress import Progress, load_any_progress
from overt.delivery.sync import Finding, find
from overt.errors import ConfigurationError, JournalError
from overt.journal.folder import REJECTED, segment_paths
from overt.journal.reader import open_regular, read_batch
from overt.records import Lost, RunSpec
from overt.settings import cache_base
from overt.stores.uri import public_name, resolve


@dataclass(frozen=True, slots=True)
class Journal:
    """One journal and how far it has got with the store that it was recorded for, or with the one it got furthest with.

    Attributes
    ----------
    waiting_bytes : int
        What lies there undelivered.
    bad_lines, rejected : int
        Lines that are no record; records that the store refused.
    """

    finding: Finding
    run_id: str | None
    waiting_bytes: int
    bad_lines: int
    rejected: int

    @property
    def is_delivered(self) -> bool:
        """Whether nothing of it waits. What was refused or is damaged does not wait."""
        return self.waiting_bytes == 0

    @property
    def name(self) -> str:
        """The run's name, or the folder's where nothing says the run's."""
        return self.finding.spec.name if self.finding.spec else self.finding.folder.name

    def to_json(self) -> dict[str, Any]:
        """The journal as it is described in the reference."""
        spec = self.finding.spec
        return {
            "key": spec.key if spec else None,
            "name": spec.name if spec else None,
            "experiment": spec.experiment if spec else None,
            "started_ms": spec.started_ms if spec else None,
            "store": spec.store if spec else None,
            "state": self.finding.state,
            "host": self.finding.host,
            "folder": str(self.finding.folder),
            "run_id": self.run_id,
            "waiting_bytes": self.waiting_bytes,
        }


@dataclass(frozen=True, slots=True)
class Damage:
    """What a journal says of its own gaps, read from the first line to the last."""

    bad_lines: int
    lost: int


def own_folders() -> list[Path]:
    """The journal folders of this user: the configured one, and the one that is used where that cannot be written."""
    return list(dict.fromkeys([configured_folder(), cache_base()]))


def iter_journals(folder: Path | None) -> Iterator[Journal]:
    """The journals in ``folder``, or in one's own folders.

    Raises
    ------
    JournalError
        When ``folder`` is named and is no place for journals.
    """
    for base in folders(folder):
        for finding in find(base):
            journal = look_at(finding)
            if finding.folder.exists():  # else its courier delivered and removed it while it was looked at
                yield journal


def folders(folder: Path | None) -> list[Path]:
    """``folder`` if it is named, after a check that it is a place for journals; else those of one's own that exist."""
    if folder is None:
        return [base for base in own_folders() if base.is_dir()]
    folder = folder.expanduser().absolute()
    is_named_so = folder.name in ("runs", ".overt") or (folder / "runs").is_dir()
    if not folder.is_dir() or not (is_named_so or segment_paths(folder) or is_own(folder)):
        raise JournalError(f"there is no journal folder at {folder}")
    return [folder]


def is_own(folder: Path | None) -> bool:
    """Whether ``folder`` is, or is in, one of one's own journal folders."""
    return folder is None or any(folder.resolve().is_relative_to(base.resolve()) for base in own_folders())


def look_at(finding: Finding) -> Journal:
    """How far a journal has got."""
    sizes: dict[str, int] = {}
    with suppress(FileNotFoundError):
        sizes |= {path.name: path.lstat().st_size for path in segment_paths(finding.folder)}
    progress = _relevant_progress(finding, sizes)
    waiting = sum(max(0, size - progress.offsets.get(name, 0)) for name, size in sizes.items())
    if finding.spec is None or (progress.held_params and waiting == 0):
        waiting = max(1, waiting)
    return Journal(finding, progress.run_id, waiting, progress.bad_lines, _rejected(finding.folder, progress))


def damage(folder: Path) -> Damage:
    """Count damaged lines and losses in all segments of a journal, without believing what was noted about them."""
    bad_lines = lost = 0
    for path in segment_paths(folder):
        offset = 0
        with suppress(FileNotFoundError, JournalError):  # removed meanwhile, or no file of ours: the state tells
            while (batch := read_batch(path, offset)).end > offset:
                bad_lines += batch.bad_lines
                lost += sum(record.count for record in batch.records if isinstance(record, Lost))
                offset = batch.end
    return Damage(bad_lines, lost)


class Destinations:
    """Decides for each run which store it may be delivered to, and remembers why some may not.

    Parameters
    ----------
    folder : Path or None
        The folder named on the command line.
    store : str or None
        ``--store``.
    command : str
        The command to type again, such as ``overt sync``.
    """

    def __init__(self, folder: Path | None, store: str | None, *, command: str) -> None:
        self._given = chosen_store(store) if store is not None else None
        self._configured = chosen_store(None)
        self._is_own = is_own(folder)
        self._again = command + (f" {shlex.quote(str(folder))}" if folder else "")
        self.withheld: dict[str, str] = {}

    def uri_of(self, spec: RunSpec) -> str | None:
        """URI of the store for a run, with its credentials; None where it is not to be delivered."""
        if self._given is not None:
            return self._given
        if spec.store == public_name(self._configured):
            return self._configured
        if not spec.store:
            self._withhold(spec, "it was recorded for a store that has no URI", "URI")
        elif not self._is_own:
            reason = f"it was recorded for {spec.store}, which is not the configured store"
            self._withhold(spec, reason, shlex.quote(spec.store))
        else:
            try:
                return resolve(spec.store, directory=Path.cwd())
            except ConfigurationError:
                self._withhold(spec, f"it was recorded for {spec.store}, which nothing here can open", "URI")
        return None

    def _withhold(self, spec: RunSpec, reason: str, store: str) -> None:
        self.withheld[spec.key] = f"{reason}; to deliver it: {self._again} --store {store}"


def _relevant_progress(finding: Finding, sizes: dict[str, int]) -> Progress:
    """How far it got with its own store; if nothing went there, with whichever store has got most of it."""
    known = load_any_progress(finding.folder)
    if finding.spec is not None and finding.spec.store in known:
        return known[finding.spec.store]
    return max(known.values(), key=lambda p: sum(p.offsets.get(name, 0) for name in sizes), default=Progress())


def _rejected(folder: Path, progress: Progress) -> int:
    """Records that were refused: what is noted, or the lines that are kept, whichever tells more."""
    lines = 0
    with suppress(FileNotFoundError, JournalError), open_regular(folder / REJECTED) as file:
        lines = sum(1 for _ in file)
    return max(progress.rejected, lines)
