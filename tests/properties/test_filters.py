"""MLflow is asked: what it finds in its own sqlite store for a filter and an order, overt finds, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from overt.errors import ConfigurationError
from overt.filters import in_order, matching, parse_filter, parse_order
from overt.records import RunSummary
from overt.stores.mlflow.query import MlflowQuery

METRICS = ["f1_score", "val/loss", "정확도", "a b", "a.b", "order", "nowhere"]
NUMBERS = [0.0, -1.0, 0.5, 0.5, 1.0, 1e-7, 3e20, float("nan"), float("inf"), float("-inf")]
TEXTS = ["", "SVC", "svc", "a_b", "100%", "it's", 'say "x"', "C:\\data", "C:\\", "두 줄\n끝", "AND", "a = 'b'"]
DIGESTS = ["d1", "d2"]
Found = Sequence[str] | None
Ask = Callable[[str, list[str]], Found]


def record(uri: str) -> list[str]:
    """Thirty runs in two experiments, many of them equal in something; the ids of the experiments."""
    client = MlflowClient(uri)
    experiments = ["0", client.create_experiment("other")]
    for i in range(30):
        run = client.create_run(
            experiments[i % 2],
            start_time=1000 + i // 3,
            run_name=TEXTS[i % 5 + 1],
            tags={"mlflow.user": "ada"} if i % 2 else {},
        )
        metrics = [
            Metric(name, NUMBERS[(i * (k + 1)) % len(NUMBERS)], 1, 0)
            for k, name in enumerate(METRICS[:-1])
            if (i + k) % 4
        ]
        params = [Param(name, TEXTS[(i * (k + 3)) % 12] or "-") for k, name in enumerate(METRICS[:-1]) if (i + k) % 3]
        tags = [RunTag(name, TEXTS[(i + k) % 12]) for k, name in enumerate(METRICS[:-1]) if (i + k) % 5]
        client.log_batch(run.info.run_id, metrics, params, tags)
        if i % 3:
            dataset = Dataset(TEXTS[i % 3], DIGESTS[i % 2], "local", "here")
            client.log_inputs(
                run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", ["fit", "eval"][i % 2])])]
            )
        if i % 4:
            client.set_terminated(run.info.run_id, ["FINISHED", "FAILED"][i % 2], end_time=2000 + i // 2)
    return experiments


@pytest.fixture
def ways(sqlite_uri: str) -> tuple[Ask, Ask, Ask]:
    """Ids for a filter and an order, None if they are refused: MLflow's, overt's through MLflow, overt's by itself."""
    experiments = record(sqlite_uri)
    client, query = MlflowClient(sqlite_uri), MlflowQuery.open(sqlite_uri)
    listed = list(query.iter_runs())
    assert len(listed) == 30
    datasets = {run.id: query.read_run(run.id).datasets for run in listed}

    def mlflow(where: str, order_by: list[str]) -> Found:
        try:
            return [run.info.run_id for run in client.search_runs(experiments, where, order_by=order_by)]
        except Exception:  # noqa: BLE001 - however it refuses
            return None

    def pushed(where: str, order_by: list[str]) -> Found:
        try:
            conditions, order = parse_filter(where), parse_order(order_by)
        except ConfigurationError:
            return None
        return [run.id for run in query.search_runs(conditions=conditions, order=order)]

    def local(where: str, order_by: list[str]) -> Found:
        def datasets_of(run: RunSummary) -> Sequence[object]:
            return datasets[run.id]

        try:
            conditions, order = parse_filter(where), parse_order(order_by)
            return [run.id for run in in_order(matching(listed, conditions, datasets_of=datasets_of), order)]
        except ConfigurationError:
            return None

    return mlflow, pushed, local


def quoted(text: str) -> st.SearchStrategy[str]:
    """The literals that mean ``text``."""
    if "'" in text or '"' in text:
        return st.just(f'"{text}"' if "'" in text else f"'{text}'")
    return st.sampled_from([f"'{text}'", f'"{text}"'])


def words(*spelled: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*spelled, *(word.lower() for word in spelled)])


NUMBER = st.sampled_from("0 1 -1 0.5 .5 5. 1e-7 -1e-7 3e20 1.5E3 1e400 007".split()) | st.integers(-3, 3).map(str)
BARE = st.sampled_from(["f1_score", "정확도", "order", "nowhere", "a.b"])
NAME = BARE | st.sampled_from(METRICS).flatmap(lambda name: st.sampled_from([f"`{name}`", f'"{name}"']))
TEXT = st.sampled_from([text for text in TEXTS if not text.endswith("\\") and text != "a = 'b'"]).flatmap(quoted)
PATTERN = st.sampled_from(["%", "s%", "S_C", "%\n%", "%b", "a%b", "_", "", "1%0%", "%끝", "%%"]).flatmap(quoted)
ORDERING = st.sampled_from("= != < <= > >=".split())
SAME = st.sampled_from(["=", "!="])
LIKE = words("LIKE", "ILIKE")
GAP = st.sampled_from(["", " ", "  ", "\n", "\t"])


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


def texts_of(subject: st.SearchStrategy[str], values: st.SearchStrategy[str] = TEXT) -> st.SearchStrategy[str]:
    space = st.just(" ")
    return joined(subject, GAP, SAME, GAP, values) | joined(subject, space, LIKE, space, PATTERN)


def lists_of(subject: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    listed = st.lists(values, min_size=1, max_size=3).map(lambda items: f"({', '.join(items)})")
    return joined(subject, st.just(" "), words("IN", "NOT IN"), GAP, listed)


def named(*entities: str) -> st.SearchStrategy[str]:
    return joined(st.sampled_from(entities), st.just("."), NAME)


ATTRIBUTE = st.sampled_from(["run_name", "attributes.run_name", "`Run name`", "attr.status", "status", "run.user_id"])
TIME = st.sampled_from(["start_time", "attribute.end_time", "created", "run.`Created`"])
MS = st.integers(999, 1012).map(str) | st.integers(1999, 2016).map(str) | st.just("1004.5")
STATUS = st.sampled_from(["'FINISHED'", "'RUNNING'", '"failed"', "'ada'"])
DATASET = st.sampled_from(["dataset.name", "datasets.digest", "datasets.`context`"])
DATUM = st.sampled_from(["'SVC'", "'d1'", "'fit'", "'eval'", "'svc'", "''"])
CONDITION = st.one_of(
    joined(named("metric", "metrics", "`metrics`"), GAP, ORDERING, GAP, NUMBER),
    texts_of(named("param", "params", "parameter", "parameters", "tag", "tags")),
    joined(named("params", "tags"), st.just(" "), words("IS NULL", "IS NOT NULL")),
    texts_of(ATTRIBUTE, TEXT | STATUS),
    joined(TIME, GAP, ORDERING, GAP, MS),
    texts_of(DATASET, DATUM),
    lists_of(DATASET, DATUM),
    lists_of(st.sampled_from(["run_id", "attributes.run_id"]), DATUM),
)
FILTER = st.lists(CONDITION, max_size=3).flatmap(lambda some: words("AND").map(lambda word: f" {word} ".join(some)))
SORTABLE = named("metrics", "param", "tags") | st.sampled_from(["run_name", "status", "end_time", "Created", "run_id"])
ORDER = joined(SORTABLE, words("", " ASC", " DESC"))


@settings(max_examples=150)
@given(where=FILTER, order_by=st.lists(ORDER, max_size=2))
@example(where="metrics.f1_score != 0.5", order_by=["metrics.f1_score DESC"])
@example(where="metrics.f1_score <= 0", order_by=["metrics.f1_score"])
@example(where="", order_by=["start_time", "end_time DESC"])
@example(where="", order_by=["metrics.f1_score", "metrics.`f1_score` DESC"])
@example(where="", order_by=["created", "start_time"])
@example(where="params.order = 'C:\\' AND params.order IS NOT NULL", order_by=[])
@example(where="params.order != \"C:\\\" AND params.order != 'x'", order_by=[])
@example(where="tags.order = 'it''s'", order_by=[])
@example(where="run.user_id != 'ada'", order_by=["user_id DESC"])
def test_what_mlflow_finds_is_found_in_the_same_order(
    ways: tuple[Ask, Ask, Ask], where: str, order_by: list[str]
) -> None:
    mlflow, pushed, local = ways
    expected = mlflow(where, order_by)
    assert pushed(where, order_by) == expected
    assert local(where, order_by) == expected


JUNK = [
    "OR",
    "AND",
    "NOT",
    "(",
    ")",
    ";",
    "==",
    "<>",
    "'",
    "`",
    '"',
    "1",
    "-",
    "--",
    ",",
    "*",
    "/",
    "metrics",
    "IN",
    ".",
]


@settings(max_examples=150)
@given(where=CONDITION, junk=st.sampled_from(["", *JUNK]), data=st.data())
def test_what_mlflow_refuses_is_refused(ways: tuple[Ask, Ask, Ask], where: str, junk: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(where)))
    broken = where[:at] + junk + where[at + (not junk) :]
    mlflow, pushed, local = ways
    ours = local(broken, [])
    if ours is not None:
        assert mlflow(broken, []) == ours, broken
        assert pushed(broken, []) == ours


@settings(max_examples=60)
@given(order=ORDER, junk=st.sampled_from(JUNK), data=st.data())
def test_an_order_that_mlflow_refuses_is_refused(
    ways: tuple[Ask, Ask, Ask], order: str, junk: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(order)))
    broken = order[:at] + junk + order[at:]
    mlflow, pushed, local = ways
    ours = local("", [broken])
    # MLflow trips over a quote within a name; no run of its own can have one
    if ours is not None and not set("`'\"") & set(parse_order(broken)[0].key):
        assert mlflow("", [broken]) == ours, broken
        assert pushed("", [broken]) == ours


@pytest.mark.parametrize("name", ["mAP@0.5", "a,b", "loss=", "x" * 300, "../up", "a//b"])
def test_a_name_that_mlflow_refuses_is_searched_as_it_was_recorded(sqlite_uri: str, name: str) -> None:
    from overt.records import Metric as Recorded
    from overt.records import Param as Setting
    from overt.records import RunSpec, Tag
    from overt.stores.mlflow.store import MlflowStore

    store = MlflowStore.open(sqlite_uri)
    for key, value in (("a" * 32, 0.5), ("b" * 32, 0.7)):
        run_id = store.create_run(RunSpec(key, key[0], "Default", 1))
        store.log_batch(run_id, [Recorded(name, value, 0, 1), Setting(name, key[0]), Tag(name, key[0])])
    store.close()
    query = MlflowQuery.open(sqlite_uri)
    where = parse_filter(f"metrics.`{name}` > 0.6 AND params.`{name}` = 'b' AND tags.`{name}` = 'b'")
    assert [run.name for run in query.search_runs(conditions=where)] == ["b"]
    assert [run.name for run in matching(query.iter_runs(), where)] == ["b"]
    assert [run.name for run in query.search_runs(order=parse_order(f"metrics.`{name}`"))] == ["a", "b"]
