from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Overt, Record

MODELS = """
import numpy as np
from sklearn.tree import DecisionTreeClassifier
from overt import TrackedEstimator

generator = np.random.default_rng(0)
X = generator.normal(size=(200, 3))
y = (X[:, 0] * X[:, 1] > 0).astype(int)
runs = []
for depth in (1, 6):
    model = TrackedEstimator(
        DecisionTreeClassifier(max_depth=depth, random_state=0), run_name=f"depth {depth}", model_format="skops"
    ).fit(X[:100], y[:100])
    model.evaluate(X[100:], y[100:])
    runs.append(model.run_)
"""
VERSION_FIELDS = {
    *("store", "name", "version", "uri", "run_id", "model_uri", "created_ms", "aliases", "description", "tags"),
    "promotions",
}
PROMOTION_FIELDS = {
    *("name", "version", "alias", "source", "replaced", "run_id", "by", "at_ms", "metric", "mode", "score"),
    *("replaced_score", "dataset", "state"),
}


@pytest.fixture
def recorded(sqlite_uri: str, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, ``depth 1`` and ``depth 6``, in the configured store."""
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.setenv("OVERT_DELIVERY", "inline")
    Path("models.py").write_text(MODELS)
    runpy.run_path("models.py")


@pytest.mark.usefixtures("recorded")
def test_register_says_which_version_and_how_it_is_loaded(overt: Overt) -> None:
    said = overt("register", "depth 1", "fraud", "--alias", "champion")
    assert said.code == 0, said.err
    assert "version 1 of fraud (champion), made by run " in said.out
    assert 'overt.load_model("fraud/1")' in said.out

    assert "has no model 'other'" in overt.fails("register", "last", "fraud", "--model", "other")
    assert "no run answers to 'nobody'" in overt.fails("register", "nobody", "fraud")


@pytest.mark.usefixtures("recorded")
def test_register_as_json_has_the_documented_shape(overt: Overt, sqlite_uri: str) -> None:
    command = ("register", "last", "fraud", "--description", "deep", "--tag", "a=1", "--tag", "b=x=y", "--json")
    version = json.loads(overt(*command).out)
    assert version.keys() == VERSION_FIELDS
    assert version["store"] == sqlite_uri
    assert (version["version"], version["uri"], version["aliases"]) == ("1", "models:/fraud/1", [])
    assert (version["description"], version["tags"]) == ("deep", {"a": "1", "b": "x=y"})


@pytest.mark.usefixtures("recorded")
def test_promote_moves_the_alias_and_says_on_which_numbers(overt: Overt, sqlite_uri: str) -> None:
    overt("register", "depth 1", "fraud", "--alias", "champion")
    overt("register", "depth 6", "fraud", "--alias", "challenger")
    said = overt("promote", "fraud", "challenger", "champion", "--if-better", "accuracy")
    assert said.code == 0, said.err
    first, second = said.out.splitlines()
    assert first == "champion of fraud is version 2, was version 1"
    assert second.startswith("  accuracy 0.")
    assert ", beats 0." in second
    assert " on test#" in second
    line = overt.fails("promote", "fraud", "1", "champion", "--if-better", "accuracy")
    assert "version 1 of 'fraud' is worse" in line
    made = json.loads(overt("promote", "fraud", "1", "champion", "--json").out)
    assert made.keys() == PROMOTION_FIELDS | {"store"}
    assert (made["store"], made["version"], made["replaced"], made["score"]) == (sqlite_uri, "1", "2", None)
    again = json.loads(overt("register", "depth 6", "fraud", "--json").out)
    assert [promotion.keys() for promotion in again["promotions"]] == [PROMOTION_FIELDS]
    audited = json.loads(overt("audit", "fraud@champion", "--json").out)
    assert {frozenset(promotion) for promotion in audited["promotions"]} == {frozenset(PROMOTION_FIELDS)}


@pytest.mark.usefixtures("recorded")
def test_audit_of_a_run_shows_its_models_files_and_fails_if_one_is_changed(overt: Overt, sqlite_uri: str) -> None:
    said = overt("audit", "depth 1")
    assert said.code == 0, said.err
    assert "SHA-256" in said.out
    assert "model/model.skops" in said.out
    for kept in Path(sqlite_uri.removeprefix("sqlite:///")).parent.glob("mlruns/**/model.skops"):
        kept.write_bytes(b"changed")
    changed = overt("audit", "depth 1")
    assert changed.code == 1
    assert "CHANGED: files of the model are not those that were recorded: model/model.skops" in changed.out


def test_what_cannot_be_promoted_is_one_line(overt: Overt, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    assert "there is no registered model 'fraud'" in overt.fails("promote", "fraud", "a", "b")
    assert "needs it" in overt.fails("promote", "fraud", "a", "b", "--mode", "max")


def test_a_light_store_has_no_registry(overt: Overt, record: Record) -> None:
    record("overt.start_run('r').finish()", OVERT_STORE="jsonl:./experiments", OVERT_DELIVERY="inline", OVERT_WAIT="60")
    for command in (("register", "last", "fraud"), ("promote", "fraud", "a", "b")):
        assert "need an MLflow store" in overt.fails(*command, "--store", "jsonl:./experiments")


@pytest.mark.parametrize("tag", ["a", "=b"])
def test_a_tag_is_a_key_and_a_value(overt: Overt, tag: str) -> None:
    said = overt("register", "last", "fraud", "--tag", tag)
    assert said.code == 2
    assert "KEY=VALUE" in said.err


def test_registering_waits_for_what_the_courier_still_delivers(record: Record, overt: Overt) -> None:
    register = 'version = overt.register(runs[0], "fraud", alias="champion")\nprint(version.version, version.aliases)'
    made = record(f"{MODELS}\n{register}", OVERT_DELIVERY="process", OVERT_WAIT="60")
    assert made.returncode == 0, made.stderr
    assert made.stdout == "1 ('champion',)\n"
