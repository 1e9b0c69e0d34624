"""A mistake is said in the first line of ``fit``, with what was expected and what came, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_classification
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.fixes import parse_version

import overt
from overt import TrackedEstimator
from overt.errors import ConfigurationError, MissingExtra
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]

X, y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)

OWN: dict[str, tuple[dict[str, Any], str]] = {
    "a class": ({"estimator": GaussianNB}, "`estimator` must be an estimator object"),
    "no estimator": ({"estimator": 3}, "`estimator` must be an estimator object"),
    "model_format": ({"model_format": "joblib"}, "`model_format` must be one of cloudpickle, skops"),
    "model_format 5": ({"model_format": 5}, "`model_format` must be one of cloudpickle, skops (got 5)"),
    "one fold": ({"cv": 1}, "`cv` must be a number of folds from 2 up, a splitter, or an iterable"),
    "cv text": ({"cv": "five"}, "(got 'five')"),
    "cv number": ({"cv": 2.5}, "(got 2.5)"),
    "cv class": ({"cv": KFold}, "KFold is a class, pass KFold(…)"),
    "cv empty": ({"cv": []}, "there is no split in it"),
    "cv rows": ({"cv": [1, 2]}, "`cv` must be"),
    "cv triples": ({"cv": [(1, 2, 3)]}, "not each split in it is a pair"),
    "scoring": ({"cv": 3, "scoring": "acuracy"}, "`scoring` must be the name of a scorer"),
    "scoring number": ({"cv": 3, "scoring": 5}, "(got 5)"),
    "scoring of a number": ({"cv": 3, "scoring": {"a": 5}}, "`scoring` must be"),
    "scoring without cv": ({"scoring": "acuracy"}, "`scoring` must be"),
    "no scoring": ({"cv": 3, "scoring": []}, "`scoring` must be"),
    "nothing to score by": ({"estimator": DBSCAN(), "cv": 3}, "`scoring` must be"),
    "n_jobs text": ({"cv": 3, "n_jobs": "all"}, "`n_jobs` must be a number of processes, -1 for one on each core"),
    "n_jobs fraction": ({"n_jobs": 1.5}, "(got 1.5)"),
    "n_jobs zero": ({"n_jobs": 0}, "`n_jobs` must be"),
    "n_jobs flag": ({"n_jobs": True}, "`n_jobs` must be"),
    "training_metrics": ({"training_metrics": 3}, "`training_metrics` must be True or False (got 3)"),
    "log_model": ({"log_model": "yes"}, "`log_model` must be True or False (got 'yes')"),
    "class_names number": ({"class_names": 3}, "`class_names` must be a list of texts"),
    "class_names text": ({"class_names": "ABC"}, "(got 'ABC')"),
    "class_names numbers": ({"class_names": [0, 1, 2]}, "(got [0, 1, 2])"),
    "class_names map": ({"class_names": {"A": 0, "B": 1, "C": 2}}, "`class_names` must be a list of texts"),
    "class_names without order": ({"class_names": {"A", "B", "C"}}, "`class_names` must be a list of texts"),
    "class_names array of none": ({"class_names": np.array("A")}, "`class_names` must be a list of texts"),
    "too few class_names": ({"class_names": ["A"]}, "`class_names` must name each of the 3 classes"),
    "pos_label": ({"pos_label": "yes"}, "`pos_label` must be one of the labels"),
    "register_as": ({"register_as": 5}, "`register_as` must be a name (got 5)"),
    "register_as empty": ({"register_as": " "}, "`register_as` must be a name of up to 250 characters"),
    "register_as in lines": ({"register_as": "a\nb"}, "`register_as` must be a name of up to 250 characters"),
    "register_as of a path": ({"register_as": "team/fraud"}, "`register_as` must hold neither / nor :"),
    "register_as above": ({"register_as": ".."}, "`register_as` must hold neither / nor :"),
    "register_as in quotes": ({"register_as": '"it\'s"'}, "`register_as` must not hold both kinds of quotes"),
    "register_as no model": ({"register_as": "m", "log_model": False}, "`register_as` needs log_model=True"),
}
SHARED: dict[str, tuple[dict[str, Any], str]] = {
    "experiment": ({"experiment": 5}, "`experiment` must be"),
    "run_name": ({"run_name": 5}, "`run_name` must be"),
    "notes": ({"notes": 5}, "`notes` must be"),
    "tags": ({"tags": 5}, "`tags` must"),
    "params": ({"params": 5}, "`params` must"),
    "run": ({"run": 5}, "`run` must be"),
    "run name": ({"run": "last"}, "`run` must be"),
    "parent": ({"parent": 5}, "`parent` must be"),
    "tracker": ({"tracker": 5}, "`tracker` must be"),
    "tracker uri": ({"tracker": "sqlite:///x.db"}, "`tracker` must be"),
}
MISTAKES = OWN | SHARED
ONLY_OF_FIT = {"no estimator", "nothing to score by", "too few class_names", "pos_label"}  # a part may lack a label
CASES = [("fit", mistake) for mistake in MISTAKES] + [("partial_fit", m) for m in MISTAKES if m not in ONLY_OF_FIT]


class Untagged:
    """Two methods, as some libraries' estimators have them: scikit-learn's own wrappers fit it and cannot ask it."""

    def fit(self, X: Any, y: Any) -> Untagged:
        raise AssertionError("it is refused before it is fitted")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}


@pytest.mark.skipif(parse_version(sklearn.__version__) < parse_version("1.7"), reason="tags had defaults before")
def test_an_estimator_that_does_not_tell_its_kind_is_refused(runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match=r"as what derives from sklearn\.base\.BaseEstimator does"):
        TrackedEstimator(Untagged()).fit(X, y)
    assert not runs


@pytest.mark.parametrize(("method", "mistake"), CASES)
def test_a_mistake_raises_in_the_first_line_of_fit_and_leaves_nothing(
    method: str, mistake: str, tmp_path: Path
) -> None:
    keywords, message = MISTAKES[mistake]
    model = TrackedEstimator(**({"estimator": GaussianNB()} | keywords))  # only stores
    with pytest.raises(ConfigurationError) as raised:
        getattr(model, method)(X, y)
    assert message in str(raised.value)
    assert not {"estimator_", "run_"} & set(vars(model))
    assert list(tmp_path.iterdir()) == [], "a folder or a journal was made"


def test_a_mistake_inside_a_run_leaves_that_run_to_the_next_fit(runs: Runs) -> None:
    with overt.start_run("block") as block:
        for keywords, _ in MISTAKES.values():
            with pytest.raises(ConfigurationError):
                TrackedEstimator(**({"estimator": GaussianNB()} | keywords)).fit(X, y)
        assert TrackedEstimator(GaussianNB()).fit(X, y).run_ is block
    assert len(runs) == 1


def test_a_mistake_does_not_end_what_partial_fit_began(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).partial_fit(X, y, classes=[0, 1, 2])
    for keyword, mistake in {"cv": "five", "experiment": 5}.items():
        model.set_params(**{keyword: mistake})
        with pytest.raises(ConfigurationError):
            model.fit(X, y)
        model.set_params(**{keyword: None})
    assert [run.status for run in runs] == ["RUNNING"]
    model.run_.finish()


@pytest.mark.parametrize(
    "keywords",
    [
        {"class_names": ("A", "B", "C")},
        {"class_names": np.array(["A", "B", "C"])},
        {"class_names": pd.Index(["A", "B", "C"])},
        {"log_model": np.True_, "training_metrics": np.False_},
        {"cv": np.int64(2), "n_jobs": np.int64(1)},
        {"cv": KFold(2), "scoring": ("accuracy", "f1_macro")},
        {"cv": KFold(2).split(X)},
        {"cv": 2, "scoring": {"a": "accuracy"}, "n_jobs": -1},
        {"register_as": "m"},
    ],
    ids=" and ".join,  # a repr may hold an address, and each worker of pytest-xdist has its own
)
def test_what_is_meant_well_is_taken(runs: Runs, keywords: dict[str, Any]) -> None:
    TrackedEstimator(GaussianNB(), **keywords).fit(X, y)
    assert runs[0].status == "FINISHED"
    assert not [name for name in runs[0].tags if name.startswith("overt.not_recorded")]


def test_a_missing_library_for_the_model_is_a_mistake_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "skops" else real(name, *a))
    monkeypatch.setitem(__import__("sys").modules, "skops", None)
    with pytest.raises(MissingExtra, match=r"pip install 'overt\[sklearn\]'"):
        TrackedEstimator(GaussianNB(), model_format="skops").fit(X, y)
    assert runs == []


NAMES: dict[Any, str] = {
    "cv": "overt's own scores",
    "cv_mean": "overt's own scores",
    "training": "overt's own scores",
    "training_x": "overt's own scores",
    "eval_2": "overt's own scores",
    "": "must be a text",
    " ": "must be a text",
    5: "must be a text",
    ("val",): "must be a text",
    "../val": "must be a text",
    "x" * 201: "of at most 200 bytes",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_an_evaluated_set_cannot_have_a_name_that_others_have_or_that_is_none(runs: Runs, name: Any) -> None:
    model = TrackedEstimator(GaussianNB(), cv=2).fit(X, y)
    before = (dict(runs[0].metrics), set(runs[0].artifacts), len(runs[0].datasets))
    with pytest.raises(ConfigurationError, match=re.escape(NAMES[name])) as raised:
        model.evaluate(X, y, name=name)
    assert repr(name)[:12] in str(raised.value)
    assert (runs[0].metrics, set(runs[0].artifacts), len(runs[0].datasets)) == before


@pytest.mark.parametrize("name", ["val", "train", "cvs", "trainings", "evaluation", "검증", "site/a"])
def test_other_names_are_taken(runs: Runs, name: str) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X, y)
    model.evaluate(X, y, name=name)
    assert f"{name}_accuracy" in runs[0].metrics
