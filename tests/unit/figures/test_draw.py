"""draw(): any figure of ours becomes a PNG, and anything else a RecordError, whatever the user's settings are."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, make_multilabel_classification

from overt.errors import MissingExtra, RecordError
from overt.evaluation.classification import classify
from overt.evaluation.clustering import cluster
from overt.evaluation.importances import importances
from overt.evaluation.regression import regress
from overt.evaluation.report import FigureSpec
from overt.figures import KINDS, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib = pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def all_specs() -> list[FigureSpec]:
    """Every figure that the evaluation room can ask for, from small real data."""
    rng = np.random.default_rng(0)
    X, y = load_breast_cancer(return_X_y=True)
    score = 1 - X[:, 0] / X[:, 0].max()
    _, Y = make_multilabel_classification(60, n_classes=3, random_state=0)
    digits = rng.integers(0, 12, 300)
    proba = rng.dirichlet(np.ones(12), 300)
    reports = [
        classify(y, score > 0.5, scores=score, class_names=["악성", "$\\frac{1}{0}$"]),
        classify(digits, proba.argmax(axis=1), scores=proba),
        classify(Y, Y[::-1], scores=rng.random(Y.shape)),
        regress(X[:, 0], X[:, 1]),
        regress(X[:, :3], X[:, 1:4]),
        cluster(X[:50], np.arange(50) % 4 - 1),
    ]
    figures = [figure for report in reports for figure in report.iter_figures()]
    figures += [importances([f"feature {i}" for i in range(40)], rng.normal(size=40))[1]]
    return [*figures, FigureSpec("search_scores.png", "search_scores", search_of(a_search()))]


def a_search() -> list[tuple[float | None, dict[str, Any]]]:
    """Mean score and parameters of candidates: one that failed, one without ``max_depth``."""
    depths: list[Any] = [2, 4, None, 8]
    found = [(0.7 + 0.01 * i + 0.02 * j, {"alpha": 10.0**-i, "max_depth": depths[j], "kind": "ab"[i % 2]})
             for i in range(5) for j in range(4)]  # fmt: skip
    return [*found, (None, {"alpha": 1.0, "max_depth": 3, "kind": "b"})]


def search_of(candidates: list[tuple[float | None, dict[str, Any]]], **changed: Any) -> dict[str, Any]:
    scores = [score for score, _ in candidates]
    return {
        "scorer": "accuracy",
        "scores": scores,
        "stds": [None if score is None else 0.02 for score in scores],
        "best": max(range(len(scores)), key=lambda index: scores[index] or -1.0),
        "n_candidates": len(candidates),
        "panels": [{"param": name, "values": [params[name] for _, params in candidates]} for name in candidates[0][1]],
    } | changed


SPECS = all_specs()
ONE_OF_EACH = {spec.kind: spec for spec in reversed(SPECS)}


def test_the_examples_cover_every_kind() -> None:
    assert set(ONE_OF_EACH) == KINDS


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_each_figure_becomes_an_image_after_a_trip_through_json(spec: FigureSpec) -> None:
    image = Image.open(io.BytesIO(draw(spec.kind, json.loads(json.dumps(spec.data)))))
    assert image.format == "PNG"
    assert 400 < image.width < 2_000
    assert 200 < image.height < 2_400
    pixels = np.asarray(image.convert("L"))
    assert pixels[0, 0] == 255
    assert pixels.min() < 80


def test_a_drawing_depends_on_its_data() -> None:
    spec = ONE_OF_EACH["confusion_matrix"]
    assert draw(spec.kind, spec.data) == draw(spec.kind, spec.data)
    assert draw(spec.kind, spec.data) != draw(spec.kind, {**spec.data, "normalized": not spec.data["normalized"]})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_users_matplotlib_settings_are_neither_read_nor_changed(kind: str) -> None:
    import matplotlib.style

    spec = ONE_OF_EACH[kind]
    plain = draw(kind, spec.data)
    loud: Any = {
        "text.usetex": True, "text.parse_math": True, "axes.formatter.use_mathtext": True, "font.family": ["serif"],
        "font.size": 30, "figure.dpi": 30, "savefig.dpi": 30, "savefig.transparent": True, "axes.unicode_minus": False,
        "xtick.minor.visible": True, "figure.constrained_layout.use": False, "image.origin": "lower",
        "lines.marker": "s", "font.weight": "bold", "axes.titlelocation": "right",
    }  # fmt: skip
    with matplotlib.rc_context():
        for style in ("dark_background", "ggplot", "fivethirtyeight"):
            matplotlib.rcParams.update(matplotlib.style.library[style])
        matplotlib.rcParams.update(loud)
        before = copy.deepcopy(dict(matplotlib.rcParams))
        assert draw(kind, spec.data) == plain
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported() -> None:
    data = {"names": ["a"], "values": [1.0], "n_features": 1}
    code = f"import sys; from overt.figures import draw; draw('feature_importances', {data!r}); " + (
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


NAMES = ["$", "$\\alpha$", "\\frac{", "안녕", "\U0001f600\x00\n\t", "x" * 100_000, "", "_hidden"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name!a:.20}")
def test_any_name_is_drawn_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("feature_importances", {"names": [name], "values": [1.0], "n_features": 1})
        curve = {"name": name, "auc": 0.5, "false_positive_rate": [0.0, 1.0], "true_positive_rate": [0.0, 1.0]}
        draw("roc_curve", {"curves": [curve]})
        candidates: Any = [(0.5, {name: name}), (0.6, {name: 1.0})]
        draw("search_scores", search_of(candidates, scorer=name))


def test_mathematics_in_a_name_stays_letters() -> None:
    from overt.figures.canvas import new_axes, new_figure, png

    figure = new_figure(3, 2)
    text = new_axes(figure).text(0.5, 0.5, "$x_1$")
    letters = png(figure)
    assert not text.get_parse_math()
    text.set_text(r"\$x_1\$")  # what a text that is parsed needs in order to show the same
    assert png(figure) != letters


def test_a_matrix_is_drawn_from_1_to_1000_classes_and_refused_beyond() -> None:
    for size in (1, 2, 20, 21, 61, 1_000):
        labels = [f"class {i}" for i in range(size)]
        draw("confusion_matrix", {"labels": labels, "matrix": np.eye(size).tolist(), "normalized": True})
    labels = [str(i) for i in range(1_001)]
    with pytest.raises(RecordError, match="1,000"):
        draw("confusion_matrix", {"labels": labels, "matrix": np.eye(1_001).tolist(), "normalized": False})


@pytest.mark.parametrize("normalized", [False, True])
def test_a_matrix_of_zeros_is_drawn(normalized: bool) -> None:
    draw("confusion_matrix", {"labels": ["a", "b"], "matrix": [[0, 0], [0, 0]], "normalized": normalized})


@pytest.mark.parametrize("values", [[0.0], [1e-300, -1e-300], [1e99, -1e99], [5.0, 5.0], [1e15, 1e15 + 1]])
def test_numbers_of_any_size_have_axes(values: list[float]) -> None:
    draw("feature_importances", {"names": ["n"] * len(values), "values": values, "n_features": 9})
    output = {"name": "y", "actual": values, "predicted": values, "histogram": {"edges": [0.0, 1.0], "counts": [1]}}
    draw("predicted_vs_actual", {"outputs": [output]})
    draw("residuals", {"outputs": [output]})
    draw("search_scores", search_of([(value, {"a": value}) for value in values]))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], Figure]:
    """Draws, and gives the figure as matplotlib was handed it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures: list[Figure] = []
    print_png = FigureCanvasAgg.print_png

    def follow(canvas: Any, *args: Any, **kwargs: Any) -> None:
        figures.append(canvas.figure)
        print_png(canvas, *args, **kwargs)

    def draw_it(kind: str, data: Any) -> Figure:
        draw(kind, data)
        return figures[-1]

    monkeypatch.setattr(FigureCanvasAgg, "print_png", follow)
    return draw_it


def points_of(axes: Any, *, best: bool) -> list[tuple[float, float]]:
    from overt.figures.canvas import PALETTE

    colour = PALETTE[1 if best else 0]
    lines = [line for line in axes.get_lines() if line.get_markerfacecolor() == colour]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


def labels_of(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_failed_candidate_is_counted_and_not_drawn(drawn: Callable[[str, Any], Figure]) -> None:
    data = search_of([(0.5, {"alpha": 1.0}), (0.8, {"alpha": 2.0}), (None, {"alpha": 3.0})])
    figure = drawn("search_scores", data)
    assert figure.get_suptitle() == "Mean accuracy\n3 candidates, 1 failed, best 0.8"
    assert points_of(figure.axes[0], best=False) == [(1.0, 0.5)]
    assert points_of(figure.axes[0], best=True) == [(2.0, 0.8)]
    none_is_left = {**data, "scores": [None] * 3, "best": None}
    assert drawn("search_scores", none_is_left).get_suptitle() == "Mean accuracy\n3 candidates, 3 failed"


def test_a_candidate_without_the_parameter_is_left_out_of_its_panel_only(drawn: Callable[[str, Any], Figure]) -> None:
    candidates: Any = [(0.5, {"a": 1.0, "b": "x"}), (0.6, {"a": None, "b": "y"}), (0.7, {"a": 2.0, "b": None})]
    first, second = drawn("search_scores", search_of(candidates)).axes
    assert points_of(first, best=False) == [(1.0, 0.5)]
    assert points_of(second, best=False) == [(0.0, 0.5), (1.0, 0.6)]
    assert labels_of(second.xaxis) == ["x", "y"]
    assert first.get_ylim() == second.get_ylim()


def test_a_parameter_has_a_logarithmic_axis_beyond_a_factor_of_100(drawn: Callable[[str, Any], Figure]) -> None:
    def axis_of(*values: float) -> Any:
        return drawn("search_scores", search_of([(0.5, {"a": value}) for value in values])).axes[0]

    assert [x for x, _ in points_of(axis_of(0.001, 1.0, 10.0), best=False)] == [0.0, 1.0]
    assert labels_of(axis_of(0.001, 1.0, 10.0).xaxis) == ["0.001", "0.01", "0.1", "1", "10"]
    assert labels_of(axis_of(1e-6, 1e6).xaxis) == ["1e-6", "0.001", "1", "1000", "1e6"]
    assert [x for x, _ in points_of(axis_of(3.0, 1.0, 100.0), best=False)] == [1.0, 100.0]
    assert [x for x, _ in points_of(axis_of(5.0, 0.0, 1000.0), best=False)] == [0.0, 1000.0]


def test_a_whole_number_has_whole_ticks(drawn: Callable[[str, Any], Figure]) -> None:
    def ticks_of(*values: float) -> list[str]:
        return labels_of(drawn("search_scores", search_of([(0.5, {"a": value}) for value in values])).axes[0].xaxis)

    assert ticks_of(1.0, 3.0, 11.0) == ["2", "4", "6", "8", "10"]
    assert ticks_of(1.0, 3.0) == ["1", "2", "3"]
    assert ticks_of(3.0) == ["3"]
    assert ticks_of(1.0, 1.5, 2.0) == ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0"]


def test_of_many_categories_20_are_drawn_and_the_best_among_them(drawn: Callable[[str, Any], Figure]) -> None:
    candidates: Any = [(i / 100, {"a": f"v{i}"}) for i in range(35)]
    axes = drawn("search_scores", search_of(candidates)).axes[0]
    assert labels_of(axes.xaxis) == [*(f"v{i}" for i in range(19)), "v34"]
    assert axes.get_xlabel() == "a (20 of 35 values)"
    assert points_of(axes, best=True) == [(19.0, 0.34)]


def test_what_a_search_figure_leaves_out_is_said(drawn: Callable[[str, Any], Figure]) -> None:
    data = search_of([(0.5, {f"p{i}": 1.0 for i in range(8)})], n_candidates=4_000)
    figure = drawn("search_scores", data)
    assert figure.get_suptitle() == "Mean accuracy\n1 of 4,000 candidates, best 0.5, 6 of 8 parameters"
    assert [axes.get_xlabel() for axes in figure.axes] == [f"p{i}" for i in range(6)]


def test_a_search_figure_needs_a_parameter_and_a_value_for_each_candidate() -> None:
    with pytest.raises(RecordError, match="at least one parameter"):
        draw("search_scores", search_of([(0.5, {})]))
    for values in ([], [1.0, 2.0]):
        with pytest.raises(RecordError, match="one for each of 1 candidates"):
            draw("search_scores", search_of([(0.5, {"a": 1.0})], panels=[{"param": "a", "values": values}]))


def test_candidates_of_one_category_stand_side_by_side(drawn: Callable[[str, Any], Figure]) -> None:
    axes = drawn("search_scores", search_of([(0.1 * i, {"a": "xxy"[i]}) for i in range(3)])).axes[0]
    assert points_of(axes, best=False) == [(-0.125, 0.0), (0.125, 0.1)]


@pytest.mark.parametrize("n_panels", [1, 2, 4, 6])
def test_panels_of_a_search_figure_do_not_overlap(drawn: Callable[[str, Any], Figure], n_panels: int) -> None:
    figure = drawn("search_scores", search_of([(0.5, {f"p{i}": "a rather long value" for i in range(n_panels)})]))
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == n_panels
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


BAD = [None, [], 3, "x", True, float("nan"), 1e101, 10**400, {}, {"a": 1}, [[]], [None], ["x"] * 3, object()]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{type(bad).__name__}")
def test_each_part_of_the_data_is_checked(kind: str, bad: Any) -> None:
    data = ONE_OF_EACH[kind].data
    for path in leaves(data):
        if is_as_good(data, path, bad):
            continue
        with pytest.raises(RecordError):
            draw(kind, replaced(data, path, bad))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_part_of_the_data_may_be_missing(kind: str) -> None:
    for data in [{}, [], None, "x"]:  # type: ignore[var-annotated]
        with pytest.raises(RecordError):
            draw(kind, data)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["", "os", "__init__", "../canvas", None, 3, ["roc_curve"], "x" * 10_000])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    with pytest.raises(RecordError) as caught:
        draw(kind, {})
    assert len(str(caught.value)) < 400


def test_too_much_data_is_refused_before_it_is_drawn() -> None:
    long = [0.0] * 20_001
    curve = {"name": "a", "auc": 1.0, "false_positive_rate": long, "true_positive_rate": long}
    with pytest.raises(RecordError, match="20,000"):
        draw("roc_curve", {"curves": [curve]})
    short = {"name": "a", "auc": 1.0, "false_positive_rate": [0.0], "true_positive_rate": [0.0]}
    with pytest.raises(RecordError, match="50"):
        draw("roc_curve", {"curves": [short] * 51})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_a_stranger_sends_is_drawn_or_refused(kind: str, data: st.DataObject) -> None:
    keys = sorted({str(path[0]) for path in leaves(ONE_OF_EACH[kind].data)})
    sent = dict(ONE_OF_EACH[kind].data) | data.draw(st.dictionaries(st.sampled_from(keys), JSON, min_size=1))
    with contextlib.suppress(RecordError):
        assert draw(kind, sent).startswith(b"\x89PNG")


def test_an_error_inside_matplotlib_refuses_the_figure_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OverflowError("a number that no check foresaw")

    monkeypatch.setattr(Axes, "barh", broken)
    with pytest.raises(RecordError, match="no check foresaw"):
        draw("feature_importances", {"names": ["a"], "values": [1.0], "n_features": 1})


def test_a_normalized_matrix_shows_the_share_of_each_row() -> None:
    counts = {"labels": ["a", "b"], "matrix": [[30, 10], [1, 3]], "normalized": True}
    shares = {"labels": ["a", "b"], "matrix": [[0.75, 0.25], [0.25, 0.75]], "normalized": True}
    assert draw("confusion_matrix", counts) == draw("confusion_matrix", shares)


def test_a_missing_matplotlib_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import overt.optional

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(overt.optional, "is_installed", lambda module: False)
    with pytest.raises(MissingExtra, match=r"overt\[plots\]"):
        draw("roc_curve", {"curves": []})


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values that are read, following only the first entry of a list: the others are read alike."""
    found = [path] if path else []
    if isinstance(data, dict):
        for key, value in data.items():
            if key != "weight":  # of a calibration curve, for whoever reads the report; nothing draws it
                found += leaves(value, (*path, key))
    elif isinstance(data, list) and data:
        found += leaves(data[0], (*path, 0))
    return found


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(data)
    changed[path[0]] = replaced(data[path[0]], path[1:], value)
    return changed


def is_as_good(data: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Whether ``value`` is as valid as what it replaces, so that there is nothing to refuse."""
    old = data
    for key in path:
        old = old[key]
    if path == ("curves",):
        return bool(value == [])
    if path in {("scores", 0), ("stds", 0), ("panels", 0, "values", 0)}:
        return value is None or value == 3 or value != value or (path[0] == "panels" and value == "x")
    if path == ("best",):
        return value is None or (type(value) is int and value == 3)
    if path[-1] in {"auc", "average_precision", "prevalence"}:
        return value is None or value == 3 or (isinstance(value, float) and math.isnan(value))
    if isinstance(old, bool | str):
        return type(value) is type(old)
    return isinstance(old, int | float) and type(value) is int and value == 3
