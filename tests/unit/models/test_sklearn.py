"""A fitted estimator as model files: what MLflow needs to load it, and a sentence for what could not be had."""

from __future__ import annotations

import json
import threading
from typing import Any

import cloudpickle
import numpy as np
import pytest
import skops.io
from scipy.sparse import coo_matrix, csr_array
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import FunctionTransformer

from overt.errors import ConfigurationError
from overt.models.sklearn import sklearn_model

X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2


def test_the_files_load_to_an_estimator_that_predicts_the_same() -> None:
    fitted = RandomForestClassifier(5, random_state=0).fit(X, y)
    model = sklearn_model(fitted, X)
    assert model.flavor == "sklearn"
    assert model.flavor_fields["pickled_model"] == model.pyfunc_fields["model_path"] == "model.pkl"
    assert model.flavor_fields["serialization_format"] == "cloudpickle"
    loaded = cloudpickle.loads(model.files["model.pkl"])
    assert loaded.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
    assert model.notes == ()


def test_signature_and_example_are_of_the_first_rows_and_what_is_predicted() -> None:
    model = sklearn_model(GaussianNB().fit(X, y), X)
    assert json.loads(model.signature["inputs"])[0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 3]}
    assert json.loads(model.signature["outputs"])[0]["tensor-spec"] == {"dtype": "int64", "shape": [-1]}
    assert json.loads(model.files["input_example.json"]) == X[:5].tolist()
    assert model.example["artifact_path"] == "input_example.json"


@pytest.mark.parametrize(("estimator", "predicts"), [(GaussianNB(), True), (PCA(2), False), (DBSCAN(), False)])
def test_only_what_predicts_is_said_to_be_loadable_by_pyfunc(estimator: Any, predicts: bool) -> None:
    model = sklearn_model(estimator.fit(X, y), X)
    expected = {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict"}
    assert model.pyfunc_fields == (expected if predicts else {})


def test_without_data_there_is_neither_signature_nor_example() -> None:
    model = sklearn_model(GaussianNB().fit(X, y))
    assert model.signature is model.example is None
    assert set(model.files) == {"model.pkl"}
    assert model.notes == ()


@pytest.mark.parametrize(
    ("data", "missing"),
    [(coo_matrix(X), "no signature: the model"), (csr_array(X), "no signature and no input example: MLflow knows")],
    ids=["coo", "csr_array"],
)
def test_what_could_not_be_had_is_said(data: Any, missing: str) -> None:
    model = sklearn_model(LogisticRegression().fit(X, y), data)
    (note,) = model.notes
    assert note.startswith(missing)
    assert "input_example.json" not in model.files


def test_an_estimator_that_refuses_five_rows_is_saved_without_a_signature() -> None:
    class Fussy(GaussianNB):
        def predict(self, X: Any) -> Any:
            if len(X) < 10:
                raise ValueError("too few rows for me")
            return super().predict(X)

    model = sklearn_model(Fussy().fit(X, y), X)
    assert model.signature is None
    assert "too few rows for me" in model.notes[-1]
    assert "model.pkl" in model.files


def test_requirements_are_those_that_the_pickle_names() -> None:
    names = {line.partition("==")[0] for line in sklearn_model(GaussianNB().fit(X, y), X).requirements}
    assert names == {"cloudpickle", "numpy", "scikit-learn"}


def test_skops_writes_a_file_and_names_what_it_does_not_trust() -> None:
    model = sklearn_model(RandomForestClassifier(3, random_state=0).fit(X, y), X, model_format="skops")
    assert model.flavor_fields["serialization_format"] == "skops"
    assert model.files["model.skops"][:2] == b"PK"
    untrusted = skops.io.get_untrusted_types(data=model.files["model.skops"])
    assert model.flavor_fields["skops_trusted_types"] == sorted(untrusted)
    assert any(line.startswith("skops==") for line in model.requirements)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cloudpickle, skops \(got 'onnx'\)"):
        sklearn_model(GaussianNB().fit(X, y), X, model_format="onnx")  # type: ignore[arg-type]


def test_what_cannot_be_pickled_raises_what_pickling_raises() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        sklearn_model(FunctionTransformer(lambda X, lock=lock: X).fit(X), X)
