"""The few lines that overt prints: to stderr if anybody can hear, and never in the way of training."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Print ``overt: text`` to stderr; a stderr that is closed, broken or absent hears nothing, and raises nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"overt: {text}", file=sys.stderr)
