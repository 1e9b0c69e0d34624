"""What overt says: a line on stderr if anybody can hear, never in the way of training; warnings at the user's line."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType

from overt.errors import OvertWarning

_ROOT = str(Path(__file__).parent)
_NOT_THE_USERS = (_ROOT, str(Path(os.__file__).parent), "/site-packages/", "/dist-packages/")


def say(text: str) -> None:
    """Print ``overt: text`` to stderr; a stderr that is closed, broken or absent hears nothing, and raises nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"overt: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """Warn at the user's line that led here, in whichever room the caller is."""
    frame = _users_frame()
    scope = frame.f_globals
    warnings.warn_explicit(
        text,
        OvertWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=scope.get("__name__"),
        registry=scope.setdefault("__warningregistry__", {}),  # Python's own: by this a text is said once for a line
    )


def users_line() -> tuple[str, int]:
    """File and line of the user's that led here."""
    frame = _users_frame()
    return frame.f_code.co_filename, frame.f_lineno


def _users_frame() -> FrameType:
    """The innermost frame of the user's own code; without one, as at the process's end, that outside overt."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_ROOT):
        frame = frame.f_back
    found: FrameType | None = frame
    while found is not None and any(place in found.f_code.co_filename for place in _NOT_THE_USERS):
        found = found.f_back  # PyTorch, Lightning or contextlib called a hook of ours
    return found or frame
