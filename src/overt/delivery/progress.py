"""How far one journal has been delivered to one store: kept beside it, replaced atomically, never trusted blindly.

If it is lost, delivery starts again from the first byte, and the stores' idempotence makes that harmless.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from overt.journal.folder import DELIVERED
from overt.journal.reader import open_regular

_MOST_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class Progress:
    """One journal's delivery to one store.

    Attributes
    ----------
    offsets : dict
        For each segment, the byte up to which it was delivered.
    held_params : bool
        Params wait for the caller's own run to end (the run was joined).
    attempt : int
        The last attempt that the store was told of.
    ended_attempt : int
        The last attempt whose ending was sent; 0 if there is none.
    repeated : int
        Points that were left out, since another attempt's point stood at their step.
    sealed : bool
        The last record that the last attempt's own process wrote was a seal.
    """

    run_id: str | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    bad_lines: int = 0
    rejected: int = 0
    held_params: bool = False
    attempt: int = 1
    ended_attempt: int = 0
    repeated: int = 0
    sealed: bool = False


def load_progress(folder: Path, store_name: str) -> Progress:
    """What is known of the delivery of ``folder`` to the store of this name; a fresh start if nothing credible is."""
    return _read(folder).get(store_name) or Progress()


def load_any_progress(folder: Path) -> dict[str, Progress]:
    """All deliveries of ``folder``, by store name."""
    return _read(folder)


def save_progress(folder: Path, store_name: str, progress: Progress) -> None:
    """Replace what is known, leaving other stores' progress as it is."""
    deliveries = _read(folder) | {store_name: progress}
    partial = folder / f"{DELIVERED}.{secrets.token_hex(6)}"
    with open(partial, "xb") as file:  # a name that nobody can have put a link at
        file.write(orjson.dumps(deliveries, option=orjson.OPT_INDENT_2))
    os.replace(partial, folder / DELIVERED)


def _read(folder: Path) -> dict[str, Progress]:
    try:
        with open_regular(folder / DELIVERED) as file:
            content = orjson.loads(file.read(_MOST_BYTES))
    except (OSError, orjson.JSONDecodeError):
        return {}
    if not isinstance(content, dict):
        return {}
    found = {str(name): _checked(fields) for name, fields in content.items()}
    return {name: progress for name, progress in found.items() if progress is not None}


def _checked(fields: Any) -> Progress | None:
    """``fields`` as progress, if every field has its type: the file may come with a stranger's journal."""
    if not isinstance(fields, dict) or fields.keys() != _CHECKS.keys():
        return None
    return Progress(**fields) if all(check(fields[name]) for name, check in _CHECKS.items()) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_flag(value: Any) -> bool:
    return type(value) is bool


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "run_id": lambda value: value is None or isinstance(value, str),
    "offsets": lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
    "models": lambda value: isinstance(value, dict) and all(isinstance(uri, str) for uri in value.values()),
    "bad_lines": _is_count,
    "rejected": _is_count,
    "held_params": _is_flag,
    "attempt": _is_count,
    "ended_attempt": _is_count,
    "repeated": _is_count,
    "sealed": _is_flag,
}
