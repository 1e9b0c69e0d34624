from __future__ import annotations

import math
from collections.abc import Iterator

import numpy
import pytest
from tests.unit.query.shelf import Shelf, run

from overt.errors import ConfigurationError, RunNotFound
from overt.filters import parse_filter, parse_order
from overt.query.searching import find_best, find_runs, name_in_doubt
from overt.records import RunSummary, StoredDataset

SHELF = Shelf(
    run("a", 1, metrics={"f1_score": 0.9}, params={"kind": "SVC"}),
    run("b", 2, metrics={"f1_score": 0.8, "loss": 0.1}, params={"kind": "RF"}),
    run("c", 3, metrics={"f1_score": math.nan, "odd": math.nan}, experiment="other"),
    run("d", 4, metrics={"f1_score": 0.9}, params={"kind": "RF"}),
    run("e", 5),
    datasets={"a": [StoredDataset("train", "d1", "fit", "")]},
)


def ids(**asked: object) -> list[str]:
    where, order = parse_filter(asked.pop("where", None)), parse_order(asked.pop("order_by", None))  # type: ignore[arg-type]
    return [found.id for found in find_runs(SHELF, conditions=where, order=order, **asked)]  # type: ignore[arg-type]


def test_a_store_that_only_lists_is_filtered_and_sorted_here() -> None:
    assert ids() == ["e", "d", "c", "b", "a"]
    assert ids(limit=2) == ids(limit=numpy.int64(2)) == ["e", "d"]
    assert ids(where="metrics.f1_score > 0.8") == ["d", "a"]
    assert ids(where="params.kind = 'RF'", order_by="metrics.f1_score", limit=1) == ["b"]
    assert ids(experiment="e", order_by=["params.kind DESC", "metrics.loss"]) == ["a", "b", "d", "e"]
    assert ids(where="datasets.digest = 'd1'") == ["a"]
    with pytest.raises(RunNotFound, match="no experiment"):
        ids(experiment="nope")


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_a_limit_is_a_count(limit: object) -> None:
    with pytest.raises(ConfigurationError, match="whole number of at least 1"):
        ids(limit=limit)


def test_the_tags_that_every_run_has_in_mlflow_are_answered_from_its_name_and_key() -> None:
    shelf = Shelf(run("a"), run("b", key="f" * 32), run("c", tags={"mlflow.runName": "theirs"}))
    names = {listed.id: listed.name for listed in shelf.iter_runs()}
    for where, found in (
        (f"tags.mlflow.runName = '{names['b']}'", ["b"]),
        ("tags.`mlflow.runName` = 'theirs'", ["c"]),
        ("tags.overt.key IS NOT NULL", ["b"]),
        (f"tags.overt.key = '{'f' * 32}'", ["b"]),
    ):
        assert [listed.id for listed in find_runs(shelf, conditions=parse_filter(where))] == found
    order = parse_order("tags.mlflow.runName DESC")
    found_runs = find_runs(shelf, order=order)
    assert [listed.id for listed in found_runs] == ["c", "b", "a"]
    assert name_in_doubt(shelf, found_runs, None, (), order) == ""


def test_a_status_that_no_run_can_have_is_in_doubt() -> None:
    for where, said in (
        ("status = 'finished'", "no run has the status 'finished': it is RUNNING, FINISHED, FAILED or KILLED"),
        ("metrics.f1_score > 0.1 AND status = 'DONE'", "no run has the status 'DONE': it is RUNNING, "),
        ("status = 'KILLED'", ""),
        ("status LIKE 'x%'", ""),
        ("status != 'done' AND run_name = 'x'", ""),
    ):
        in_doubt = name_in_doubt(SHELF, [], None, parse_filter(where), ())
        assert in_doubt.startswith(said) if said else in_doubt == "", where


def test_an_experiment_is_a_name() -> None:
    with pytest.raises(ConfigurationError, match=r"`experiment` must be a name, .* \(got int\)"):
        ids(experiment=5)


def test_without_an_order_no_more_runs_are_read_than_asked_for() -> None:
    class Long(Shelf):
        def iter_runs(self, **of: object) -> Iterator[RunSummary]:
            yield from SHELF.iter_runs()
            raise AssertionError("one run too many was asked for")

    assert [found.id for found in find_runs(Long(), limit=5)] == ["e", "d", "c", "b", "a"]
    assert [found.id for found in find_runs(Long(), conditions=parse_filter("params.kind = 'RF'"), limit=2)] == [
        "d",
        "b",
    ]


def test_of_equal_runs_the_newest_is_the_best_and_nan_never_is() -> None:
    assert find_best(SHELF, "f1_score").id == "d"
    assert find_best(SHELF, "f1_score", mode="min").id == "b"
    assert find_best(SHELF, "loss").id == "b"
    assert find_best(SHELF, "f1_score", conditions=parse_filter("params.kind = 'SVC'")).id == "a"
    with pytest.raises(RunNotFound, match="f1_score is NaN in every run that has it"):
        find_best(SHELF, "f1_score", experiment="other")


def test_no_best_run_says_what_there_is_instead() -> None:
    with pytest.raises(RunNotFound, match=r"has the metric 'f1_scroe': did you mean f1_score\?"):
        find_best(SHELF, "f1_scroe", mode="max")
    with pytest.raises(RunNotFound, match=r"has the metric 'f1scor': did you mean f1_score\?"):
        find_best(SHELF, "f1scor")
    with pytest.raises(RunNotFound, match=r"has the metric 'metric_f1_score': did you mean f1_score\?"):
        find_best(SHELF, "metric_f1_score")
    with pytest.raises(ConfigurationError, match=r"whether 'odd' is better high or low"):
        find_best(SHELF, "odd")
    with pytest.raises(RunNotFound, match=r"has the metric 'recall': there is f1_score, loss, odd\."):
        find_best(SHELF, "recall")
    with pytest.raises(RunNotFound, match=r"has the param 'knd': did you mean kind\?"):
        find_best(SHELF, "f1_score", conditions=parse_filter("params.knd = 'SVC'"))
    with pytest.raises(RunNotFound, match=r"no run fulfils the filter"):
        find_best(SHELF, "f1_score", conditions=parse_filter("params.kind = 'x'"))
    with pytest.raises(RunNotFound, match=r"no run that fulfils the filter has the metric 'loss'"):
        find_best(SHELF, "loss", conditions=parse_filter("params.kind = 'SVC'"))
    with pytest.raises(RunNotFound, match=r"there is no run yet\."):
        find_best(Shelf(), "f1_score")


def test_a_name_that_no_run_has_is_in_doubt_and_one_that_some_have_is_not() -> None:
    def doubt(where: str = "", order_by: str | None = None) -> str:
        conditions, order = parse_filter(where), parse_order(order_by)
        found = find_runs(SHELF, conditions=conditions, order=order)
        return name_in_doubt(SHELF, found, None, conditions, order)

    assert doubt("metrics.f1_scroe > 0") == "none of 5 runs has the metric 'f1_scroe': did you mean f1_score?"
    assert "none of 5 runs has the tag 'x'" in doubt("tags.x IS NOT NULL")
    assert "did you mean loss" in doubt(order_by="metrics.los")
    assert (
        doubt("metrics.loss > 5")
        == doubt("params.x IS NULL AND metrics.loss > 5")
        == doubt(order_by="metrics.loss")
        == doubt()
        == ""
    )
