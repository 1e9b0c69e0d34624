"""What a hyper-parameter search found: every candidate with its scores, the best one, and the whole table as a file.

Reads what scikit-learn's searches leave behind (``cv_results_``) and computes nothing anew, so the numbers are the
search's own. A candidate whose score is NaN has failed; it stays in the table and is counted.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from overt.evaluation.report import FigureSpec
from overt.optional import is_installed, require

MAX_DRAWN_CANDIDATES = 2_000

Told = Callable[[str, object], str | float | int | bool | None]
"""Says the value of a parameter as a number or a text, without secrets."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of the parameters that was tried.

    Attributes
    ----------
    index : int
        Its row in ``cv_results_``.
    params : mapping of str to str
        Described, without secrets.
    scores : mapping of str to sequence of float
        Scorer's name to one score per split.
    means, stds : mapping of str to float
        Scorer's name to mean and standard deviation (ddof 0) over the splits.
    fit_seconds : float
        Mean over the splits.
    round : mapping of str to int
        Of a search by rounds (halving), which tries a setting again with more: ``iter`` and ``n_resources``.
    """

    index: int
    params: Mapping[str, str]
    scores: Mapping[str, Sequence[float]]
    means: Mapping[str, float]
    stds: Mapping[str, float]
    fit_seconds: float
    round: Mapping[str, int]

    @property
    def has_failed(self) -> bool:
        """Whether it has no usable score of some scorer."""
        return any(math.isnan(mean) for mean in self.means.values())


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search.

    Attributes
    ----------
    candidates : tuple of Candidate
        In the order of ``cv_results_``.
    ranking : tuple of int
        Their indices, the best first.
    best : Candidate or None
        None where the search chose none: several scorers and ``refit=False``.
    best_score : float or None
        ``best_score_``; None also where a callable chose among several scorers.
    columns : mapping of str to list
        ``cv_results_``, parameters described.
    """

    candidates: tuple[Candidate, ...]
    ranking: tuple[int, ...]
    best: Candidate | None
    best_score: float | None
    columns: Mapping[str, Sequence[Any]]

    @property
    def n_failed(self) -> int:
        """How many candidates have no usable score."""
        return sum(candidate.has_failed for candidate in self.candidates)

    def best_of(self, count: int) -> list[Candidate]:
        """The ``count`` best candidates, the best first."""
        return [self.candidates[index] for index in self.ranking[:count]]

    def to_csv(self) -> bytes:
        """One line per candidate; floats as they are, to the last digit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))  # None is written as nothing
        return text.getvalue().encode()

    def to_parquet(self) -> bytes | None:
        """The same table with its types, where pyarrow is installed; a column of mixed types becomes text."""
        if not is_installed("pyarrow"):
            return None
        pyarrow, parquet = require("pyarrow", extra="mlflow"), require("pyarrow.parquet", extra="mlflow")
        columns = {name: _of_one_type(values) for name, values in self.columns.items()}
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), buffer)
        return buffer.getvalue()

    def iter_figures(self) -> Iterator[FigureSpec]:
        """Scores by parameter, one picture per scorer; none of a search that varies no parameter."""
        scorers = list(self.candidates[0].means) if self.candidates and self._varied_params() else []
        for scorer in scorers:
            drawn = sorted(self.ranking[:MAX_DRAWN_CANDIDATES])
            yield FigureSpec(
                "search_scores.png" if len(scorers) == 1 else f"search_scores_{scorer.replace('/', '_')}.png",
                "search_scores",
                self._drawing(scorer, [self.candidates[index] for index in drawn]),
            )

    def _drawing(self, scorer: str, drawn: Sequence[Candidate]) -> dict[str, Any]:
        position = {candidate.index: place for place, candidate in enumerate(drawn)}
        return {
            "scorer": scorer,
            "scores": [_finite(candidate.means[scorer]) for candidate in drawn],
            "stds": [_finite(candidate.stds[scorer]) for candidate in drawn],
            "best": position.get(self.best.index) if self.best is not None else None,
            "n_candidates": len(self.candidates),
            "panels": [
                {"param": name, "values": [_drawable(self.columns[f"param_{name}"][c.index]) for c in drawn]}
                for name in self._varied_params()
            ],
        }

    def _varied_params(self) -> list[str]:
        """Parameters with more than one value, or all where none has."""
        names = [name.removeprefix("param_") for name in self.columns if name.startswith("param_")]
        return [name for name in names if len({*map(str, self.columns[f"param_{name}"])}) > 1] or names


def search_result(
    results: Mapping[str, Any],
    *,
    single_scorer: str | None,
    ranking_scorer: str | None,
    best_index: int | None,
    best_score: float | None,
    told: Told,
) -> SearchResult:
    """Read the ``cv_results_`` of a search.

    Parameters
    ----------
    results : mapping
        ``cv_results_``: ``params``, and for each scorer ``split<i>_test_<scorer>``, ``mean_test_<scorer>``,
        ``std_test_<scorer>`` and ``rank_test_<scorer>``.
    single_scorer : str or None
        Name of the scorer that scikit-learn calls ``score``; None where the scorers have names of their own.
    ranking_scorer : str or None
        The one of several that the search chooses by (``refit``); the first where it says none.
    best_index, best_score
        ``best_index_`` and ``best_score_``, where the search has them.
    told : callable
        Says a parameter's value, given its name and the value.
    """
    keys = [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]
    named = {key: single_scorer or key for key in keys} if keys == ["score"] else {key: key for key in keys}
    candidates = tuple(_candidate(results, index, named, told) for index in range(len(results["params"])))
    return SearchResult(
        candidates=candidates,
        ranking=_ranking(results, ranking_scorer if ranking_scorer in keys else next(iter(keys), None), best_index),
        best=candidates[int(best_index)] if best_index is not None else None,
        best_score=None if best_score is None else float(best_score),
        columns={str(name): _column(str(name), values, told) for name, values in results.items()},
    )


def _candidate(results: Mapping[str, Any], index: int, named: Mapping[str, str], told: Told) -> Candidate:
    splits = {key: _split_keys(results, key) for key in named}
    return Candidate(
        index=index,
        params={str(k): str(told(str(k), v)) for k, v in results["params"][index].items()},
        scores={name: [float(results[split][index]) for split in splits[key]] for key, name in named.items()},
        means={name: float(results[f"mean_test_{key}"][index]) for key, name in named.items()},
        stds={name: float(results[f"std_test_{key}"][index]) for key, name in named.items()},
        fit_seconds=float(results["mean_fit_time"][index]) if "mean_fit_time" in results else math.nan,
        round={name: int(results[name][index]) for name in ("iter", "n_resources") if name in results},
    )


def _split_keys(results: Mapping[str, Any], key: str) -> list[str]:
    keys: list[str] = []
    while (name := f"split{len(keys)}_test_{key}") in results:
        keys.append(name)
    return keys


def _ranking(results: Mapping[str, Any], key: str | None, best_index: int | None) -> tuple[int, ...]:
    """By the rank of a scorer; the one that the search chose comes first whatever its rank."""
    ranks = numpy.zeros(len(results["params"])) if key is None else numpy.asarray(results[f"rank_test_{key}"])
    order = [int(index) for index in numpy.argsort(ranks, kind="stable")]
    if best_index is not None:
        order.remove(int(best_index))
        order.insert(0, int(best_index))
    return tuple(order)


def _column(name: str, values: Any, told: Told) -> list[Any]:
    """A column as plain numbers and texts; None is a parameter that a candidate does not have."""
    if name == "params":
        return [str({str(k): told(str(k), v) for k, v in params.items()}) for params in values]
    if name.startswith("param_"):
        param = name.removeprefix("param_")
        return [None if value is numpy.ma.masked else _some(told(param, value)) for value in values]
    return [value.item() if isinstance(value, numpy.generic) else value for value in values]


def _some(value: Any) -> Any:
    return "None" if value is None else value


def _of_one_type(values: Sequence[Any]) -> Sequence[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds <= {bool}:
        return values
    return [None if value is None else str(value) for value in values]


def _drawable(value: Any) -> float | str | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
        return value
    return str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
