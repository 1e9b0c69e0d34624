"""What ``mlflow.pyfunc`` predicts from the training data is what the estimator predicts, whatever the data are.

Each model is written as MLflow keeps it and loaded by ``mlflow.pyfunc``. A case names the kinds of signature that it
has, column by column, or the words of the note that says why there is none.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model, ModelSignature
from scipy.sparse import coo_array, coo_matrix, csc_array, csc_matrix, csr_array, csr_matrix, lil_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from overt.models.files import ModelFiles
from overt.models.sklearn import sklearn_model

N = np.random.default_rng(0).normal(size=(40, 3))
y = (N[:, 0] > 0).astype(int)
LETTERS = np.where(y, "a", "b")
TEXTS = [f"{letter}{letter} film" for letter in LETTERS]
DAYS = pd.to_datetime([f"2020-01-{1 + int(one) * 9:02d}" for one in y])


def linear() -> Any:
    return LogisticRegression()


def encoded() -> Any:
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())


def boosted() -> Any:
    return HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype")


def filled() -> Any:
    return make_pipeline(SimpleImputer(), LogisticRegression())


def dated() -> Any:
    return make_pipeline(FunctionTransformer(lambda X: X.apply(lambda c: c.dt.day)), LogisticRegression())


def counted_nanoseconds() -> Any:
    return make_pipeline(FunctionTransformer(lambda X: X.astype("int64") / 1.6e15 - 1), LogisticRegression())


def of_texts() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def of_dicts() -> Any:
    return make_pipeline(DictVectorizer(), LogisticRegression())


def frame(*columns: Any) -> pd.DataFrame:
    return pd.DataFrame(dict(zip("pqr", columns, strict=False)))


MULTI = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])

SIGNED: dict[str, tuple[Callable[[], Any], Any, list[str]]] = {
    "array": (linear, N, ["tensor"]),
    "array_float32": (linear, N.astype("f4"), ["tensor"]),
    "array_of_texts": (of_texts, np.array(TEXTS, dtype=object), ["tensor"]),
    "csr_matrix": (linear, csr_matrix(N), ["tensor"]),
    "csc_matrix": (linear, csc_matrix(N), ["tensor"]),
    "frame": (linear, frame(*N.T), ["double"] * 3),
    "frame_narrow": (linear, frame(*(N * 9).astype("i1").T), ["integer"] * 3),
    "frame_unsigned": (linear, frame(*abs(N * 9).astype("u8").T), ["any"] * 3),
    "frame_number_names": (linear, pd.DataFrame(N), ["double"] * 3),
    "strings": (encoded, frame(LETTERS), ["string"]),
    "strings_missing": (encoded, frame([*LETTERS[:-1], None]), ["string"]),
    "mixed": (encoded, frame(pd.Series([*LETTERS[:-1], 3], dtype=object).map(repr), y), ["string", "long"]),
    "category_strings": (boosted, frame(pd.Categorical(LETTERS), N[:, 1]), ["any", "double"]),
    "category_integers": (boosted, frame(pd.Categorical(y + 3), N[:, 1]), ["any", "double"]),
    "category_missing": (boosted, frame(pd.Categorical([*LETTERS[:-1], None]), N[:, 1]), ["any", "double"]),
    "category_encoded": (encoded, frame(pd.Categorical(LETTERS), pd.Categorical(y > 0)), ["any", "any"]),
    "category_row_names": (encoded, frame(pd.Categorical(LETTERS)).set_index(pd.Index([7] * 40)), ["any"]),
    "nullable": (filled, frame(pd.array(y, "Int64"), pd.array([*N[:-1, 1], None], "Float64")), ["long", "double"]),
    "dates": (dated, frame(DAYS), []),
    "dates_with_timezone": (dated, frame(DAYS.tz_localize("UTC")), ["any"]),
    "dates_in_nanoseconds": (counted_nanoseconds, frame(DAYS.as_unit("ns")), ["datetime"]),
    "objects_missing": (filled, frame(pd.Series([*y[:-1].tolist(), None], dtype=object)), ["any"]),
    "sparse_columns": (linear, pd.DataFrame.sparse.from_spmatrix(csr_matrix(N), columns=list("pqr")), ["any"] * 3),
}

UNSIGNED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "texts": (of_texts, TEXTS, "a list or make a DataFrame"),
    "tuple_of_texts": (of_texts, tuple(TEXTS), "a tuple or make a DataFrame"),
    "series": (of_texts, pd.Series(TEXTS), "a Series or make a DataFrame"),
    "series_named": (of_texts, pd.Series(TEXTS, name="text"), "a Series or make a DataFrame"),
    "dicts": (of_dicts, [{"a": float(one), "t": text} for one, text in zip(y, TEXTS, strict=True)], "a list"),
    "nested_lists": (linear, N.tolist(), "a list"),
    "list_of_arrays": (linear, list(N), "a list"),
    "csr_array": (linear, csr_array(N), "csr_matrix and csc_matrix, and the data are a csr_array"),
    "csc_array": (linear, csc_array(N), "csr_matrix and csc_matrix, and the data are a csc_array"),
    "coo_array": (linear, coo_array(N), ""),  # newer releases of scipy slice it, older ones do not
    "coo_matrix": (linear, coo_matrix(N), "could not be tried"),
    "lil_matrix": (linear, lil_matrix(N), "and the data are a lil_matrix"),
    "foreign_bytes": (linear, N.astype(">f8"), "foreign byte order"),
    "multi_index": (linear, pd.DataFrame(N, columns=MULTI), "no single texts"),
    "nullable_missing": (filled, frame(pd.array([*y[:-1], None], "Int64")), "bare values of columns such as 'p'"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_pyfunc_predicts_through_the_signature_what_the_estimator_predicts(name: str, tmp_path: Path) -> None:
    make, X, kinds = SIGNED[name]
    estimator = make().fit(X, y)
    model = sklearn_model(estimator, X)
    assert model.signature is not None, model.notes
    assert not any(note.startswith("no signature") for note in model.notes)
    assert json.loads(model.signature["outputs"])[0]["tensor-spec"] == {"dtype": "int64", "shape": [-1]}
    if kinds:
        assert [spec["type"] for spec in json.loads(model.signature["inputs"])] == kinds
    assert_predicts_the_same(model, estimator, X, tmp_path)


@pytest.mark.parametrize("name", UNSIGNED)
def test_pyfunc_predicts_without_a_signature_what_the_estimator_predicts(name: str, tmp_path: Path) -> None:
    make, X, words = UNSIGNED[name]
    estimator = make().fit(X, y)
    model = sklearn_model(estimator, X)
    assert model.signature is None
    (note,) = model.notes
    assert note.startswith("no signature")
    assert words in note
    assert_predicts_the_same(model, estimator, X, tmp_path)


def test_dates_are_not_turned_into_another_unit(tmp_path: Path) -> None:
    first = int(DAYS.min().as_unit("us").to_numpy().astype("int64"))
    counts = FunctionTransformer(lambda X: (X.astype("int64") - first) / 8e11)
    X = frame(DAYS.as_unit("us"))
    estimator = make_pipeline(counts, LogisticRegression()).fit(X, y)
    assert_predicts_the_same(sklearn_model(estimator, X), estimator, X, tmp_path)


def test_an_estimator_that_needs_the_category_itself_has_no_signature(tmp_path: Path) -> None:
    class NeedsCategories(ClassifierMixin, BaseEstimator):  # as LightGBM and XGBoost do
        def fit(self, X: Any, y: Any) -> NeedsCategories:
            self.classes_ = np.unique(y)
            return self

        def predict(self, X: Any) -> Any:
            return np.asarray(X["p"].cat.codes == 0, dtype=int)

    X = frame(pd.Categorical(LETTERS))
    estimator = NeedsCategories().fit(X, y)
    model = sklearn_model(estimator, X)
    assert model.signature is None
    assert "columns such as 'p'" in model.notes[-1]
    assert_predicts_the_same(model, estimator, X, tmp_path)


def test_a_gap_far_down_a_column_is_tried_too() -> None:
    class RefusesNone(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any) -> RefusesNone:
            self.classes_ = np.unique(y)
            return self

        def predict(self, X: Any) -> Any:
            if X["p"].dtype == "float64":
                raise TypeError("a number is missing")
            return np.zeros(len(X), dtype=int)

    values: list[Any] = [1] * 1000
    values[501] = None  # among the hundred rows that are spread evenly there is no 501
    X = frame(pd.Categorical(values))
    model = sklearn_model(RefusesNone().fit(X, np.arange(1000) % 2), X)
    assert model.signature is None


def assert_predicts_the_same(model: ModelFiles, estimator: Any, X: Any, folder: Path) -> None:
    for name, content in model.files.items():
        (folder / name).write_bytes(content)
    signature = ModelSignature.from_dict(dict(model.signature)) if model.signature else None
    described = Model(signature=signature, saved_input_example_info=model.example)
    described.add_flavor("python_function", **model.pyfunc_fields)
    described.add_flavor(model.flavor, **model.flavor_fields)
    described.save(str(folder / "MLmodel"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that MLflow raises about itself
        predicted = mlflow.pyfunc.load_model(str(folder)).predict(X)
    assert np.array_equal(predicted, estimator.predict(X))
