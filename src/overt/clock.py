"""Ids and time: the only source of both, so that whatever depends on them can be tested by replacing this module's two.

Times are whole milliseconds since 1970 (UTC), the resolution that MLflow stores.
"""

from __future__ import annotations

import time
import uuid


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_key() -> str:
    """A fresh run key: 32 hexadecimal digits, unique across machines."""
    return uuid.uuid4().hex
