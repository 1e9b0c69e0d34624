"""For tests: users' own of their training code, and adapter authors' of their stores.

``captured_runs`` gives the runs that a block records, in memory and at once. ``StoreContract`` holds what every store
promises; ``FlakyStore`` breaks any store on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overt.testing.captured import captured_runs as captured_runs

_HOMES = {"captured_runs": "overt.testing.captured"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'overt.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
