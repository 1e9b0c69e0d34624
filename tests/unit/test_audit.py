from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier
from tests.unit.recorded import Readable, told

import overt
from overt.audit import Trail, trail
from overt.errors import ConfigurationError, ModelNotFound, PromotionRefused, RunNotFound
from overt.models.sklearn import sklearn_model
from overt.records import Dataset, Metric

Train = Callable[[int], str]


@pytest.fixture
def train(sqlite_uri: str, undrawn: None) -> Train:
    """Fit a tree of that depth, evaluate it on the same held-out data each time; the run's id."""
    overt.configure(store=sqlite_uri, delivery="inline")
    X, y = load_iris(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(np.asarray(X), y, random_state=0)

    def train(depth: int) -> str:
        model = overt.TrackedEstimator(
            DecisionTreeClassifier(max_depth=depth, random_state=0), experiment="iris", run_name=f"depth-{depth}"
        ).fit(X_train, y_train)
        model.evaluate(X_test, y_test)
        return str(model.run_.id)

    return train


def missing(found: Trail) -> str:
    return "\n".join(found.missing)


def test_of_a_deleted_run_is_said_that_it_is_and_what_takes_it_back(train: Train, sqlite_uri: str) -> None:
    run_id, client = train(1), MlflowClient(sqlite_uri)
    key = overt.best_run("f1_score").key
    assert key is not None
    overt.register(run_id, "flowers", alias="champion")
    assert "deleted" not in missing(trail("flowers@champion"))
    client.delete_run(run_id)
    said = f"run {run_id} (depth-1) is deleted in MLflow; to take it back: mlflow runs restore --run-id {run_id}"
    assert said in trail("flowers@champion").missing
    for name in (run_id, run_id[:8], key, "depth-1"):
        with pytest.raises(RunNotFound) as raised:
            trail(name)
        assert str(raised.value) == said
    with pytest.raises(RunNotFound, match=r"^no run answers to 'depth'"):
        trail("depth")
    experiment_id = client.get_run(run_id).info.experiment_id
    client.delete_experiment(experiment_id)
    with pytest.raises(RunNotFound, match=rf"'iris' are deleted .* restore --experiment-id {experiment_id}$"):
        trail(run_id)


def test_a_models_name_alone_is_answered_with_its_versions(train: Train) -> None:
    overt.register(train(1), "flowers", alias="champion")
    overt.register(train(2), "flowers")
    with pytest.raises(RunNotFound) as raised:
        trail("flowers")
    assert str(raised.value) == (
        "'flowers' is a registered model, so name one of its versions: flowers@champion, flowers/2, flowers/1"
    )


def test_a_champions_trail_holds_all_that_made_it(train: Train) -> None:
    overt.register(train(1), "flowers", alias="challenger")
    overt.promote("flowers", "challenger", "champion", if_better="f1_score")
    better = train(3)
    overt.register(better, "flowers", alias="challenger", description="deeper", tags={"team": "blue"})
    overt.promote("flowers", "challenger", "champion", if_better="f1_score")
    found = trail("flowers@champion")
    assert found.version is not None
    assert found.run is not None
    assert found.origin is not None
    assert (found.version.version, found.version.description, found.version.tags["team"]) == ("2", "deeper", "blue")
    assert (found.run.run.id, found.run.run.name, found.run.run.status) == (better, "depth-3", "FINISHED")
    assert found.run.run.tags["mlflow.user"]
    assert found.run.run.tags["overt.host"]
    assert found.origin.packages["scikit-learn"]
    assert {data.name: data.context for data in found.origin.data} == {"train": "training", "test": "eval"}
    (made,) = found.promotions
    assert (made.version, made.replaced, made.run_id, made.metric) == ("2", "1", better, "f1_score")
    assert made.score is not None
    assert made.replaced_score is not None
    assert made.score > made.replaced_score
    tested = next(f"{data.name}#{data.digest}" for data in found.origin.data if data.name == "test")
    assert {score.dataset for score in found.scores} == {tested} == {made.dataset}
    assert next(score.value for score in found.scores if score.name == "f1_score") == made.score
    assert not any(score.name.startswith("training_") for score in found.scores)
    assert {file.path for file in found.files} >= {"MLmodel", "model.pkl"}
    assert not any(file.is_changed for file in found.files)
    assert "CHANGED" not in missing(found)


def test_the_trail_of_a_version_that_was_replaced_says_by_which_and_when(train: Train) -> None:
    for depth in (1, 3):
        overt.register(train(depth), "flowers", alias="challenger")
        overt.promote("flowers", "challenger", "champion", if_better="f1_score")
    found = trail("flowers/1")
    assert [(made.version, made.replaced) for made in found.promotions] == [("1", None), ("2", "1")]


def test_a_model_file_that_was_changed_in_the_store_is_told(train: Train, tmp_path: Path) -> None:
    overt.register(train(1), "flowers", alias="champion")
    (pickled,) = tmp_path.glob("mlruns/**/model.pkl")
    pickled.write_bytes(pickled.read_bytes() + b"\0")
    (pickled.parent / "extra.py").write_text("")
    found = trail("flowers@champion")
    assert {file.path for file in found.files if file.is_changed} == {"model.pkl", "extra.py"}
    assert "CHANGED: files of the model are not those that were recorded: extra.py, model.pkl" in found.missing


@pytest.mark.parametrize("store", ["sqlite", "jsonl:./experiments"])
def test_a_runs_models_are_checked_as_a_versions_are(train: Train, sqlite_uri: str, tmp_path: Path, store: str) -> None:
    overt.configure(store=sqlite_uri if store == "sqlite" else store, delivery="inline")
    run_id = train(1)
    before = trail(run_id)
    assert {file.path for file in before.files} >= {"model/MLmodel", "model/model.pkl"}
    assert not any(file.is_changed for file in before.files)
    assert "CHANGED" not in missing(before)
    (pickled,) = {path.resolve() for place in (tmp_path, Path()) for path in place.glob("**/model.pkl")}
    pickled.write_bytes(pickled.read_bytes() + b"\0")
    found = trail(run_id)
    assert [file.path for file in found.files if file.is_changed] == ["model/model.pkl"]
    assert "CHANGED: files of the model are not those that were recorded: model/model.pkl" in found.missing


def test_a_score_is_told_with_its_own_models_data(train: Train, sqlite_uri: str) -> None:
    X, y = load_iris(return_X_y=True)
    with overt.start_run("two") as run:
        for name in ("a", "b"):
            run.log_model(sklearn_model(DecisionTreeClassifier(max_depth=1).fit(X, y)), name=name)
        run.log_metric("f1_score", 0.9, model="a", dataset="hold#D1")
        run.log_metric("f1_score", 0.5, model="b", dataset="hold#D2")
        run.log_metric("profit", 7.0, model="b", dataset="hold#D2")
        run.log_metric("recall", 0.3)
    told = {}
    for name in ("a", "b"):
        overt.register(run, name, model=name)
        told[name] = {(score.name, score.value, score.dataset) for score in trail(f"{name}/1").scores}
    of_no_model = ("recall", 0.3, None)
    assert told["a"] == {("f1_score", 0.9, "hold#D1"), of_no_model}
    assert told["b"] == {("f1_score", 0.5, "hold#D2"), ("profit", 7.0, "hold#D2"), of_no_model}
    assert {(score.name, score.value, score.dataset) for score in trail(run.key).scores} == told["a"] | told["b"]


def test_an_alias_that_nobody_promoted_has_no_author(train: Train) -> None:
    overt.register(train(1), "flowers", alias="champion")
    assert "who gave it the alias champion is not recorded" in missing(trail("flowers@champion"))


def test_an_alias_that_was_moved_past_the_last_promotion_has_no_author(train: Train) -> None:
    for version, depth in (("1", 1), ("2", 3)):
        overt.register(train(depth), "flowers")
        overt.promote("flowers", version, "champion")
    assert "who gave it" not in missing(trail("flowers@champion"))
    overt.register(trail("flowers/1").run.run.id, "flowers", alias="champion")  # type: ignore[union-attr]
    assert "the last to be promoted was version 2" in missing(trail("flowers@champion"))


def test_of_a_model_that_was_deleted_the_rest_of_the_trail_is_told(train: Train, sqlite_uri: str) -> None:
    overt.register(train(1), "flowers", alias="champion")
    version = trail("flowers@champion").version
    assert version is not None
    assert version.model_uri is not None
    MlflowClient(sqlite_uri).delete_logged_model(version.model_uri.removeprefix("models:/"))
    found = trail("flowers@champion")
    assert found.run is not None
    assert "there is no model m-" in missing(found)
    with pytest.raises(PromotionRefused, match="is gone, and its scores with it"):
        overt.promote("flowers", "1", "best", if_better="f1_score")


def test_a_version_without_a_run_has_a_trail_that_says_so(sqlite_uri: str, tmp_path: Path) -> None:
    overt.configure(store=sqlite_uri)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "MLmodel").write_text("{}")
    client = MlflowClient(sqlite_uri)
    client.create_registered_model("bought")
    client.create_model_version("bought", str(tmp_path / "files"))
    found = trail("bought/1")
    assert (found.run, found.origin) == (None, None)
    assert "it was made by no run" in found.missing
    assert any("SHA-256" in sentence for sentence in found.missing)


def test_what_nothing_answers_to_is_one_clear_error(train: Train) -> None:
    overt.register(train(1), "flowers", alias="champion")
    with pytest.raises(ModelNotFound, match="no version of 'flowers' has the alias 'best'"):
        trail("flowers@best")
    with pytest.raises(ModelNotFound, match="no registered model 'trees'"):
        trail("trees/2")
    with pytest.raises(RunNotFound, match="'nobody'"):
        trail("nobody")


def test_a_run_that_is_called_like_a_model_is_found_where_there_is_no_such_model(train: Train, sqlite_uri: str) -> None:
    with overt.start_run("mine@home") as run:
        run.log_metric("accuracy", 0.5)
    found = trail("mine@home")
    assert found.run is not None
    assert found.run.run.name == "mine@home"
    assert "which data these were taken on is not recorded: accuracy" in found.missing


# -- stores without a registry -----------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Readable:
    return Readable()


def test_a_store_without_a_registry_gives_the_trail_of_a_run(store: Readable) -> None:
    fitted, held_out = (
        Dataset(*(name, digit * 32, context), *("",) * 4)
        for name, digit, context in (("a", "0", "training"), ("b", "1", ""))
    )
    run = store.add(**told("f" * 40), datasets=[fitted, held_out])
    points = {
        "accuracy": f"b#{'1' * 32}",
        "recall": f"a#{'0' * 32}",
        "f1_score": f"the same under another name#{'0' * 32}",
        "precision": None,
        "lr": None,
        "cv_accuracy": None,
    }
    run.metrics = dict.fromkeys(points, 0.5)
    run.history = [Metric(name, 0.5, 0, 1, dataset=dataset) for name, dataset in points.items()]
    found = trail("mine", store)
    assert (found.version, found.files, found.promotions) == (None, (), ())
    assert {(score.name, score.dataset) for score in found.scores} == {
        ("accuracy", f"b#{'1' * 32}"),
        ("precision", None),
    }
    assert found.missing == ("which data these were taken on is not recorded: precision",)


def test_scores_of_ones_own_are_told_the_newest_on_each_data(store: Readable) -> None:
    run = store.add(**told("f" * 40))
    run.metrics = {"profit": 2.0, "lr": 0.1, "margin": 1.0, "cv_profit": 1.0}
    run.history = [
        Metric("profit", 3.0, 9, 1, dataset="b#1"),
        Metric("profit", 2.0, 1, 2, dataset="b#1"),
        Metric("profit", 5.0, 2, 1, dataset="c#1"),
        Metric("lr", 0.1, 0, 1),
        Metric("margin", 1.0, 0, 1, model="model"),
        Metric("cv_profit", 1.0, 0, 1, dataset="b#1"),
    ]
    found = {(score.name, score.value, score.dataset) for score in trail("mine", store).scores}
    assert found == {("profit", 2.0, "b#1"), ("profit", 5.0, "c#1"), ("margin", 1.0, None)}


def test_a_store_without_a_registry_says_where_models_are(store: Readable) -> None:
    store.add()
    with pytest.raises(ConfigurationError, match="registered models need an MLflow store"):
        trail("flowers@champion", store)


def test_what_casts_doubt_on_a_run_is_part_of_its_trail(store: Readable) -> None:
    fields = told(
        "f" * 40, **{"overt.overlap_rows": "3 of 30", "param_drift.lr": "0.1", "overt.lost_records": "2: disk"}
    )
    run = store.add(**(fields | {"status": "FAILED", "metrics": {"accuracy": float("nan")}}))
    run.history = [Metric("accuracy", float("nan"), 0, 1)]
    said = missing(trail("last", store))
    for remark in ("is FAILED", "overt.overlap_rows: 3 of 30", "param_drift.lr: 0.1", "2: disk", "no finite number"):
        assert remark in said, remark


def test_an_overlap_that_is_none_any_more_casts_no_doubt(store: Readable) -> None:
    store.add(**told("f" * 40, **{"overt.overlap_rows.val": "0"}))
    assert "overlap_rows" not in missing(trail("last", store))


def test_a_run_that_tells_nothing_of_itself_says_so(store: Readable) -> None:
    store.add(status="FINISHED")
    said = missing(trail("last", store))
    for lacking in ("who started", "on which host", "no commit", "no score", "no data"):
        assert lacking in said, lacking


def test_a_promotion_that_was_cut_off_is_in_doubt(train: Train, sqlite_uri: str) -> None:
    overt.register(train(1), "flowers")
    overt.promote("flowers", "1", "champion")
    client = MlflowClient(sqlite_uri)
    (tag,) = [name for name in client.get_model_version("flowers", "1").tags if name.startswith("overt.promotion.")]
    begun = json.loads(client.get_model_version("flowers", "1").tags[tag]) | {"state": "begun"}
    client.set_model_version_tag("flowers", "1", tag, json.dumps(begun))
    said = missing(trail("flowers@champion"))
    assert "begun and cut off" in said
    assert "who gave it the alias champion is not recorded" in said
