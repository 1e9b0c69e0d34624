"""Registering, promoting and loading on real MLflow: sqlite files, and a server with proxied artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import overt
from overt.clock import new_key
from overt.errors import (
    ConfigurationError,
    ModelNotFound,
    ModelRefused,
    OvertWarning,
    PromotionRefused,
    RunNotFound,
    StoreError,
)
from overt.models.sklearn import sklearn_model
from overt.query.finding import find_run
from overt.stores.mlflow.models import DIGESTS_TAG
from overt.stores.mlflow.registry import PROMOTION_TAG, MlflowRegistry

X, y = load_breast_cancer(return_X_y=True)
X_TRAIN, X_TEST, Y_TRAIN, Y_TEST = train_test_split(X, y, random_state=0)
SEARCH = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, scoring="f1", cv=3)
ESTIMATORS = {
    "forest": RandomForestClassifier(8, random_state=0),
    "neighbours": KNeighborsClassifier(3),
    "network": MLPClassifier((4,), max_iter=20, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=4, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=4, random_state=0),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("undrawn"),
]


@pytest.fixture(autouse=True)
def uri(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    overt.configure(store=sqlite_uri, delivery="inline", experiment="fraud")
    return sqlite_uri


def tree(depth: int, *, evaluate_on: Any = (X_TEST, Y_TEST), **options: Any) -> overt.Run:
    model = overt.TrackedEstimator(
        DecisionTreeClassifier(max_depth=depth, random_state=0), **{"model_format": "skops"} | options
    ).fit(X_TRAIN, Y_TRAIN)
    if evaluate_on is not None:
        model.evaluate(*evaluate_on)
    run: overt.Run = model.run_
    return run


# -- registering -------------------------------------------------------------------------------------------------------


def test_a_model_is_one_version_however_often_it_is_registered(uri: str) -> None:
    run = tree(1)
    first = overt.register(run, "fraud", alias="challenger", description="small", tags={"depth": 1})
    assert (first.name, first.version, first.aliases, first.description) == ("fraud", "1", ("challenger",), "small")
    assert (first.tags, first.run_id, first.uri) == ({"depth": "1"}, run.id, "models:/fraud/1")
    again = overt.register(run.key[:12], "fraud", description="one split", tags={"status": "approved"})
    assert (again.version, again.aliases, again.description) == ("1", ("challenger",), "one split")
    assert again.tags == {"depth": "1", "status": "approved"}
    assert overt.register(tree(2), "fraud").version == "2"
    stored = MlflowClient(uri).get_model_version("fraud", "1")
    assert (stored.description, stored.run_id) == ("one split", run.id)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "사기 탐지", "a.b-c_d@e"])
def test_a_name_of_any_characters_is_one_model(uri: str, name: str) -> None:
    run = tree(1)
    for _ in range(2):
        version = overt.register(run, name, alias="champion")
    assert list(MlflowRegistry.open(uri).iter_versions(name)) == [version]
    assert overt.load_model(f"{name}@champion").get_depth() == 1


def test_registering_when_recording_is_registering(uri: str) -> None:
    run = tree(1, register_as="fraud")
    assert overt.register(run, "fraud").version == "1"


def test_a_version_that_mlflow_registered_is_found(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tree(1)
    overt.wait()
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", uri)
    mlflow.register_model(run.model_uri, "fraud")
    version = overt.register(run, "fraud")
    assert (version.version, version.model_uri) == ("1", run.model_uri)
    assert overt.load_model("fraud/1").predict(X_TEST[:1]).shape == (1,)


def test_what_cannot_be_registered_is_named(uri: str) -> None:
    with overt.start_run("bare") as bare:
        bare.log_metric("loss", 1.0)
    run = tree(1)
    with pytest.raises(ModelNotFound, match="has no model 'model'; it has none: record one, with log_model=True"):
        overt.register(bare, "fraud")
    with pytest.raises(ModelNotFound, match="has no model 'other'; it has 'model': name it with model="):
        overt.register(run, "fraud", model="other")
    with pytest.raises(RunNotFound):
        overt.register("no such run", "fraud")
    with pytest.raises(ConfigurationError, match="`name` must hold neither / nor :"):
        overt.register(run, "a/b")
    client = MlflowClient(uri)
    client.create_logged_model(client.get_run(bare.id).info.experiment_id, name="half", source_run_id=bare.id)
    with pytest.raises(ModelNotFound, match="is PENDING, not READY"):
        overt.register(bare, "fraud", model="half")


# -- promoting ---------------------------------------------------------------------------------------------------------


def test_promotions_are_kept_as_tags_that_say_who_when_and_on_which_numbers(uri: str) -> None:
    small, large = tree(1), tree(4)
    overt.register(small, "fraud", alias="challenger")
    first = overt.promote("fraud", "challenger", "champion", if_better="f1_score")
    overt.register(large, "fraud", alias="challenger")
    second = overt.promote("fraud", "challenger", "champion", if_better="f1_score")
    assert (second.score, second.replaced_score) == (large.metrics["f1_score"], small.metrics["f1_score"])
    assert (second.replaced, second.run_id, second.mode) == ("1", large.id, "max")
    assert second.dataset == first.dataset
    with pytest.raises(PromotionRefused, match="is worse"):
        overt.promote("fraud", "1", "champion", if_better="f1_score")
    forced = overt.promote("fraud", "1", "champion")
    registry = MlflowRegistry.open(uri)
    newest, oldest = registry.iter_versions("fraud")
    assert (newest.version, newest.promotions, newest.aliases) == ("2", (second,), ("challenger",))
    assert (oldest.version, oldest.promotions, oldest.aliases) == ("1", (first, forced), ("champion",))
    assert oldest.tags == {}
    assert find_run(registry, "fraud@champion") == small.id
    tags = MlflowClient(uri).get_model_version("fraud", "2").tags
    said = json.loads(tags[f"{PROMOTION_TAG}champion.{second.at_ms}"])
    assert said["at"] == second.at
    assert said["at"].endswith("+00:00")
    assert (said["state"], said["score"], said["by"]) == ("done", second.score, second.by)


def test_scores_on_other_data_are_not_compared(uri: str) -> None:
    overt.register(tree(1), "fraud", alias="champion")
    overt.register(tree(4, evaluate_on=(X_TEST[1:], Y_TEST[1:])), "fraud", alias="challenger")
    with pytest.raises(PromotionRefused, match="Evaluate both on the same data"):
        overt.promote("fraud", "challenger", "champion", if_better="f1_score")


def test_versions_that_were_evaluated_crosswise_are_compared_on_the_data_that_both_have(uri: str) -> None:
    others = (X_TEST[1:], Y_TEST[1:])
    models = [
        overt.TrackedEstimator(DecisionTreeClassifier(max_depth=depth, random_state=0)).fit(X_TRAIN, Y_TRAIN)
        for depth in (1, 4)
    ]
    models[0].evaluate(*others)
    models[1].evaluate(X_TEST, Y_TEST)
    for model, data in zip(models, ((X_TEST, Y_TEST), others), strict=True):
        with pytest.warns(OvertWarning, match="eval_2_"):
            model.evaluate(*data)
    for model, alias in zip(models, ("champion", "challenger"), strict=True):
        overt.register(model.run_, "fraud", alias=alias)
    made = overt.promote("fraud", "challenger", "champion", if_better="f1_score")
    small, large = (model.run_.metrics for model in models)
    assert (made.score, made.replaced_score) in [
        (large["f1_score"], small["eval_2_f1_score"]),
        (large["eval_2_f1_score"], small["f1_score"]),
    ]


def test_the_newest_score_of_a_model_is_the_last_in_time(uri: str) -> None:
    run = tree(1, evaluate_on=None)
    run.log_metric("profit", 3.0, step=9, model="model", dataset="test#1")
    run.log_metric("profit", 2.0, step=1, model="model", dataset="test#1")
    version = overt.register(run, "fraud")
    assert [score.value for score in MlflowRegistry.open(uri).read_scores(version, "profit")] == [3.0, 2.0]


def test_nothing_is_made_of_a_model_whose_alias_or_name_mlflow_could_not_use(uri: str) -> None:
    run = tree(1)
    for name, alias in (("fraud", "latest"), ("fraud", "5"), ("both ' and \"", None)):
        with pytest.raises(ConfigurationError):
            overt.register(run, name, alias=alias)
    assert MlflowClient(uri).search_registered_models() == []


def test_what_mlflow_lists_as_zero_is_still_nan(uri: str) -> None:
    overt.register(tree(4), "fraud", alias="champion")
    run = tree(1, evaluate_on=None)
    run.log_metric("log_loss", float("nan"), model="model", dataset="test#1")
    version = overt.register(run, "fraud", alias="challenger")
    registry = MlflowRegistry.open(uri)
    assert [str(score.value) for score in registry.read_scores(version, "log_loss")] == ["nan"]
    listed = MlflowClient(uri).get_logged_model(str(version.model_uri).removeprefix("models:/")).metrics
    assert [metric.value for metric in listed or () if metric.key == "log_loss"] == [0.0]  # why the history is asked
    champion = registry.read_version("fraud", "champion")
    assert [score.value > 0 for score in registry.read_scores(champion, "log_loss")] == [True]


def test_a_tag_that_is_no_promotion_stays_a_tag(uri: str) -> None:
    overt.register(tree(1), "fraud")
    for key, value in {f"{PROMOTION_TAG}champion.1": "mine", f"{PROMOTION_TAG}x.y": "{}"}.items():
        MlflowClient(uri).set_model_version_tag("fraud", "1", key, value)  # overt itself refuses to set such
    version = MlflowRegistry.open(uri).read_version("fraud", "1")
    assert version.promotions == ()
    assert len(version.tags) == 2


def test_what_the_registry_does_not_have_is_named(uri: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no registered model 'fraud'"):
        overt.promote("fraud", "challenger", "champion")
    overt.register(tree(1), "fraud", alias="challenger")
    with pytest.raises(ModelNotFound, match=r"has the alias 'nope'; it has challenger \(version 1\)"):
        overt.promote("fraud", "nope", "champion")
    with pytest.raises(ModelNotFound, match="'fraud' has no version 7"):
        overt.promote("fraud", "7", "champion")
    with pytest.raises(ConfigurationError, match="`alias` must be"):
        overt.promote("fraud", "1", "latest")
    assert MlflowRegistry.open(uri).read_version("fraud", "1").promotions == ()
    with pytest.raises(RunNotFound, match="alias 'champion'"):
        find_run(MlflowRegistry.open(uri), "fraud@champion")


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_format", ["skops", "cloudpickle"])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_loaded_model_predicts_what_the_recorded_one_did(uri: str, kind: str, model_format: str) -> None:
    model = overt.TrackedEstimator(ESTIMATORS[kind], model_format=model_format).fit(X_TRAIN, Y_TRAIN)
    overt.register(model.run_, "fraud", alias="champion")
    loaded = overt.load_model("fraud@champion", allow_pickle=model_format != "skops")
    assert type(loaded) is type(ESTIMATORS[kind])
    np.testing.assert_array_equal(loaded.predict_proba(X_TEST), model.predict_proba(X_TEST))


@pytest.mark.parametrize("model_format", ["skops", "cloudpickle"])
def test_a_whole_search_is_loaded(uri: str, model_format: Any) -> None:
    search = SEARCH.fit(X_TRAIN, Y_TRAIN)
    with overt.start_run("search") as run:
        run.log_model(sklearn_model(search, X_TRAIN, model_format=model_format))
    loaded = overt.load_model(run, allow_pickle=model_format != "skops")
    assert loaded.best_params_ == search.best_params_
    np.testing.assert_array_equal(loaded.predict(X_TEST), search.predict(X_TEST))


def test_a_model_is_named_in_each_of_the_ways(uri: str) -> None:
    run = tree(2)
    overt.register(run, "fraud", alias="champion")
    for name in (
        *("fraud@champion", "fraud/1", "fraud/latest", "models:/fraud@champion", "models:/fraud/1", run.model_uri),
        *(run, run.id, run.key[:10], "last", f"runs:/{run.id}/model"),
    ):
        assert overt.load_model(name).get_depth() == 2
    for name in ("models:/m-0", "fraud@nobody", "fraud/2", "nobody/1"):
        with pytest.raises(ModelNotFound):
            overt.load_model(name)
    for name in ("models:/", "runs:/"):
        with pytest.raises(ConfigurationError, match="a model is named by"):
            overt.load_model(name)


def test_the_latest_version_is_the_one_with_the_highest_number_and_its_run_is_found_by_it(uri: str) -> None:
    runs = [tree(depth) for depth in (1, 2)]
    for run in runs:
        overt.register(run, "fraud")
    registry = MlflowRegistry.open(uri)
    for name, depth in (("models:/fraud/latest", 2), ("models:/fraud/1", 1)):
        assert overt.load_model(name).get_depth() == depth
    for name, run in (("fraud/latest", runs[1]), ("fraud/2", runs[1]), ("fraud/1", runs[0])):
        assert find_run(registry, name) == run.id
        assert overt.audit.trail(name).version.run_id == run.id
    with pytest.raises(RunNotFound, match="no run answers to 'fraud/3'"):
        find_run(registry, "fraud/3")
    with pytest.raises(ModelNotFound, match="no registered model"):
        overt.load_model("models:/nobody/latest")


def test_a_run_that_is_called_like_a_version_is_loaded_where_there_is_no_such_version(uri: str) -> None:
    for store in (uri, "jsonl:./experiments"):
        overt.configure(store=store)
        tree(2, run_name="mine@home")
        assert overt.load_model("mine@home").get_depth() == 2
    overt.configure(store=uri)
    overt.register(tree(1), "mine", alias="home")
    assert overt.load_model("mine@home").get_depth() == 1


@pytest.mark.parametrize("text", ['{"a":', "[1]", "null", "5", '"x"', '{"a": 1}', "[" * 5000])
def test_digests_that_nobody_can_read_are_refused_and_in_doubt(uri: str, text: str) -> None:
    run = tree(1)
    overt.register(run, "fraud", alias="champion")
    MlflowClient(uri).set_logged_model_tags(run.model_uri.removeprefix("models:/"), {f"{DIGESTS_TAG}0": text})
    with pytest.raises(ModelRefused, match=r"tag 'overt\.sha256\.0' must hold a JSON object"):
        overt.load_model("fraud@champion")
    found = overt.audit.trail("fraud@champion")
    assert found.run is not None
    assert [said for said in found.missing if "overt.sha256.0" in said]


@pytest.mark.filterwarnings("ignore:what model model is cannot be read")
def test_a_trail_is_told_though_the_files_are_out_of_reach(uri: str, tmp_path: Path) -> None:
    run = tree(1)
    overt.register(run, "fraud", alias="champion")
    place = Path(MlflowClient(uri).get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location)
    (place / "link").symlink_to("/etc/hostname")
    sentences = [overt.audit.trail(name).missing for name in ("fraud@champion", str(run.id))]
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as away:
        overt.load_model("fraud@champion")
    assert not str(away.value).endswith(":")
    found = overt.audit.trail("fraud@champion")
    assert found.scores
    assert found.files == ()
    for missing in (*sentences, found.missing):
        (said,) = [said for said in missing if "could not be looked at" in said]
        assert not said.endswith(":")
    assert "No such" in str(away.value)


def test_a_model_that_mlflow_has_loaded_is_still_the_one_that_was_recorded(uri: str) -> None:
    run = tree(1)
    overt.register(run, "fraud")
    mlflow.sklearn.load_model("models:/fraud/1")
    mlflow.sklearn.load_model(run.model_uri)
    place = Path(MlflowClient(uri).get_logged_model(run.model_uri.rpartition("/")[2]).artifact_location)
    note = place / "registered_model_meta"
    assert note.is_file(), "MLflow leaves nothing beside the model any more: fetch_model need not look for it"

    assert (overt.load_model("fraud/1").predict(X_TEST) == overt.load_model(run).predict(X_TEST)).all()
    trail = overt.audit.trail("fraud/1")
    assert trail.files
    assert not any(file.is_changed for file in trail.files)
    assert note.is_file(), "the store itself is not ours to clean"

    note.unlink()
    (note / "hidden").mkdir(parents=True)
    (note / "hidden" / "code.py").write_text("raise SystemExit")
    with pytest.raises(ModelRefused, match="not recorded with it"):
        overt.load_model("fraud/1")


@pytest.mark.filterwarnings("ignore:no SHA-256 was recorded")
def test_what_mlflow_cannot_load_is_refused_in_one_sentence(uri: str) -> None:
    run = tree(1)
    forget_digests(uri, run)
    place = Path(MlflowClient(uri).get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location)
    (place / "MLmodel").write_text('{"flavors": {"spark": {}}}')
    with pytest.raises(ModelRefused, match=r"MLflow does not load .* as flavor spark") as refused:
        overt.load_model(run, allow_pickle=True)
    assert "\n" not in str(refused.value)


def test_a_pickle_is_refused_with_both_ways_out(uri: str) -> None:
    run = tree(1, model_format="cloudpickle")
    with pytest.raises(ModelRefused, match=r'allow_pickle=True.*model_format="skops"') as refused:
        overt.load_model(run)
    assert "\n" not in str(refused.value)


def test_a_torch_module_is_refused_and_loaded_on_the_users_word(uri: str) -> None:
    torch = pytest.importorskip("torch")
    from overt.models.torch import torch_model

    module = torch.nn.Linear(2, 1)
    with overt.start_run("torch") as run:
        run.log_model(torch_model(module, torch.zeros(3, 2)))
    with pytest.raises(ModelRefused, match="flavor pytorch"):
        overt.load_model(run)
    loaded = overt.load_model(run, allow_pickle=True)
    assert torch.equal(loaded(torch.ones(1, 2)), module(torch.ones(1, 2)))


def test_a_model_that_was_recorded_by_hand_is_promoted_on_a_score_that_comes_later(uri: str) -> None:
    for name, C in (("weak", 1e-6), ("strong", 1.0)):
        with overt.start_run(name) as run:
            run.log_model(LogisticRegression(C=C, max_iter=20).fit(X_TRAIN, Y_TRAIN))
            run.log_metric("val_accuracy", 0.5)
    overt.register("weak", "by-hand", alias="champion")
    overt.register("strong", "by-hand", alias="challenger")
    with pytest.raises(PromotionRefused, match=r"no 'accuracy' that belongs to its model, .*start_run\(resume=…\)"):
        overt.promote("by-hand", "challenger", "champion", if_better="accuracy")
    for name, score in (("weak", 0.6), ("strong", 0.9)):
        with overt.start_run(resume=name) as run:
            test = run.log_dataset(X_TEST, Y_TEST, name="test")
            run.log_metric("accuracy", score, model="model", dataset=test)
    promotion = overt.promote("by-hand", "challenger", "champion", if_better="accuracy")
    assert (promotion.score, promotion.replaced_score) == (0.9, 0.6)


def test_a_model_without_digests_is_said_to_be_one(uri: str) -> None:
    model = overt.TrackedEstimator(LogisticRegression(max_iter=20), model_format="skops").fit(X_TRAIN, Y_TRAIN)
    forget_digests(uri, model.run_)
    with pytest.warns(OvertWarning, match="no SHA-256 was recorded"):
        loaded = overt.load_model(model.run_)
    np.testing.assert_array_equal(loaded.predict(X_TEST), model.predict(X_TEST))


def test_trees_without_digests_need_the_users_word(uri: str) -> None:
    run = tree(1)
    forget_digests(uri, run)
    with pytest.warns(OvertWarning), pytest.raises(ModelRefused, match=r"trusted_types=\('sklearn.tree._tree.Tree',\)"):
        overt.load_model(run)
    with pytest.warns(OvertWarning):
        assert overt.load_model(run, trusted_types=("sklearn.tree._tree.Tree",)).get_depth() == 1


class Doubled(BaseEstimator):  # type: ignore[misc]
    """A user's own estimator."""

    def fit(self, X: Any, y: Any) -> Doubled:
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), 2 * self.mean_)


def test_a_users_own_class_is_refused_by_name_and_loaded_when_trusted(uri: str) -> None:
    with overt.start_run("own") as run:
        run.log_model(sklearn_model(Doubled().fit(X, y), model_format="skops"))
    with pytest.raises(ModelRefused, match=rf"'{Doubled.__module__}\.Doubled'.*trusted_types="):
        overt.load_model(run)
    for word in (Doubled, f"{Doubled.__module__}.Doubled"):
        assert overt.load_model(run, trusted_types=[word]).predict([[0]]) == pytest.approx(2 * y.mean())


def test_nothing_is_left_in_the_temporary_folder(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    overt.load_model(tree(1))
    with pytest.raises(ModelRefused):
        overt.load_model(tree(1, model_format="cloudpickle"))
    assert [path for path in place.iterdir() if path.name.startswith("overt-model")] == []


def test_all_of_it_works_through_a_server(mlflow_server: str) -> None:
    name, experiment = f"fraud-{new_key()}", new_key()
    overt.configure(store=mlflow_server, experiment=experiment)
    small, large = tree(1), tree(4)
    overt.register(small, name, alias="champion", description="small", tags={"a": 1})
    version = overt.register(large, name, alias="challenger")
    assert overt.register(large, name).version == version.version == "2"
    made = overt.promote(name, "challenger", "champion", if_better="f1_score")
    assert (made.replaced, made.score) == ("1", large.metrics["f1_score"])
    assert overt.load_model(f"{name}@champion").get_depth() == 4
    assert overt.load_model(small).get_depth() == 1
    registry = MlflowRegistry.open(mlflow_server)
    assert [found.promotions for found in registry.iter_versions(name)] == [(made,), ()]
    pickled = tree(2, model_format="cloudpickle")
    overt.register(pickled, name)
    assert overt.load_model(f"{name}/3", allow_pickle=True).get_depth() == 2


def forget_digests(uri: str, run: overt.Run) -> None:
    """Have the model of ``run`` as an overt that noted no digests left it."""
    overt.wait()
    client = MlflowClient(uri)
    model_id = run.model_uri.removeprefix("models:/")
    tags = [tag for tag in client.get_logged_model(model_id).tags if tag.startswith(DIGESTS_TAG)]
    assert tags
    for tag in tags:
        client.delete_logged_model_tag(model_id, tag)


def test_many_files_are_noted_in_several_tags(uri: str, tmp_path: Path) -> None:
    from overt.stores.mlflow.models import _digest_tags

    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(120):
        (folder / f"{index}.bin").write_bytes(b"")
    tags = _digest_tags(folder)
    assert len(tags) > 1
    assert all(len(text) <= 4000 for text in tags.values())
    assert sum(len(json.loads(text)) for text in tags.values()) == 120
    shutil.rmtree(folder)
