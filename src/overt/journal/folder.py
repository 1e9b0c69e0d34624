"""Where journals lie, and what lies in one: every path of the on-disk format is spelled here and nowhere else.

::

    .overt/                       mode 0700, git-ignored
      runs/<key>/
        journal.jsonl             the first process's segment
        journal.attempt-<n>.jsonl that of the process in which a killed training goes on
        journal.<pid>-<id>.jsonl  one for each further process
        files/<sha256>            the spool: bytes named by their own digest
        delivered.json            how far each store has got; replaced atomically
        rejected.jsonl            lines that a store refused, with its reason
        lock                      held by whoever delivers
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MAIN_SEGMENT = "journal.jsonl"
_ATTEMPT = re.compile(r"journal\.attempt-([1-9][0-9]{0,8})\.jsonl")
DELIVERED = "delivered.json"
REJECTED = "rejected.jsonl"
LOCK = "lock"
GONE = ".delivered"
"""What the name of a run's folder ends in once it is only to be removed."""


def run_folder(base: Path, key: str) -> Path:
    """Folder of the run ``key`` below the ``.overt`` folder ``base``."""
    return base / "runs" / key


def create_run_folder(folder: Path) -> None:
    """Create ``folder`` and what stands above it, readable by its owner alone and ignored by git."""
    base = folder.parent.parent
    if not base.exists():
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError), open(base / ".gitignore", "x", encoding="ascii") as file:
            file.write("*\n")
    for made in (base / "runs", folder, folder / "files"):  # parents=True would give them the mode of the umask
        made.mkdir(mode=0o700, exist_ok=True)


def iter_run_folders(base: Path) -> Iterator[Path]:
    """The run folders below ``base``, oldest first; a link to a folder elsewhere is none of them."""
    runs = base / "runs"
    if runs.is_dir():
        folders = (path for path in runs.iterdir() if path.is_dir() and not path.is_symlink())
        yield from sorted((path for path in folders if not path.name.endswith(GONE)), key=_age)


def _age(folder: Path) -> tuple[int, str]:
    try:
        return folder.stat().st_ctime_ns, folder.name
    except FileNotFoundError:  # delivered and removed at this moment
        return 0, folder.name


def segment_paths(folder: Path) -> list[Path]:
    """The segments of a run: the first process's, then the others by name."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
    further = sorted(n for n in names if n.startswith("journal.") and n.endswith(".jsonl") and n != MAIN_SEGMENT)
    return [folder / name for name in ([MAIN_SEGMENT] if MAIN_SEGMENT in names else []) + further]


def main_segment(attempt: int) -> str:
    """Name of the segment of the process that made an attempt at the run."""
    return MAIN_SEGMENT if attempt == 1 else f"journal.attempt-{attempt}.jsonl"


def last_attempt(folder: Path) -> int:
    """Number of the last attempt at the run; 0 where there is none."""
    names = [path.name for path in segment_paths(folder)]
    found = [int(match[1]) for name in names if (match := _ATTEMPT.fullmatch(name))]
    return max([*found, *([1] if names else [])], default=0)


def new_segment_name() -> str:
    """A name that no other process chooses."""
    return f"journal.{os.getpid()}-{secrets.token_hex(3)}.jsonl"


def blob_path(folder: Path, sha256: str) -> Path:
    """Where the spool keeps the bytes with this digest."""
    return folder / "files" / sha256
