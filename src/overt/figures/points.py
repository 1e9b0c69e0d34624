"""Predictions against the truth, point by point; with several outputs a panel for each, since their units differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from overt.errors import RecordError
from overt.figures.canvas import INK, MUTED, PALETTE, label_axes, new_axes, new_figure, png, scale
from overt.figures.checks import item, items, numbers, paired, text

_MAX_OUTPUTS = 9


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    actual: list[float]
    predicted: list[float]


def draw_residuals(data: Mapping[str, Any]) -> bytes:
    """Draw residuals against predictions, and beside them how often each residual occurs.

    ``outputs`` of ``name``, ``actual``, ``predicted`` and a ``histogram`` of ``edges`` and ``counts``.
    """
    outputs = _outputs(data)
    histograms = [_histogram(item(output, "histogram")) for output in item(data, "outputs")]
    rows = len(outputs)
    figure = new_figure(8.4, 4.2 if rows == 1 else min(3.0 * rows, 18.0))
    for row, (output, (edges, counts)) in enumerate(zip(outputs, histograms, strict=True)):
        residuals = [actual - predicted for actual, predicted in zip(output.actual, output.predicted, strict=True)]
        title = "Residuals" if rows == 1 else f"Residuals of {output.name}"
        axes = new_axes(figure, rows=rows, columns=2, position=2 * row + 1, title=title)
        _scatter(axes, output.predicted, residuals)
        axes.axhline(0.0, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), marker="")
        label_axes(axes, x="Predicted", y="Actual - predicted")
        beside = new_axes(figure, rows=rows, columns=2, position=2 * row + 2, title="Distribution")
        _bars(beside, edges, counts)
    return png(figure)


def draw_predicted_vs_actual(data: Mapping[str, Any]) -> bytes:
    """Draw predictions against the truth with the diagonal; ``outputs`` of ``name``, ``actual`` and ``predicted``."""
    outputs = _outputs(data)
    columns = min(len(outputs), 3)
    rows = -(-len(outputs) // columns)
    figure = new_figure(6.0 if columns == 1 else 3.6 * columns, 5.0 if columns == 1 else 3.4 * rows)
    for position, output in enumerate(outputs, start=1):
        title = "Predicted against actual" if len(outputs) == 1 else output.name
        axes = new_axes(figure, rows=rows, columns=columns, position=position, title=title)
        _scatter(axes, output.actual, output.predicted)
        both = [*output.actual, *output.predicted] or [0.0, 1.0]
        ends = [min(both), max(both)]
        axes.plot(ends, ends, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), marker="", zorder=3)
        scale(axes.xaxis, *ends, nbins=5)
        scale(axes.yaxis, *ends, nbins=5)
        label_axes(axes, x="Actual", y="Predicted")
    return png(figure)


def _outputs(data: Mapping[str, Any]) -> list[_Output]:
    def read(output: Any) -> _Output:
        return _Output(text(item(output, "name")), *paired(output, "actual", "predicted"))

    outputs = items(item(data, "outputs"), read, name="outputs", limit=_MAX_OUTPUTS)
    if not outputs:
        raise RecordError("'outputs' of a figure must hold at least one output")
    return outputs


def _histogram(histogram: Any) -> tuple[list[float], list[float]]:
    edges, counts = numbers(histogram, "edges", limit=1_001), numbers(histogram, "counts", limit=1_000)
    if len(edges) != len(counts) + 1 or sorted(edges) != edges:
        raise RecordError("a figure's histogram must have rising edges, one more than counts")
    return edges, counts


def _scatter(axes: Axes, x: list[float], y: list[float]) -> None:
    crowded = len(x) > 500
    axes.plot(
        x, y, linestyle="none", marker="o", markersize=2.6 if crowded else 4.0, markerfacecolor=PALETTE[0],
        markeredgecolor="none", markeredgewidth=0.0, alpha=0.35 if crowded else 0.6, antialiased=True,
    )  # fmt: skip
    scale(axes.xaxis, min(x, default=0.0), max(x, default=1.0), nbins=5)
    scale(axes.yaxis, min(y, default=0.0), max(y, default=1.0), nbins=5)


def _bars(axes: Axes, edges: list[float], counts: list[float]) -> None:
    axes.grid(visible=False, axis="x")
    axes.stairs(counts, edges, fill=True, color=PALETTE[0], alpha=0.85, linewidth=0)
    axes.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), marker="")
    scale(axes.xaxis, edges[0], edges[-1], nbins=4)
    scale(axes.yaxis, 0.0, max([0.0, *counts]), nbins=5)
    axes.set_ylim(0.0, None)
    label_axes(axes, x="Actual - predicted", y="Rows")
