"""A matrix is readable at any size: numbers in the cells while they fit, a colour bar where they do not."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from overt.errors import RecordError
from overt.figures.canvas import FAINT, INK, MUTED, label_axes, name_ticks, new_axes, new_figure, png
from overt.figures.checks import MAX_SIDE, flag, item, items, number, texts

_MAX_LABELLED = 60
_MAX_WITH_NUMBERS = 20
_MAX_WITH_ZEROS = 10  # beyond it an empty cell reads as zero, better and faster than a page of zeros
_ROTATED_FROM = 15


def draw_confusion_matrix(data: Mapping[str, Any]) -> bytes:
    """Draw rows of true classes against columns of predicted ones, as counts or as shares of each row.

    ``labels``, ``matrix`` and ``normalized``; with ``columns`` the columns bear names of their own.
    """
    rows = texts(data, "labels", limit=MAX_SIDE)
    columns = texts(data, "columns", limit=MAX_SIDE) if "columns" in data else rows
    counts = _matrix(data, shape=(len(rows), len(columns)))
    normalized = flag(data, "normalized")
    values = _shares(counts) if normalized else counts
    has_numbers = max(counts.shape) <= _MAX_WITH_NUMBERS

    figure = new_figure(*_size(counts.shape))
    axes = new_axes(figure, title="Confusion matrix" + (", share of each row" if normalized else ""))
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
    axes.grid(visible=False)
    top = 1.0 if normalized else max(float(values.max()), 1e-12)
    colours = colormaps["Blues"].with_extremes(bad="#f0f0f0", under="white")
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=0.0, vmax=top, interpolation="nearest", aspect="auto",
        origin="upper", resample=True, interpolation_stage="data",
    )  # fmt: skip
    _label(axes, rows, columns, is_square=columns is rows)
    if has_numbers:
        _write_numbers(axes, values, top, normalized=normalized)
    else:
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.ax.tick_params(labelsize=8, color=MUTED, labelcolor=INK)
        bar.ax.minorticks_off()
        bar.outline.set(edgecolor=FAINT, linewidth=0.8)
        bar.set_ticks(ticks := [0.0, top / 2, top], labels=[_number(tick, normalized=normalized) for tick in ticks])
    return png(figure)


def _matrix(data: Mapping[str, Any], *, shape: tuple[int, int]) -> NDArray[np.float64]:
    def row(value: Any) -> list[float]:
        cells = items(value, number, name="matrix", limit=MAX_SIDE)
        if len(cells) != shape[1]:
            raise RecordError(f"each row of a figure's matrix must have {shape[1]} cells (got {len(cells)})")
        return cells

    rows = items(item(data, "matrix"), row, name="matrix", limit=MAX_SIDE)
    if len(rows) != shape[0] or not rows or not rows[0]:
        raise RecordError(f"a figure's matrix must have a row for each of {shape[0]} labels (got {len(rows)})")
    return np.array(rows, dtype=np.float64)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    totals = counts.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals != 0)
    return shares


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    if max(shape) > _MAX_WITH_NUMBERS:
        return 8.0, 7.0
    return 6.0 + 0.22 * max(0, shape[1] - 8), 5.0 + 0.2 * max(0, shape[0] - 8)


def _width(name: str) -> int:
    """Width of a name in letters; those of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)


def _label(axes: Axes, rows: list[str], columns: list[str], *, is_square: bool) -> None:
    label_axes(axes, x="Predicted" if is_square else "Outcome", y="True" if is_square else "Label")
    size = 9 if max(len(rows), len(columns)) <= 15 else 7 if max(len(rows), len(columns)) <= 40 else 5.5
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        name_ticks(axis, names, size=size, every=max(1, -(-len(names) // _MAX_LABELLED)))
    if len(columns) > _ROTATED_FROM:
        axes.tick_params(axis="x", labelrotation=90)
    elif max(map(_width, columns)) * len(columns) > 55:  # letters that fit side by side in 6 inches
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _write_numbers(axes: Axes, values: NDArray[np.float64], top: float, *, normalized: bool) -> None:
    numbers = [[_number(value, normalized=normalized) for value in row] for row in values.tolist()]
    longest = max(len(cell) for row in numbers for cell in row)
    cell_points = 72 * 0.8 * _size(values.shape)[0] / values.shape[1]
    size = max(5.0, min(12.0, cell_points / max(longest, 2) * 1.2))
    has_zeros = max(values.shape) <= _MAX_WITH_ZEROS
    for y, row in enumerate(numbers):
        for x, cell in enumerate(row):
            if has_zeros or values[y, x] != 0:
                colour = "white" if values[y, x] > 0.55 * top else INK
                text = axes.text(x, y, cell, ha="center", va="center", fontsize=size, color=colour)
                text.set_in_layout(False)  # it stays inside the axes, and measuring it twice would take half the time


def _number(value: float, *, normalized: bool) -> str:
    if value != value:
        return "–"
    if normalized:
        return f"{value:.2f}"
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value.is_integer() else f"{value:.3g}" if abs(value) < 1e3 else f"{value:,.0f}"
