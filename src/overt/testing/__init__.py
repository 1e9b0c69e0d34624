"""For tests: users' own of their training code, and adapter authors' of their stores.

``captured_runs`` gives the runs that a block records, in memory and at once. ``StoreContract`` holds what every store
promises, ``IntegrationContract`` what every hook does; ``FlakyStore`` breaks any store on purpose.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from overt.optional import require

if TYPE_CHECKING:
    from overt.testing.captured import captured_runs as captured_runs
    from overt.testing.contract import StoreContract as StoreContract
    from overt.testing.contract import StoredPoint as StoredPoint
    from overt.testing.contract import StoredRun as StoredRun
    from overt.testing.flaky import Fault as Fault
    from overt.testing.flaky import FlakyStore as FlakyStore
    from overt.testing.integration import IntegrationContract as IntegrationContract

_HOMES = {
    "Fault": "overt.testing.flaky",
    "FlakyStore": "overt.testing.flaky",
    "IntegrationContract": "overt.testing.integration",
    "StoreContract": "overt.testing.contract",
    "StoredPoint": "overt.testing.contract",
    "StoredRun": "overt.testing.contract",
    "captured_runs": "overt.testing.captured",
}

_CONTRACTS = ("overt.testing.contract", "overt.testing.integration")

__all__ = ["Fault", "FlakyStore", "IntegrationContract", "StoreContract", "StoredPoint", "StoredRun", "captured_runs"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'overt.testing' has no attribute {name!r}")
    if _HOMES[name] in _CONTRACTS and _HOMES[name] not in sys.modules:
        require("pytest", extra="test").register_assert_rewrite(_HOMES[name])  # a failing contract shows its values
    return getattr(importlib.import_module(_HOMES[name]), name)
