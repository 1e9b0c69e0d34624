"""overt's signatures and input examples, compared case by case with those that MLflow itself infers."""

from __future__ import annotations

import datetime
import decimal
import json
import subprocess
import sys
import warnings
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from mlflow.models import infer_signature
from mlflow.models.utils import _Example

from overt.capture.signature import input_example, schema, signature

CASES: dict[str, Any] = {
    **{
        f"array_{dtype}_{ndim}d": np.zeros((4, 3, 2)[:ndim], dtype=dtype)
        for dtype in (
            "f2",
            "f4",
            "f8",
            "g",
            "i1",
            "i4",
            "i8",
            "u1",
            "u8",
            "?",
            "c16",
            "U5",
            "S3",
            "O",
            "M8[ns]",
            "m8[s]",
        )
        for ndim in (1, 2, 3)
    },
    "array_0d": np.array(1.0),
    "array_empty": np.zeros((0, 3)),
    "array_structured": np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    "array_big_endian": np.zeros(3, dtype=">f8"),
    "frame": pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "d": ["x", "y"]}),
    "frame_missing": pd.DataFrame({"b": [0.5, np.nan], "d": ["x", None], "e": pd.to_datetime(["2020-01-01", None])}),
    "frame_narrow": pd.DataFrame({k: np.zeros(2, k) for k in ("i1", "i2", "i4", "u1", "u2", "u4", "f4", "f2")}),
    "frame_uint64": pd.DataFrame({"a": np.zeros(2, "u8")}),
    "frame_complex": pd.DataFrame({"a": np.zeros(2, "c16")}),
    "frame_category": pd.DataFrame({"a": pd.Categorical(["x", "y", None]), "b": pd.Categorical([1, 2, 1])}),
    "frame_category_numbers_missing": pd.DataFrame({"b": pd.Categorical([1, None, 1])}),
    "frame_category_mixed": pd.DataFrame({"b": pd.Categorical([1, "x", 1])}),
    "frame_timezone": pd.DataFrame({"t": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}),
    "frame_timedelta": pd.DataFrame({"t": pd.to_timedelta(["1 day"])}),
    "frame_period": pd.DataFrame({"t": pd.period_range("2020", periods=2)}),
    "frame_nullable": pd.DataFrame(
        {"i": pd.array([1, None], "Int64"), "b": pd.array([True, None]), "f": pd.array([0.5, None], "Float32")}
    ),
    "frame_nullable_complete": pd.DataFrame({"i": pd.array([1, 2], "Int32"), "f": pd.array([0.5, 1.0], "Float64")}),
    "frame_string": pd.DataFrame({"s": pd.array(["a", None], "string")}),
    "frame_object_mixed": pd.DataFrame({"o": ["a", 1]}),
    "frame_object_numbers": pd.DataFrame({"o": pd.Series([1, 2], dtype=object)}),
    "frame_object_none": pd.DataFrame({"o": pd.Series([None, None], dtype=object)}),
    "frame_object_dates": pd.DataFrame({"o": pd.Series([datetime.date(2020, 1, 1)], dtype=object)}),
    "frame_object_lists": pd.DataFrame({"o": [[1, 2], [3]], "p": [{"a": 1}, {"b": "x"}]}),
    "frame_decimal": pd.DataFrame({"o": [decimal.Decimal("NaN")]}),
    "frame_bytes": pd.DataFrame({"o": [b"a", b"b"]}),
    "frame_integer_names": pd.DataFrame(np.zeros((2, 2))),
    "frame_numpy_names": pd.DataFrame(np.zeros((2, 2)), columns=[np.str_("a"), "b"]),
    "frame_twice_a_name": pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]),
    "frame_no_columns": pd.DataFrame(index=[1, 2]),
    "frame_no_rows": pd.DataFrame({"a": pd.Series([], dtype=float), "b": pd.Series([], dtype=object)}),
    "frame_none_name": pd.DataFrame([[1.0, 2.0]], columns=["a", None]),
    "series": pd.Series([1.0, 2.0], name="y"),
    "series_unnamed": pd.Series(["a", "b"]),
    "series_unnamed_missing": pd.Series(["a", None]),
    "series_category": pd.Series(["a", "b"], dtype="category"),
    "csr": sp.csr_matrix(np.eye(3, dtype="f4")),
    "csc": sp.csc_matrix(np.eye(3)),
    "coo": sp.coo_matrix(np.eye(3)),
    "csr_array": sp.csr_array(np.eye(3)),
    "list_empty": [],
    "list_int": [1, 2],
    "list_float_missing": [1.0, float("nan"), None],
    "list_missing_first": [None, "x"],
    "list_mixed": [1, "x"],
    "list_int_float": [1, 2.0],
    "list_nested": [[1.0, 2.0], [3.0]],
    "list_nested_missing": [[None], [1]],
    "list_ragged_depth": [[1], [[1]]],
    "list_of_arrays": [np.zeros((3, 2)), np.ones((3, 2))],
    "list_of_arrays_missing": [np.array([[np.nan, np.nan], [0.0, 1.0]]), np.array([[np.nan, np.nan]])],
    "list_of_empty_arrays": [np.array([])],
    "list_of_object_arrays": [np.array(["a", None], dtype=object)],
    "list_of_narrow_arrays": [np.zeros(2, "f4"), np.zeros(2, "i4")],
    "list_of_unsigned_arrays": [np.zeros(2, "u1")],
    "list_of_numpy": [np.float32(1), np.float32(2)],
    "list_of_dicts": [{"a": 1, "b": "x"}, {"a": 2}],
    "list_of_nested_dicts": [{"a": {"x": [1]}}, {"a": {"y": None, "x": []}}, {"a": {"y": {"z": 1.0}}}],
    "list_of_tuples": [(1, 2)],
    "tuple": (1, 2),
    "dict_of_arrays": {"a": np.zeros((2, 3)), "b": np.zeros(2, "i4")},
    "dict": {"a": 1, "b": [1.0, None], "c": {"d": "x"}, "e": None, "f": []},
    "dict_integer_keys": {1: 2},
    "dict_empty": {},
    "text": "hello",
    "number": 3,
    "none_is_missing": float("nan"),
    "datetime": datetime.datetime(2020, 1, 1),
    "numpy_scalar": np.int32(3),
    "foreign": object(),
}


def mlflow_signature(inputs: Any, outputs: Any = None) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return infer_signature(inputs, outputs).to_dict()


follows_todays_mlflow = pytest.mark.skipif(
    tuple(map(int, mlflow.__version__.split(".")[:2])) < (3, 17),
    reason="MLflow 3.2 calls nested values with gaps `any`; overt writes what MLflow 3.17 does",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=follows_todays_mlflow if name == "list_of_arrays_missing" else ()) for name in CASES],
)
def test_a_signature_is_mlflows_own(name: str) -> None:
    try:
        expected = mlflow_signature(CASES[name], CASES[name])
    except TypeError:
        expected = None
    assert signature(CASES[name], CASES[name]) == expected


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.just(float("nan")) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
    max_leaves=12,
)


@follows_todays_mlflow
@given(_values)
def test_a_signature_of_nested_values_is_mlflows_own(value: Any) -> None:
    if value is not None:
        assert signature(value) == mlflow_signature(value)


_columns = st.sampled_from(
    [
        [1, 2, 3],
        [1.5, None, 2.0],
        ["a", None, "b"],
        [True, False, None],
        [None, None, None],
        [datetime.datetime(2020, 1, 1)] * 3,
        pd.Categorical(["a", "b", "a"]),
        pd.array([1, None, 2], "Int64"),
        pd.array([0.5, float("nan"), None], "Float64"),
        [[1], [2.0], []],
        [1, "a", None],
    ]
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _columns, min_size=1))
def test_a_signature_of_a_frame_is_mlflows_own(columns: dict[str, Any]) -> None:
    frame = pd.DataFrame(columns)
    assert signature(frame) == mlflow_signature(frame)


def test_no_signature_of_nothing_and_no_outputs_as_none() -> None:
    assert signature(None) is None
    assert signature(np.zeros(2)) == {"inputs": schema_json(np.zeros(2)), "outputs": None, "params": None}


def schema_json(value: Any) -> str:
    return json.dumps(schema(value))


EXAMPLES: dict[str, Any] = {
    **{
        f"array_{dtype}": np.arange(14).reshape(7, 2).astype(dtype)
        for dtype in ("f4", "f8", "i4", "?", "U3", "O", "S3", "c16", "M8[s]")
    },
    "array_1d": np.arange(9.0),
    "array_nan": np.array([[1.0, np.nan]] * 7),
    **{name: CASES[name] for name in CASES if name.startswith(("frame", "csr", "csc", "coo", "list"))},
    "series": pd.Series([1.0]),
    "text": "hello",
}


# MLflow's own, on pandas 3: as an error it would look like a refusal of every frame.
@pytest.mark.filterwarnings("ignore:Operation with range:DeprecationWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_input_example_is_mlflows_own(name: str) -> None:
    value = EXAMPLES[name]
    head = value if isinstance(value, str) else value.iloc[:5] if hasattr(value, "iloc") else _head(value)
    example = input_example(value)
    try:
        expected = _Example(head)
    except Exception:  # noqa: BLE001 - whatever MLflow refuses
        expected = None
    if expected is None or isinstance(value, str):
        assert example is None
    else:
        assert example is not None
        assert example.data.decode() == expected.json_input_example
        assert example.serving.decode() == expected.json_serving_input
        assert example.info == expected.info


def _head(value: Any) -> Any:
    try:
        return value[:5]
    except TypeError:
        return value


def test_a_wide_example_has_fewer_rows_and_one_too_wide_is_none() -> None:
    narrow = input_example(sp.csr_matrix((10, 50_000)))
    assert narrow is not None
    assert json.loads(narrow.data)["shape"] == [2, 50_000]
    assert input_example(sp.csr_matrix((10, 100_001))) is None
    assert input_example(np.zeros((3, 100_001))) is None


def test_a_signature_costs_no_import_of_mlflow() -> None:
    program = (
        "import sys, numpy as np, pandas as pd\n"
        "from overt.capture.signature import signature, input_example\n"
        "frame = pd.DataFrame({'a': [1, 2]})\n"
        "assert signature(frame, np.zeros(2)) and input_example(frame)\n"
        "assert not {'mlflow', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
