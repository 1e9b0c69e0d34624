"""A search candidate by candidate: the mean score against each varied parameter, as in Optuna's slice plot.

Every panel shows the same candidates on the same scale of scores, so that panels can be compared; what is left out
(failed candidates, categories, parameters) is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from overt.errors import RecordError
from overt.figures.canvas import PALETTE, label_axes, name_figure, name_ticks, new_axes, new_figure, png, scale
from overt.figures.checks import MAX_POINTS, item, items, maybe_number, number, text

_MAX_PANELS = 6
_MAX_SENT_PANELS = 1_000
_MAX_CATEGORIES = 20
_LETTERS_SIDE_BY_SIDE = 34  # of the labels below a panel; beyond it they stand aslant
_MAX_ASLANT = 8  # of those; more stand upright
_LOGARITHMIC_FROM = 100.0  # the ratio of the largest to the smallest value

_Value = float | str | None


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Scores of the candidates, NaN for those that failed; ``best`` is the index of one."""

    scores: list[float]
    stds: list[float]
    best: int | None

    @property
    def failed(self) -> int:
        return sum(map(math.isnan, self.scores))

    def ends(self, index: int) -> tuple[float, float]:
        """One standard deviation below and above a score."""
        std = 0.0 if math.isnan(self.stds[index]) else abs(self.stds[index])
        return self.scores[index] - std, self.scores[index] + std


@dataclass(frozen=True, slots=True)
class _Panel:
    param: str
    values: list[_Value]


def draw_search_scores(data: Mapping[str, Any]) -> bytes:
    """Draw the mean score of every candidate of a hyper-parameter search by each varied parameter, the best in colour.

    ``scorer``, ``n_candidates``, ``scores`` and ``stds`` (null for a failed candidate), ``best`` (an index or null),
    and ``panels`` of ``param`` and ``values``: numbers, texts, or null for a candidate without that parameter.
    """
    scorer, n_candidates = text(item(data, "scorer")), int(number(item(data, "n_candidates")))
    candidates = _candidates(data)
    panels = _panels(data, count=len(candidates.scores))
    shown = panels[:_MAX_PANELS]
    columns = min(len(shown), 2 if len(shown) == 4 else 3)
    rows = -(-len(shown) // columns)
    figure = new_figure(6.0 if columns == 1 else 3.7 * columns, 4.4 if rows == 1 else 3.5 * rows)
    name_figure(
        figure,
        f"Mean {scorer}\n" + _summary(candidates, n_candidates=n_candidates, n_shown=len(shown), n_panels=len(panels)),
    )
    for index, panel in enumerate(shown):
        axes = new_axes(figure, rows=rows, columns=columns, position=index + 1)
        x, note = _place(axes, panel.values, candidates.best)
        _scatter(axes, x, candidates)
        label_axes(axes, x=panel.param + note, y="Mean score" if index % columns == 0 else "")
    return png(figure)


def _candidates(data: Mapping[str, Any]) -> _Candidates:
    scores, stds = (
        [
            math.nan if value is None else value
            for value in items(item(data, key), maybe_number, name=key, limit=MAX_POINTS)
        ]
        for key in ("scores", "stds")
    )
    if len(scores) != len(stds):
        raise RecordError("'scores' and 'stds' of a figure must have the same length")
    best = item(data, "best")
    if best is not None and (type(best) is not int or not 0 <= best < len(scores)):
        raise RecordError(f"'best' of a figure must be the index of one of {len(scores)} candidates, or null")
    return _Candidates(scores, stds, best)


def _panels(data: Mapping[str, Any], *, count: int) -> list[_Panel]:
    def read(panel: Any) -> _Panel:
        values = items(item(panel, "values"), _value, name="values", limit=MAX_POINTS)
        if len(values) != count:
            raise RecordError(f"'values' of a figure must hold one for each of {count} candidates (got {len(values)})")
        return _Panel(text(item(panel, "param")), values)

    panels = items(item(data, "panels"), read, name="panels", limit=_MAX_SENT_PANELS)
    if not panels:
        raise RecordError("'panels' of a figure must hold at least one parameter")
    return panels


def _value(value: Any) -> _Value:
    return value if isinstance(value, str) else maybe_number(value)


def _summary(candidates: _Candidates, *, n_candidates: int, n_shown: int, n_panels: int) -> str:
    count, best = len(candidates.scores), candidates.best
    counted = f"{count:,} of {n_candidates:,}" if n_candidates > count else f"{count:,}"
    words = [f"{counted} candidate{'s' if max(n_candidates, count) != 1 else ''}"]
    if candidates.failed:
        words.append(f"{candidates.failed:,} failed")
    if best is not None and not math.isnan(candidates.scores[best]):
        words.append(f"best {candidates.scores[best]:.4g}")
    if n_panels > n_shown:
        words.append(f"{n_shown} of {n_panels} parameters")
    return ", ".join(words)


def _place(axes: Axes, values: Sequence[_Value], best: int | None) -> tuple[list[float], str]:
    """Scale the x axis for these values; return where each of them lies (NaN: nowhere), and a note for the label."""
    numbers = [value for value in values if isinstance(value, float)]
    if any(isinstance(value, str) for value in values):
        return _place_categories(axes, values, best)
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    if low > 0 and high > _LOGARITHMIC_FROM * low:
        _scale_decades(axes, math.log10(low), math.log10(high))
        return [math.log10(value) if isinstance(value, float) else math.nan for value in values], ""
    scale(axes.xaxis, low, high, whole=all(value.is_integer() for value in numbers))
    return [value if isinstance(value, float) else math.nan for value in values], ""


def _scale_decades(axes: Axes, low: float, high: float) -> None:
    scale(axes.xaxis, low, high)
    decades = list(range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1))
    decades = decades[:: -(-len(decades) // 6)]
    axes.xaxis.set_ticks(decades, labels=[f"{10.0**k:g}" if -4 <= k <= 4 else f"1e{k}" for k in decades])


def _place_categories(axes: Axes, values: Sequence[_Value], best: int | None) -> tuple[list[float], str]:
    known = list(dict.fromkeys(value for value in values if value is not None))
    shown = known[:_MAX_CATEGORIES]
    if best is not None and values[best] is not None and values[best] not in shown:
        shown[-1] = values[best]  # type: ignore[assignment]
    names = [text(value) if isinstance(value, str) else f"{value:g}" for value in shown]
    axes.grid(visible=False, axis="x")
    name_ticks(axes.xaxis, names, size=9 if len(names) <= 8 else 7.5)
    letters = sum(map(len, names)) + 2 * len(names)
    if letters > _LETTERS_SIDE_BY_SIDE and len(names) > _MAX_ASLANT:
        axes.tick_params(axis="x", labelrotation=90)
    elif letters > _LETTERS_SIDE_BY_SIDE:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)
    note = f" ({len(shown)} of {len(known)} values)" if len(known) > len(shown) else ""
    return _side_by_side(values, shown), note


def _side_by_side(values: Sequence[_Value], categories: Sequence[_Value]) -> list[float]:
    """Candidates of one category next to each other, so that their error bars can be told apart."""
    places = [math.nan] * len(values)
    for position, category in enumerate(categories):
        members = [index for index, value in enumerate(values) if value is not None and value == category]
        for rank, index in enumerate(members):
            places[index] = position + 0.5 * ((rank + 0.5) / len(members) - 0.5)
    return places


def _scatter(axes: Axes, x: Sequence[float], candidates: _Candidates) -> None:
    scores, best = candidates.scores, candidates.best
    crowded = len(scores) > 100
    drawn = [index for index in range(len(scores)) if not math.isnan(x[index]) and not math.isnan(scores[index])]
    for indices, colour, alpha, size in (
        ([index for index in drawn if index != best], PALETTE[0], 0.45 if crowded else 0.8, 2.8 if crowded else 4.5),
        ([index for index in drawn if index == best], PALETTE[1], 1.0, 6.0),
    ):
        at, middle = [x[index] for index in indices], [scores[index] for index in indices]
        low, high = zip(*(candidates.ends(index) for index in indices), strict=True) if indices else ((), ())
        axes.vlines(
            at, low, high, colors=colour, linestyles="solid", linewidths=1.0, alpha=0.5 * alpha, antialiaseds=True,
            zorder=2,
        )  # fmt: skip
        axes.plot(
            at, middle, linestyle="none", marker="o", markersize=size, markerfacecolor=colour, markeredgecolor="none",
            markeredgewidth=0.0, alpha=alpha, antialiased=True, zorder=3,
        )  # fmt: skip
    _scale_scores(axes, candidates)


def _scale_scores(axes: Axes, candidates: _Candidates) -> None:
    """One scale for all panels: that of all candidates, drawn here or not."""
    scored = [index for index, score in enumerate(candidates.scores) if not math.isnan(score)]
    ends = [end for index in scored for end in candidates.ends(index)]
    scale(axes.yaxis, min(ends, default=0.0), max(ends, default=1.0))
