"""Ids and time: the only source of both, so that whatever depends on them can be tested by replacing this module's two.

Times are whole milliseconds since 1970 (UTC), the resolution that MLflow stores.
"""

from __future__ import annotations

import time
import uuid

NS_PER_MS = 1_000_000
time_ns = time.time_ns
"""Nanoseconds since 1970."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time_ns() // NS_PER_MS


def new_key() -> str:
    """A fresh run key: 32 hexadecimal digits, unique across machines."""
    return uuid.uuid4().hex
