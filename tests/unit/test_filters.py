from __future__ import annotations

import math
import random
import time

import pytest

from overt.errors import ConfigurationError
from overt.filters import Condition, Order, in_order, matches, matching, parse_filter, parse_order
from overt.records import RunSummary, StoredDataset


def run(run_id: str = "a", started_ms: int = 1, **of: object) -> RunSummary:
    return RunSummary(run_id, f"name-{run_id}", "e", "FINISHED", started_ms, **of)  # type: ignore[arg-type]


def test_a_filter_becomes_conditions_with_plain_names_and_comparators() -> None:
    assert parse_filter(
        "metric.`val/loss` <= 1e-3 and params.kind ilike 'S%' AND created > 5 AND tag.x is not null"
    ) == (
        Condition("metric", "val/loss", "<=", 0.001),
        Condition("param", "kind", "ILIKE", "S%"),
        Condition("attribute", "start_time", ">", 5),
        Condition("tag", "x", "IS NOT NULL", None),
    )
    assert parse_filter(None) == parse_filter("") == ()


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("metrics.a > 1 OR metrics.b > 1", "no OR: ask twice"),
        ("metrics.a > 1 || metrics.b > 1", "no OR: ask twice"),
        ("metrics.a > 1 && metrics.b > 1", "write AND."),
        ("metrics.a > 1 metrics.b > 1", "write AND between two conditions"),
        ("metrics.a > 1 AND", "after 'metrics.a > 1 AND', got its end"),
        ("metrics.a > 1;", "a filter is one expression"),
        ("(metrics.a > 1)", "no brackets"),
        ("NOT metrics.a > 1", "no NOT in front"),
        ("metrics.f1 = good", "expected a number after 'metrics.f1 =', got 'good'"),
        ("metrics.f1 > '0.9'", "without quotes"),
        ("start_time > '2026-01-31'", "write milliseconds since 1970, such as 1769817600000 for 2026-01-31 in UTC"),
        ("end_time < 2026-01-31", "write milliseconds since 1970"),
        ("start_time > 2026-01-31T12:00 AND metrics.a > 1", "write milliseconds since 1970"),
        ("metrics.f1 == 1", "write =."),
        ("metrics.f1 <> 1", "write !=."),
        ("metrics.f1", "expected one of =, !=, >, >=, <, <= after 'metrics.f1', got its end"),
        ("metrics.f1 BETWEEN 1 AND 2", "metrics.x >= 0.1 AND metrics.x <= 0.9"),
        ("metrics.f1 LIKE 'x'", "is compared with =, !=, >, >=, <, <=, got LIKE"),
        ("metrics.f1 IS NULL", "only params and tags do"),
        ("metrics.val/loss > 1", "put the name in backticks, metrics.`val/loss`"),
        ("metrics.mAP@0.5 > 1", "put the name in backticks, metrics.`mAP@0.5`"),
        ("metrcs.f1 > 1", "did you mean metrics.f1?"),
        ("METRICS.f1 > 1", "did you mean metrics.f1?"),
        ("f1_score > 0.9", "write metrics.f1_score, params.f1_score or tags.f1_score"),
        ("name = 'x'", "did you mean run_name?"),
        ("metric_f1 > 3", "write metrics.f1"),
        ("param_model_type = 'SVC'", "write params.model_type"),
        ("tags.x = 'it's'", 'a text that holds a quote stands in quotes of the other kind, as in "it\'s"'),
        ("experiment = 'x'", "name the experiment beside the filter"),
        ("metrics > 1", "write metrics.NAME"),
        ("1 < metrics.f1", "write the name first"),
        ("params.kind = SVC", "write params.kind = 'SVC'"),
        ("params.kind = 'SVC", "write params.kind = 'SVC'"),
        ("params.kind = \u2018SVC\u2019", "write params.kind = 'SVC'."),
        ("params.kind = \u201cSVC\u201d", "write params.kind = 'SVC'."),
        ("params.depth > '3'", "params are texts"),
        ("params.kind IN ('a')", "only run_id and datasets take a list"),
        ("params.kind NOT LIKE 'a'", "no NOT LIKE"),
        ("run_id IN 'a'", "write attributes.run_id IN ('a', 'b')"),
        ("run_id IN (1)", "a list of quoted texts such as ('a', 'b'), got (1)"),
        ("datasets.profile = 'x'", "datasets has name, digest and context, got 'profile'"),
        ("metrics.`` > 1", "expected a name after metrics."),
    ],
)
def test_a_mistyped_filter_is_one_line_that_shows_the_piece_and_the_fix(where: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_filter(where)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("order_by", "says"),
    [
        ("metrics.a DOWN", "expected ASC, DESC or the end, got 'DOWN'"),
        ("metrics.a, metrics.b", "give several keys as a list"),
        ("metrics.f1-score", "metrics.`f1-score`"),
        ("f1_score", "write metrics.f1_score"),
        ("datasets.name", "no order by datasets"),
        (["metrics.a", "metric.a DESC"], "names 'a' twice"),
        (["created", "start_time"], "names 'start_time' twice"),
        ("", "expected a name"),
        ([3], "must be texts"),
        (5, "`order_by` must be texts such as 'metrics.f1_score DESC' (got int)"),
    ],
)
def test_a_mistyped_order_says_what_is_wrong(order_by: object, says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_order(order_by)  # type: ignore[arg-type]
    assert says in str(raised.value)


def test_what_is_no_text_is_no_filter() -> None:
    with pytest.raises(ConfigurationError, match=r"must be a text .* \(got int\)"):
        parse_filter(3)  # type: ignore[arg-type]


def test_of_what_a_run_has_not_only_is_null_holds() -> None:
    bare = run()
    for where in ("metrics.x != 1", "params.x != 'a'", "params.x LIKE '%'", "params.x IS NOT NULL", "end_time != 3"):
        assert not matches(bare, parse_filter(where)), where
    assert matches(bare, parse_filter("params.x IS NULL AND tags.x IS NULL"))


def test_nan_differs_from_every_number_and_fulfils_nothing_else() -> None:
    odd = run(metrics={"x": math.nan})
    assert matches(odd, parse_filter("metrics.x != 0"))
    assert not any(matches(odd, parse_filter(f"metrics.x {sign} 0")) for sign in ("=", "<", "<=", ">", ">="))


def test_nan_comes_after_numbers_and_missing_ones_last_in_either_direction() -> None:
    values = {"a": 0.5, "b": math.nan, "d": 0.7, "e": -math.inf}
    runs = [run("c"), *(run(run_id, metrics={"x": value}) for run_id, value in values.items())]
    assert [found.id for found in in_order(runs, parse_order("metrics.x"))] == ["e", "a", "d", "b", "c"]
    assert [found.id for found in in_order(runs, parse_order("metrics.x DESC"))] == ["d", "a", "e", "b", "c"]


def test_equal_runs_stand_newest_first_and_then_by_id() -> None:
    runs = [run("b", 1), run("c", 2), run("a", 1)]
    assert [found.id for found in in_order(runs)] == ["c", "a", "b"]
    assert [found.id for found in in_order(runs, (Order("metric", "x"),))] == ["c", "a", "b"]


def test_datasets_are_asked_for_only_where_all_else_holds() -> None:
    asked = []

    def datasets_of(of: RunSummary) -> list[StoredDataset]:
        asked.append(of.id)
        return [StoredDataset("train", "d1", "fit", "")]

    runs = [run("a", params={"k": "1"}), run("b")]
    where = parse_filter("datasets.digest = 'd1' AND params.k = '1' AND datasets.context IN ('fit', 'eval')")
    assert [found.id for found in matching(runs, where, datasets_of=datasets_of)] == ["a"]
    assert set(asked) == {"a"}
    with pytest.raises(ConfigurationError, match="datasets cannot be compared here"):
        matches(runs[0], where)


@pytest.mark.parametrize(
    ("like", "fits", "fits_not"),
    [
        ("a%a", ["aa", "aba", "a\na"], ["a", "aab"]),
        ("%ab%b", ["abb", "xabab"], ["ab", "aba"]),
        ("%a_c%c", ["abcc", "aacabcxc"], ["abc", "accx"]),
        ("_%_", ["ab", "abc"], ["a", ""]),
        ("%a.%.b", ["a..b", "xa..c.b"], ["a.b", "aa.xb"]),
    ],
)
def test_a_piece_between_two_percent_signs_is_taken_once(like: str, fits: list[str], fits_not: list[str]) -> None:
    where = parse_filter(f"params.x LIKE '{like}' AND params.x ILIKE '{like.upper()}'")
    assert [text for text in fits + fits_not if matches(run(params={"x": text}), where)] == fits


@pytest.mark.serial
@pytest.mark.parametrize("comparator", ["LIKE", "ILIKE"])
def test_a_pattern_of_many_percent_signs_costs_no_more_than_one_of_few(comparator: str) -> None:
    where = parse_filter(f"params.x {comparator} '{'%a' * 50}%b'")
    start = time.process_time()
    assert not matches(run(params={"x": "a" * 800}), where)
    assert time.process_time() - start < 0.1


def test_what_only_mlflow_knows_is_refused_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="artifact_uri is known to MLflow alone"):
        matches(run(), parse_filter("artifact_uri LIKE 's3%'"))


@pytest.mark.serial
def test_ten_thousand_runs_are_filtered_and_sorted_in_a_twentieth_of_a_second() -> None:
    draw = random.Random(1)
    runs = [
        run(f"{i:032x}", i // 2, metrics={"f1_score": draw.random()}, params={"kind": draw.choice(["SVC", "RF"])})
        for i in range(10_000)
    ]
    took = []
    for _ in range(5):
        start = time.process_time()
        where = parse_filter("metrics.f1_score > 0.1 AND params.kind = 'RF'")
        found = in_order(matching(runs, where), parse_order("metrics.f1_score DESC"))
        took.append(time.process_time() - start)
    assert 4000 < len(found) < 5000
    assert min(took) < 0.05
