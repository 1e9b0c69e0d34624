"""Report: readable without any library, strict JSON, escaped HTML, an error that helps."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from overt.errors import OvertError
from overt.evaluation.classification import classify
from overt.evaluation.report import FigureSpec, Report, to_json


def report(**changes: Any) -> Report:
    made = classify(["나", "<b>", "나"], ["나", "나", "나"], scores=[0.4, 0.3, 0.9])
    return dataclasses.replace(made, **changes)


def test_a_missing_metric_names_those_there_are() -> None:
    with pytest.raises(KeyError) as caught:
        report()["f2"]
    assert isinstance(caught.value, OvertError)
    assert str(caught.value).startswith("no metric 'f2' in this binary report; it holds: accuracy, ")


def test_a_report_is_frozen_and_survives_pickling() -> None:
    made = report()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.n_samples = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(made)) == made
    assert "accuracy" in made
    assert list(made) == list(made.metrics)


def test_files_are_strict_json_and_csv_of_the_same_rows() -> None:
    files = dict(report().iter_files())
    assert set(files) == {"confusion_matrix.json", "classification_report.json", "classification_report.csv"}
    matrix = json.loads(files["confusion_matrix.json"])
    assert matrix == {"labels": ["<b>", "나"], "matrix": [[0, 1], [0, 2]]}
    assert "나".encode() in files["confusion_matrix.json"]
    parsed = json.loads(files["classification_report.json"])
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(files["classification_report.csv"].decode()))}
    assert list(rows) == list(parsed)
    assert float(rows["나"]["recall"]) == parsed["나"]["recall"] == 1.0
    assert float(rows["accuracy"]["f1-score"]) == parsed["accuracy"]
    assert rows["accuracy"]["precision"] == ""


def test_json_has_no_nan_and_no_numpy() -> None:
    value = {1: np.float64("nan"), "b": [np.int64(3), float("inf"), np.array([1.5, np.nan])], "c": (True, None)}
    assert json.loads(to_json(value)) == {"1": None, "b": [3, None, [1.5, None]], "c": [True, None]}
    assert b"NaN" not in to_json(value)


def test_a_terminal_shows_metrics_and_notes_in_columns() -> None:
    made = report(metrics={"f1": 0.5, "accuracy": float("nan"), "rmse": 12345.678}, notes=("something",))
    assert str(made) == repr(made)
    assert str(made).splitlines() == [
        "binary report on 3 samples",
        "  f1             0.5000",
        "  accuracy          nan",
        "  rmse      12,345.6780",
        "  - something",
    ]


def test_tiny_numbers_are_not_shown_as_zero() -> None:
    assert "1.000e-07" in str(report(metrics={"mse": 1e-7}))


def test_a_long_report_says_what_it_hides() -> None:
    made = report(metrics={f"rmse_{i}": float(i) for i in range(100)}, notes=())
    assert len(str(made).splitlines()) == 42
    assert str(made).endswith("60 more metrics in report.metrics")


def test_html_is_escaped() -> None:
    html = report(notes=("<script>",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<td><b></td>" not in html
    assert "<td>&lt;b&gt;</td>" in html
    assert "<td>f1_score</td>" in html


def test_rich_shows_names_without_reading_markup() -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=80)
    console.print(report(metrics={"rmse_[red]": 1.0}, notes=("[bold]",)))
    assert "rmse_[red]" in console.file.getvalue()
    assert "[bold]" in console.file.getvalue()


def test_figures_carry_all_they_need_in_json() -> None:
    figures = list(report().iter_figures())
    assert [figure.path for figure in figures] == [
        "confusion_matrix.png",
        "confusion_matrix_normalized.png",
        "roc_curve.png",
        "precision_recall_curve.png",
        "calibration_curve.png",
    ]
    assert [figure.data.get("normalized") for figure in figures[:2]] == [False, True]
    for figure in figures:
        assert FigureSpec(figure.path, figure.kind, json.loads(json.dumps(figure.data))) == figure


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("overt.evaluation.report", ("numpy", "sklearn", "rich", "matplotlib")),
        ("overt.evaluation.classification", ("mlflow", "matplotlib", "pandas", "rich")),
        ("overt.evaluation.regression", ("mlflow", "matplotlib", "pandas", "rich")),
        ("overt.evaluation.clustering", ("mlflow", "matplotlib", "pandas", "rich")),
        ("overt.evaluation.importances", ("mlflow", "matplotlib", "pandas", "rich", "sklearn")),
        ("overt.figures", ("matplotlib", "numpy")),
    ],
)
def test_importing_a_room_imports_nothing_it_does_not_need(module: str, banned: tuple[str, ...]) -> None:
    # What scikit-learn imports by itself (pandas, where installed) is not ours.
    code = f"""
import sys
if {module!r}.rpartition('.')[2] in ('classification', 'regression', 'clustering'):
    import sklearn.metrics
before = set(sys.modules)
import {module}
print(sorted(set({banned!r}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
