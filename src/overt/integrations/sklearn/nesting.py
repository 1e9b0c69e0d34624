"""Where a tracked estimator stands: as the last step of a pipeline it sees data that nobody else has.

What it records then, model, data and signature, is of transformed data: the model alone cannot predict what the user
has at hand. So the advice is to wrap the pipeline.
"""

from __future__ import annotations

from types import FrameType
from typing import Any

ADVICE = (
    "a TrackedEstimator is the last step of a Pipeline, so the recorded model needs data that the other steps have "
    "transformed. Wrap the whole: TrackedEstimator(make_pipeline(…))"
)


def is_last_step(estimator: Any, caller: FrameType) -> bool:
    """Whether ``caller``, the frame that called ``fit``, is that of a pipeline that ends with ``estimator``.

    One whose other steps change nothing does not count.
    """
    if not caller.f_globals.get("__name__", "").endswith(".pipeline"):
        return False
    steps = getattr(caller.f_locals.get("self"), "steps", None)
    if not isinstance(steps, list) or not steps or steps[-1][1] is not estimator:
        return False
    return any(step is not None and not (isinstance(step, str) and step == "passthrough") for _, step in steps[:-1])
