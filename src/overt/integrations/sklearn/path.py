"""The way from the data that a user gives to the estimator that predicts: through pipelines, searches and wrappers."""

from __future__ import annotations

from typing import Any

from overt.capture.params import final_estimator, unwrapped


def path_to_final(estimator: Any) -> list[Any]:
    """The estimator and those inside it, down to the final one; empty where a search has refitted none."""
    final, path = final_estimator(estimator), [estimator]
    while path[-1] is not final:
        if (inside := unwrapped(path[-1])) is not path[-1]:
            path.append(inside)
        elif hasattr(path[-1], "steps"):
            path.append(path[-1].steps[-1][1])
        elif hasattr(path[-1], "best_estimator_"):
            path.append(path[-1].best_estimator_)
        else:
            return []
    return path


def seen_by_final(estimator: Any, X: Any) -> Any:
    """``X`` as the steps before the final estimator transform it; ``X`` itself where there are none."""
    for steps in _steps_before_final(estimator):
        X = steps.transform(X)
    return X


def names_of_features(estimator: Any, count: int) -> list[str]:
    """Names of the features that the final estimator saw, else ``x0 x1 …``."""
    try:
        names = getattr(estimator, "feature_names_in_", None)
        for steps in _steps_before_final(estimator):
            names = steps.get_feature_names_out(names)
    except Exception:  # noqa: BLE001 - a step that does not name what it makes
        names = None
    if names is None:  # perhaps what it made had names by itself
        names = getattr(final_estimator(estimator), "feature_names_in_", None)
    if names is None or len(names) != count:
        return [f"x{index}" for index in range(count)]
    return [str(name) for name in names]


def _steps_before_final(estimator: Any) -> list[Any]:
    """Of each pipeline on the way all but its last step, as a pipeline."""
    pipelines = [inside for inside in path_to_final(estimator)[:-1] if len(getattr(inside, "steps", ())) > 1]
    return [pipeline[:-1] for pipeline in pipelines]
