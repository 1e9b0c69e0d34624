"""overt records training openly: what you wrap, call back or decorate, and nothing else.

Importing this package imports no third-party library, prints nothing and starts nothing; each public name is loaded
when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overt import audit as audit
    from overt import reproduce as reproduce
    from overt import testing as testing
    from overt.ending import wait as wait
    from overt.errors import OvertError as OvertError
    from overt.errors import OvertWarning as OvertWarning
    from overt.evaluation.report import Report as Report
    from overt.integrations.lightning.lightning_pytorch import TrackingCallback as TrackingCallback
    from overt.integrations.sklearn.callback import SklearnTrackingCallback as SklearnTrackingCallback
    from overt.integrations.sklearn.estimator import TrackedEstimator as TrackedEstimator
    from overt.integrations.torch.decorator import track_training as track_training
    from overt.query.comparing import compare as compare
    from overt.query.listing import best_run as best_run
    from overt.query.listing import history as history
    from overt.query.listing import runs as runs
    from overt.registry import load_model as load_model
    from overt.registry import promote as promote
    from overt.registry import register as register
    from overt.run import Run as Run
    from overt.run import current_run as current_run
    from overt.settings import configure as configure
    from overt.tracker import Tracker as Tracker
    from overt.tracker import start_run as start_run

_HOMES = {
    "best_run": "overt.query.listing",
    "compare": "overt.query.comparing",
    "history": "overt.query.listing",
    "runs": "overt.query.listing",
    "OvertError": "overt.errors",
    "OvertWarning": "overt.errors",
    "Report": "overt.evaluation.report",
    "Run": "overt.run",
    "SklearnTrackingCallback": "overt.integrations.sklearn.callback",
    "TrackedEstimator": "overt.integrations.sklearn.estimator",
    "TrackingCallback": "overt.integrations.lightning",
    "Tracker": "overt.tracker",
    "configure": "overt.settings",
    "track_training": "overt.integrations.torch.decorator",
    "current_run": "overt.run",
    "load_model": "overt.registry",
    "promote": "overt.registry",
    "register": "overt.registry",
    "start_run": "overt.tracker",
    "wait": "overt.ending",
}
_MODULES = ("audit", "reproduce", "testing")

__all__ = [
    "OvertError",
    "OvertWarning",
    "Report",
    "Run",
    "SklearnTrackingCallback",
    "TrackedEstimator",
    "Tracker",
    "TrackingCallback",
    "audit",
    "best_run",
    "compare",
    "configure",
    "current_run",
    "history",
    "load_model",
    "promote",
    "register",
    "reproduce",
    "runs",
    "start_run",
    "testing",
    "track_training",
    "wait",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        return importlib.import_module("overt.optional").own_version()
    if name in _MODULES:
        return importlib.import_module(f"overt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'overt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
