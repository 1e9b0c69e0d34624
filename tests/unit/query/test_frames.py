from __future__ import annotations

import math
import random
import sys
import time

import pandas
import pytest
from tests.unit.query.shelf import run

from overt.query.frames import runs_frame

FIXED = ["run_id", "run_name", "experiment", "status", "start_time", "end_time", "notes"]


@pytest.mark.parametrize(
    ("texts", "dtype", "values"),
    [
        (["1", "-20"], "int64", [1, -20]),
        (["1", None], "Int64", [1, pandas.NA]),
        (["1", "0.5"], "float64", [1.0, 0.5]),
        (["1e-05", "-inf", "1.5E+3"], "float64", [1e-05, -math.inf, 1500.0]),
        (["0.10", "1.e5", "10000000000000000", "-0.0"], "float64", [0.1, 1e5, 1e16, -0.0]),
        (
            ["5e-324", "1.7976931348623157e+308", "0.30000000000000004"],
            "float64",
            [5e-324, sys.float_info.max, 0.1 + 0.2],
        ),
        (["0.5", None], "float64", [0.5, math.nan]),
        (["True", "False"], "bool", [True, False]),
        (["True", None], "boolean", [True, pandas.NA]),
    ],
)
def test_a_param_whose_texts_are_all_of_one_kind_has_that_type(
    texts: list[str | None], dtype: str, values: list[object]
) -> None:
    frame = runs_frame([run(str(i), params={} if text is None else {"x": text}) for i, text in enumerate(texts)])
    assert frame["param_x"].dtype == dtype
    pandas.testing.assert_series_equal(frame["param_x"], pandas.Series(values, dtype=dtype, name="param_x"))


@pytest.mark.parametrize(
    "texts",
    [
        ["007", "1"],
        ["10", "None"],
        ["1_000", "2"],
        [" 1", "2"],
        ["nan", "0.5"],
        ["9223372036854775808", "1"],
        ["9007199254740993", "0.5"],
        ["338735029437823789120947123987", "338735029437823789120947123988"],
        ["9007199254740993.0", "0.5"],
        ["0.30000000000000001", "0.5"],
        ["1e400", "1"],
        ["-1e400", "1"],
        ["1e-400", "1"],
        ["1e99999999999999999999", "1"],
        ["true", "True"],
        ["٣", "1"],
        ["", "1"],
    ],
)
def test_a_text_that_a_number_would_change_stays_as_it_was_recorded(texts: list[str]) -> None:
    frame = runs_frame([run(str(i), params={"x": text}) for i, text in enumerate(texts)])
    assert list(frame["param_x"]) == texts


def test_every_run_is_a_row_and_mlflows_own_tags_are_left_out() -> None:
    tags = {"mlflow.note.content": "a note", "mlflow.user": "ada", "overt.argv": "[]", "team": "blue"}
    frame = runs_frame(
        [
            run("a", 1_700_000_000_123, metrics={"loss": 0.5}, tags=tags, ended_ms=1_700_000_001_000),
            run("b", 1_700_000_000_000, params={"k": "x"}),
        ]
    )
    assert list(frame) == [*FIXED, "param_k", "metric_loss", "tag_team"]
    assert list(frame["notes"]) == ["a note", ""]
    assert str(frame["start_time"].dt.tz) == "UTC"
    assert frame["start_time"][0] == pandas.Timestamp("2023-11-14 22:13:20.123", tz="UTC")
    assert frame["end_time"].isna().tolist() == [False, True]
    assert frame["metric_loss"][0] == 0.5
    assert frame.isna().loc[:, ["param_k", "metric_loss", "tag_team"]].to_numpy().tolist() == [
        [True, False, False],
        [False, True, True],
    ]


def test_no_runs_are_an_empty_frame_with_the_columns_that_every_run_has() -> None:
    frame = runs_frame([])
    assert list(frame) == FIXED
    assert len(frame) == 0
    assert frame.dtypes.to_dict() == runs_frame([run("a")]).dtypes.to_dict()


@pytest.mark.serial
def test_ten_thousand_runs_are_a_frame_in_a_seventh_of_a_second() -> None:
    draw = random.Random(1)
    runs = [
        run(
            f"{i:032x}",
            10**12 + i,
            metrics={f"m{k}": draw.random() for k in range(10)},
            params={f"p{k}": str(draw.randint(0, 9)) for k in range(10)} | {"lr": str(draw.random())},
        )
        for i in range(10_000)
    ]
    runs_frame(runs[:10])  # pandas imports parts of itself when they are first used
    took = []
    for _ in range(5):
        start = time.process_time()
        frame = runs_frame(runs)
        took.append(time.process_time() - start)
    assert frame.shape == (10_000, 28)
    assert min(took) < 0.15
