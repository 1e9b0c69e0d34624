"""Horizontal bars, since names read best along a line of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from overt.errors import RecordError
from overt.figures.canvas import INK, PALETTE, label_axes, name_ticks, new_axes, new_figure, png, scale
from overt.figures.checks import item, number, numbers, texts

_MAX_BARS = 60


def draw_feature_importances(data: Mapping[str, Any]) -> bytes:
    """Draw the weightiest features, the first at the top; ``names``, ``values``, ``n_features``."""
    names, values = _bars(data, "names", "values", limit=_MAX_BARS)
    n_features = int(number(item(data, "n_features")))
    title = "Feature importances" + (f" ({len(names)} of {n_features:,})" if n_features > len(names) else "")
    return _draw(names, values, title=title, x="Importance", write_counts=False)


def draw_cluster_sizes(data: Mapping[str, Any]) -> bytes:
    """Draw the number of rows in each cluster; ``labels`` and ``sizes``. Of many clusters the largest are drawn."""
    names, sizes = _bars(data, "labels", "sizes", limit=1_000_000)
    title = f"Cluster sizes ({_MAX_BARS} largest of {len(names):,})" if len(names) > _MAX_BARS else "Cluster sizes"
    if len(names) > _MAX_BARS:
        largest = sorted(range(len(sizes)), key=lambda position: -sizes[position])[:_MAX_BARS]
        names, sizes = [names[position] for position in largest], [sizes[position] for position in largest]
    return _draw(names, sizes, title=title, x="Rows", write_counts=True)


def _bars(data: Mapping[str, Any], name_key: str, value_key: str, *, limit: int) -> tuple[list[str], list[float]]:
    names, values = texts(data, name_key, limit=limit), numbers(data, value_key, limit=limit)
    if len(names) != len(values):
        raise RecordError(f"{name_key!r} and {value_key!r} of a figure must have the same length")
    return names, values


def _draw(names: list[str], values: list[float], *, title: str, x: str, write_counts: bool) -> bytes:
    figure = new_figure(6.0, max(2.4, min(12.0, 1.4 + 0.24 * len(names))))
    axes = new_axes(figure, title=title)
    axes.grid(visible=False, axis="y")
    axes.barh(
        range(len(values)), values, height=0.72, color=[PALETTE[0] if value >= 0 else PALETTE[1] for value in values],
        edgecolor="none", linewidth=0, align="center",
    )  # fmt: skip
    name_ticks(axes.yaxis, names, size=8.5)
    axes.tick_params(axis="y", length=0)
    low, high = min([0.0, *values]), max([0.0, *values])
    scale(axes.xaxis, low, high)
    axes.set_xlim(low - 0.04 * (high - low) if low < 0 else 0.0, None)
    axes.set_ylim(len(values) - 0.4, -0.6)
    label_axes(axes, x=x, y="")
    if write_counts:
        _write_counts(axes, values, high)
    return png(figure)


def _write_counts(axes: Axes, values: list[float], high: float) -> None:
    axes.set_xlim(0.0, 1.14 * (high or 1.0))
    for position, value in enumerate(values):
        axes.text(value + 0.012 * high, position, f"{value:,.0f}", va="center", ha="left", fontsize=8, color=INK)
