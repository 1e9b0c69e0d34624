"""Equal settings give equal strings: no address, no cut, no salted order, no secret."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import operator
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from overt.capture.params import describe, estimator_params, final_estimator, flatten


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    api_key: str = "hunter2"
    inner: Any = None


class Plain:
    pass


class Broken:
    def __repr__(self) -> str:
        raise ValueError


class BrokenEstimator:
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        raise RuntimeError


def double(x: float) -> float:
    return 2 * x


EXPECTED = [
    ("gini", "gini"),
    (0.1, "0.1"),
    (True, "True"),
    (None, "None"),
    (np.float64(0.1), "0.1"),
    (np.int32(3), "3"),
    (np.bool_(True), "True"),
    (np.datetime64("2020-01-01"), "2020-01-01"),
    (np.dtype("f4"), "float32"),
    (["a", np.float64(0.5), (1,)], "['a', 0.5, (1,)]"),
    ({"b": 1, "a": {2}}, "{'b': 1, 'a': {2}}"),
    ({"c", "a", "b"}, "{'a', 'b', 'c'}"),
    (frozenset(), "frozenset()"),
    (Point(1), "Point(x=1)"),
    (Colour.RED, "Colour.RED"),
    (Path("/data/x"), "/data/x"),
    (re.compile("a" * 300, re.IGNORECASE), f"re.compile('{'a' * 300}', re.IGNORECASE)"),
    (int, "int"),
    (Plain, f"{__name__}.Plain"),
    (double, f"{__name__}.double"),
    (functools.partial(double, x=2), f"functools.partial({__name__}.double, x=2)"),
    (len, "len"),
    (np.log1p, "numpy.log1p"),
    (np, "numpy"),
    (Broken(), "<Broken: no repr (ValueError)>"),
    (Settings(0.2, "k", [1]), "Settings(lr=0.2, api_key='k', inner=[1])"),
    (argparse.Namespace(a=1), "Namespace(a=1)"),
    (np.random.RandomState(0), "RandomState(MT19937)"),
    (np.random.default_rng(0), "Generator(PCG64)"),
    (np.arange(3), "array([0, 1, 2], dtype=int64)"),
    (scipy.stats.uniform(0, scale=2), "uniform(0, scale=2)"),
    (LogisticRegression(C=0.5), "LogisticRegression(C=0.5)"),
    (make_pipeline(StandardScaler()), "Pipeline(steps=[('standardscaler', StandardScaler())])"),
    (FunctionTransformer(np.log1p), "FunctionTransformer(func=numpy.log1p)"),
    (KFold(3, shuffle=True), "KFold(n_splits=3, random_state=None, shuffle=True)"),
]


@pytest.mark.parametrize(("value", "expected"), EXPECTED, ids=[text[:30] for _, text in EXPECTED])
def test_a_value_has_its_line(value: object, expected: str) -> None:
    assert describe(value) == expected


def test_a_lambda_is_named_by_its_place() -> None:
    assert re.fullmatch(rf"<lambda> {re.escape(__name__)}:\d+", describe(lambda x: x))


ODDITIES: list[Any] = [
    Plain(),
    object(),
    [Plain(), {"a": object()}],
    (lambda: 0),
    (i for i in ()),
    mock.Mock(name="m"),
    functools.partial(Plain().__eq__, Plain()),
    operator.attrgetter("x"),
    np.random.RandomState(1),
    KFold(2, shuffle=True, random_state=np.random.RandomState(0)),
    make_scorer(f1_score, average="macro"),
    scipy.stats.loguniform(1e-3, 1),
    scipy.stats.norm,
    RBF() + WhiteKernel(),
    FunctionTransformer(lambda x: x),
    Settings(inner=Plain()),
    Plain().__init__,  # type: ignore[misc]
    types.SimpleNamespace(a=Plain()),
    np.array([Plain(), Plain()], dtype=object),
    np.array([Plain()] * 20, dtype=object),
    {Plain: Plain()},
    print,
    [].append,
]


@pytest.mark.parametrize("value", ODDITIES, ids=[type(v).__name__ + str(i) for i, v in enumerate(ODDITIES)])
def test_no_line_holds_an_address(value: Any) -> None:
    text = describe(value)
    assert "0x" not in text
    assert not re.search(r"[0-9]{9,}", text)
    assert "\n" not in text


@given(
    st.recursive(
        st.builds(Plain) | st.integers() | st.text() | st.builds(Broken),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | inner.map(lambda v: Settings(inner=v)),
    )
)
def test_no_nesting_brings_an_address_back(value: Any) -> None:
    assert not re.search(r" object at 0x", describe(value))


def test_a_string_that_speaks_of_an_address_is_kept() -> None:
    assert describe("crash at 0xdeadbeef") == "crash at 0xdeadbeef"
    assert describe(["crash at 0xdeadbeef"]) == "['crash at 0xdeadbeef']"


def test_large_data_is_told_apart_by_content() -> None:
    for make in (np.asarray, sp.csr_matrix, pd.DataFrame, lambda a: a.ravel().tolist() * 100):
        one, other = np.eye(20), np.eye(20)
        other[3, 3] = 2
        assert describe(make(one)) == describe(make(one.copy()))
        assert describe(make(one)) != describe(make(other))
        assert len(describe(make(one))) < 200


def test_a_container_that_holds_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    assert describe(loop) == "[1, <cycle>]"
    assert "nested deeper" in describe(deep)


def test_lines_are_equal_in_every_process() -> None:
    program = (
        "from overt.capture.params import describe; print(describe([{'a','b','c','d'}, object(), frozenset('xyz')]))"
    )
    lines = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env={**_environment(), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(lines) == 1


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def test_an_estimators_params_are_its_own_names() -> None:
    params = estimator_params(RandomForestClassifier(max_depth=3), name="forest")
    assert params["max_depth"] == "3"
    assert params["criterion"] == "gini"
    assert (params["model_type"], params["model_name"]) == ("RandomForestClassifier", "forest")


def test_a_pipelines_final_step_is_also_named_bare_where_it_is_free() -> None:
    params = estimator_params(make_pipeline(StandardScaler(), LogisticRegression(C=0.5, verbose=7)), name="p")
    assert params["logisticregression__C"] == params["C"] == "0.5"
    assert params["verbose"] == "False"  # the Pipeline's own
    assert "with_mean" not in params
    assert params["model_type"] == "LogisticRegression"
    assert params["model_class"] == "sklearn.pipeline.Pipeline"


def test_a_search_names_its_best_estimators_params() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.25]}, cv=2
    )
    assert estimator_params(search, name="s")["C"] == "1.0"
    search.fit(np.arange(20.0).reshape(-1, 1), [0, 1] * 10)
    params = estimator_params(search, name="s")
    assert params["C"] == "0.25"
    assert params["param_grid"] == "{'logisticregression__C': [0.25]}"
    assert params["model_type"] == "LogisticRegression"


def test_a_pipeline_that_ends_in_passthrough_is_its_own_type() -> None:
    pipeline = make_pipeline(StandardScaler(), "passthrough")
    assert final_estimator(pipeline) is pipeline
    assert estimator_params(pipeline, name="p")["model_type"] == "Pipeline"


def test_an_estimator_that_refuses_still_has_a_type() -> None:
    assert estimator_params(BrokenEstimator(), name="b") == {
        "model_type": "BrokenEstimator",
        "model_name": "b",
        "model_class": f"{__name__}.BrokenEstimator",
    }


class Client(LogisticRegression):
    def __init__(self, api_key: str | None = None, max_tokens: int = 5, C: float = 1.0) -> None:
        super().__init__(C=C)
        self.api_key = api_key
        self.max_tokens = max_tokens


def test_no_param_holds_a_secret_at_any_depth() -> None:
    params = estimator_params(make_pipeline(Client(api_key="hunter2")), name="c")
    assert not any("hunter2" in text for text in params.values())
    assert params["api_key"] == "[redacted]"
    assert params["max_tokens"] == "5"


def test_a_configuration_flattens_to_dotted_leaves() -> None:
    config = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "s": Settings(inner=argparse.Namespace(k=1)), "e": {}}
    assert flatten(config) == {
        "optimizer.lr": "0.1",
        "optimizer.betas": "[0.9, 0.99]",
        "s.lr": "0.1",
        "s.api_key": "[redacted]",
        "s.inner.k": "1",
        "e": "{}",
    }


def test_two_leaves_of_one_name_are_both_kept() -> None:
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {"a.b": "1", "a.b.2": "2"}


def test_a_configuration_that_holds_itself_ends() -> None:
    config: dict[str, Any] = {"a": 1}
    config["self"] = config
    assert flatten(config)["a"] == "1"


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.text(min_size=1), inner, min_size=1), max_leaves=9))
def test_flattening_keeps_every_leaf(config: Any) -> None:
    def leaves(value: Any) -> int:
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    assert len(flatten(config)) == leaves(config)
