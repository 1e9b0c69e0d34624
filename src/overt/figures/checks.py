"""Untrusted data becomes numbers, texts and lists of bounded size here, or a RecordError that says where it did not.

Nothing is looked at beyond what a figure asks for, so the rest of a hostile mapping costs nothing.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from overt.errors import RecordError

T = TypeVar("T")

MAX_TEXT = 28
MAX_POINTS = 20_000
MAX_SIDE = 1_000
MAX_CURVES = 50

# Axes stay computable up to here: the difference of two larger numbers may be infinite.
_MAX_NUMBER = 1e100


def item(data: Mapping[str, Any], key: str) -> Any:
    """Return ``data[key]``, which must be there."""
    if not isinstance(data, Mapping) or key not in data:
        raise RecordError(f"figure data must be a mapping with {key!r}")
    return data[key]


def items(value: Any, read: Callable[[Any], T], *, name: str, limit: int) -> list[T]:
    """Return a list of at most ``limit`` values, each of them read by ``read``."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise RecordError(f"{name!r} of a figure must be a list (got {type(value).__name__})")
    if len(value) > limit:
        raise RecordError(f"{name!r} of a figure may hold {limit:,} entries (got {len(value):,})")
    return [read(entry) for entry in value]


def number(value: Any) -> float:
    """Return a finite number of a size that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise RecordError(f"a figure needs finite numbers (got {_excerpt(value)})")
    return float(value)


def numbers(data: Mapping[str, Any], key: str, *, limit: int = MAX_POINTS) -> list[float]:
    """Return a list of finite numbers."""
    return items(item(data, key), number, name=key, limit=limit)


def paired(data: Mapping[str, Any], *keys: str, limit: int = MAX_POINTS) -> tuple[list[float], ...]:
    """Return several lists of numbers of one length."""
    lists = tuple(numbers(data, key, limit=limit) for key in keys)
    if len({len(values) for values in lists}) > 1:
        raise RecordError(f"{' and '.join(map(repr, keys))} of a figure must have the same length")
    return lists


def maybe_number(value: Any) -> float | None:
    """Return a number, or None where it is undefined: JSON has ``null`` for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return number(value)


def text(value: Any) -> str:
    """Return a label short enough to draw: one line, no control characters, an ellipsis where it was cut."""
    if not isinstance(value, str):
        raise RecordError(f"a figure needs text for its labels (got {_excerpt(value)})")
    head = value[: 4 * MAX_TEXT]
    shown = "".join(letter if unicodedata.category(letter)[0] != "C" else " " for letter in head).strip()
    return shown if len(shown) <= MAX_TEXT and len(head) == len(value) else shown[: MAX_TEXT - 1] + "…"


def texts(data: Mapping[str, Any], key: str, *, limit: int) -> list[str]:
    """Return a list of labels."""
    return items(item(data, key), text, name=key, limit=limit)


def flag(data: Mapping[str, Any], key: str) -> bool:
    """Return a boolean."""
    value = item(data, key)
    if not isinstance(value, bool):
        raise RecordError(f"{key!r} of a figure must be true or false (got {_excerpt(value)})")
    return value


def _excerpt(value: Any) -> str:
    """Describe a value without printing all of it; the repr of a huge integer alone can take minutes."""
    return type(value).__name__ if isinstance(value, int | list | dict) else f"{value!r:.60}"
