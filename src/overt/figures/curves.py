"""Curves in the unit square: what a classifier's scores are worth at every threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from overt.figures.canvas import MUTED, PALETTE, label_axes, legend, new_axes, new_figure, png, scale
from overt.figures.checks import MAX_CURVES, item, items, maybe_number, paired, text

_MAX_IN_LEGEND_INSIDE = 6
_CHANCE = {"color": MUTED, "linewidth": 1.0, "linestyle": (0, (4, 3)), "marker": "", "zorder": 1.5}


def draw_roc_curve(data: Mapping[str, Any]) -> bytes:
    """Draw true against false positive rate; ``curves`` of ``name``, ``auc`` and the two rates."""

    def read(curve: Any) -> tuple[str, list[float], list[float]]:
        x, y = paired(curve, "false_positive_rate", "true_positive_rate")
        return _named(curve, "auc", "AUC"), x, y

    curves = _read(data, read)
    figure, axes = _unit_square("ROC curve", len(curves), x="False positive rate", y="True positive rate")
    axes.plot([0, 1], [0, 1], label="_chance", **_CHANCE)  # type: ignore[arg-type]
    _draw_lines(axes, curves)
    legend(axes, beside=len(curves) > _MAX_IN_LEGEND_INSIDE, location="lower right")
    return png(figure)


def draw_precision_recall_curve(data: Mapping[str, Any]) -> bytes:
    """Draw precision against recall; ``curves`` of ``name``, ``average_precision``, ``prevalence`` and the points.

    With a single curve a dashed line marks the prevalence, which is the precision of guessing.
    """

    def read(curve: Any) -> tuple[str, list[float], list[float]]:
        x, y = paired(curve, "recall", "precision")
        return _named(curve, "average_precision", "AP"), x, y

    curves = _read(data, read)
    figure, axes = _unit_square("Precision-recall curve", len(curves), x="Recall", y="Precision")
    if len(curves) == 1 and (prevalence := maybe_number(item(item(data, "curves")[0], "prevalence"))) is not None:
        axes.plot([0, 1], [prevalence, prevalence], label=f"prevalence {prevalence:.3f}", **_CHANCE)  # type: ignore[arg-type]
    _draw_lines(axes, curves, drawstyle="steps-post")
    legend(axes, beside=len(curves) > _MAX_IN_LEGEND_INSIDE, location="lower left")
    return png(figure)


def draw_calibration_curve(data: Mapping[str, Any]) -> bytes:
    """Draw observed against predicted frequency; ``curves`` of ``name`` and the points."""

    def read(curve: Any) -> tuple[str, list[float], list[float]]:
        x, y = paired(curve, "mean_predicted", "fraction_positive")
        return text(item(curve, "name")), x, y

    curves = _read(data, read)
    figure, axes = _unit_square(
        "Calibration curve", len(curves), x="Mean predicted probability", y="Fraction of positives"
    )
    axes.plot([0, 1], [0, 1], label="perfectly calibrated", **_CHANCE)  # type: ignore[arg-type]
    _draw_lines(axes, curves, marker="o", markersize=4.5)
    legend(axes, beside=len(curves) > _MAX_IN_LEGEND_INSIDE, location="upper left")
    return png(figure)


def _read(
    data: Mapping[str, Any], read: Callable[[Any], tuple[str, list[float], list[float]]]
) -> list[tuple[str, list[float], list[float]]]:
    return items(item(data, "curves"), read, name="curves", limit=MAX_CURVES)


def _named(curve: Any, key: str, word: str) -> str:
    area = maybe_number(item(curve, key))
    return text(item(curve, "name")) + (f" ({word} {area:.3f})" if area is not None else "")


def _unit_square(title: str, n_curves: int, *, x: str, y: str) -> tuple[Figure, Axes]:
    figure = new_figure(6.0 if n_curves <= _MAX_IN_LEGEND_INSIDE else 7.4, 5.0)
    axes = new_axes(figure, title=title)
    label_axes(axes, x=x, y=y)
    scale(axes.xaxis, 0.0, 1.0, margin=0.02)
    scale(axes.yaxis, 0.0, 1.0, margin=0.02)
    return figure, axes


def _draw_lines(axes: Axes, curves: list[tuple[str, list[float], list[float]]], **style: Any) -> None:
    style = {"marker": "", "linewidth": 2.0 if len(curves) < 4 else 1.4, **style}
    for position, (name, x, y) in enumerate(curves):
        colour = PALETTE[position % len(PALETTE)]
        dashes = "-" if position < len(PALETTE) else (0, (5, 1.5))
        shown = f" {name}" if name.startswith("_") else name  # a leading underscore hides a legend entry
        axes.plot(x, y, label=shown, color=colour, linestyle=dashes, **style)
