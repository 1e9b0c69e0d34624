"""A search is one fit of many candidates: what it found, the model that it chose, its candidates as runs on request.

Works for every estimator that leaves scikit-learn's ``cv_results_`` behind, third-party searches included, alone or as
the last step of a pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sklearn.base import clone
from sklearn.model_selection._search import BaseSearchCV

from overt.capture.params import final_estimator
from overt.evaluation.search import Candidate, SearchResult, search_result
from overt.guard import recorded_part
from overt.integrations.sklearn.crossval import name_of_scorer
from overt.run import Run
from overt.tracker import Tracker, open_for_hook
from overt.validation import recorded_cell

ChildRuns = int | Literal["all"]


def may_search(estimator: Any) -> bool:
    """Whether ``estimator``, not yet fitted, is or ends with what fits candidates and chooses among them."""
    last = _last_step(estimator)
    return isinstance(last, BaseSearchCV) or {"estimator", "cv", "refit"} <= set(last.get_params(deep=False))


def search_in(estimator: Any) -> Any:
    """The search that the fitted ``estimator`` is or ends with; None if it is none."""
    last = _last_step(estimator)
    results = getattr(last, "cv_results_", None)
    is_search = isinstance(results, Mapping) and "params" in results and hasattr(last, "estimator")
    return last if is_search else None


def result_of(search: Any) -> SearchResult:
    """What a fitted search found."""
    scoring, refit = getattr(search, "scoring", None), getattr(search, "refit", None)
    is_single = scoring is None or isinstance(scoring, str) or callable(scoring)
    return search_result(
        search.cv_results_,
        single_scorer=name_of_scorer(search.estimator, scoring) if is_single else None,
        ranking_scorer=refit if isinstance(refit, str) else None,
        best_index=getattr(search, "best_index_", None),
        best_score=getattr(search, "best_score_", None),
        told=recorded_cell,
    )


def model_of(estimator: Any) -> Any:
    """What is saved as the model: of a search the estimator that it chose, None where it refitted none."""
    if search_in(estimator) is None:
        return estimator
    if search_in(estimator) is estimator:
        return getattr(estimator, "best_estimator_", None)
    return estimator if hasattr(search_in(estimator), "best_estimator_") else None


def has_own_score(estimator: Any) -> bool:
    """Whether ``score`` can answer: not that of a search in which a function chose by several scorers."""
    search = search_in(estimator)
    return not (getattr(search, "multimetric_", False) and callable(search.refit))


def model_type_of(run: Run, search: Any, candidate: Candidate) -> str | None:
    """The class that a candidate is of: a search may choose among estimators, as the last steps of its pipeline.

    None, which is said in ``run``, where the parameters cannot be set as a third party's search has noted them.
    """
    params = search.cv_results_["params"][candidate.index]
    if not any(hasattr(value, "fit") for value in params.values()):
        return type(final_estimator(search.estimator)).__name__
    with recorded_part(run, "model types of candidates"):
        tried = clone(search.estimator).set_params(**clone(params, safe=False))
        return type(final_estimator(tried)).__name__
    return None


def record_children(
    run: Run, search: Any, result: SearchResult, child_runs: ChildRuns, *, tracker: Tracker | None
) -> None:
    """Record the best candidates, or all, as runs nested in ``run``."""
    count = len(result.candidates) if child_runs == "all" else min(child_runs, len(result.candidates))
    for rank, candidate in enumerate(result.best_of(count), start=1):
        _record_child(run, candidate, rank, model_type=model_type_of(run, search, candidate), tracker=tracker)


def _record_child(
    run: Run, candidate: Candidate, rank: int, *, model_type: str | None, tracker: Tracker | None
) -> None:
    name = f"{run.name} candidate {candidate.index}"
    kind = {} if model_type is None else {"model_type": model_type}
    child = open_for_hook(
        name,
        run_name=name,
        params={**candidate.round, **candidate.params, **kind},
        tags={"overt.candidate": candidate.index, "overt.rank": rank},
        parent=run,
        tracker=tracker,
        is_light=True,
    ).run
    for scorer, scores in candidate.scores.items():
        for split, score in enumerate(scores):
            child.log_metric(f"cv_{scorer}", score, step=split)
    child.log_metrics(scores_of(candidate) | {"fit_seconds": candidate.fit_seconds}, step=0)
    child.finish("FAILED" if candidate.has_failed else "FINISHED")
    child.seal()


def scores_of(candidate: Candidate) -> dict[str, float]:
    """Mean and standard deviation of each scorer, by the names of metrics."""
    means = {f"cv_mean_{scorer}": mean for scorer, mean in candidate.means.items()}
    return means | {f"cv_std_{scorer}": std for scorer, std in candidate.stds.items()}


def _last_step(estimator: Any) -> Any:
    while isinstance(steps := getattr(estimator, "steps", None), list) and steps:
        estimator = steps[-1][1]
    return estimator
