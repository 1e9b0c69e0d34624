"""What a store refused, kept beside the journal with the reason: for its reader, and for the next ``overt sync``.

The file may have come with a stranger's journal: it is believed in nothing that matters, and never written through.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from overt.errors import JournalError
from overt.journal.codec import BadLine, decode, encode
from overt.journal.folder import REJECTED
from overt.journal.reader import open_regular
from overt.records import Record, SegmentHead

_MOST_BYTES = 256 * 1024 * 1024


def keep_refused(folder: Path, store_name: str, record: Record, reason: str) -> None:
    """Add ``record`` and the reason; it is in the journal all the same, so failing to is no loss."""
    line = orjson.dumps({"store": store_name, "reason": reason, "line": encode(record).decode()}) + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with suppress(OSError):  # a stranger's journal may have a link there, which is not to be written through
        descriptor = os.open(folder / REJECTED, flags, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def iter_refused(folder: Path, store_name: str) -> Iterator[Record | SegmentHead]:
    """What the store of this name refused, as far as it can be read."""
    for entry in map(_parsed, _lines(folder)):
        if entry.get("store") == store_name:
            with suppress(BadLine):
                yield decode(str(entry.get("line")).encode("utf-8", "surrogatepass"))


def forget_refused(folder: Path, store_name: str) -> None:
    """Remove what the store of this name refused; what others refused, and what cannot be read, stays."""
    rest = [line for line in _lines(folder) if _parsed(line).get("store") != store_name]
    with suppress(OSError):
        if rest:
            partial = folder / f"{REJECTED}.{secrets.token_hex(6)}"
            with open(partial, "xb") as file:  # a name that nobody can have put a link at
                file.writelines(rest)
            os.replace(partial, folder / REJECTED)
        else:
            (folder / REJECTED).unlink(missing_ok=True)


def _lines(folder: Path) -> list[bytes]:
    try:
        with open_regular(folder / REJECTED) as file:
            return file.read(_MOST_BYTES).splitlines(keepends=True)
    except (FileNotFoundError, JournalError):
        return []


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}
