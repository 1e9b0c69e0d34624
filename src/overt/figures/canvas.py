"""One look for every figure, set on the objects themselves: matplotlib's global settings are neither read nor changed.

Ticks are computed and labelled here for the same reason, since a formatter of matplotlib's own asks the settings
whether to write numbers in TeX.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

DPI = 120
INK = "#24292f"
MUTED = "#6e7781"
FAINT = "#d8dee4"
PALETTE = (
    "#2563a8", "#d9652b", "#2e8b57", "#b03a5b", "#7a5ab5", "#8c6239", "#c77bb0", "#5b6670", "#a3a32e", "#2aa7b8",
)  # fmt: skip

# Fonts with Korean, Chinese and Japanese letters, on Linux, macOS and Windows; the first one installed is the fallback.
_CJK_FONTS = (
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans CJK JP",
    "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip


_TITLE = "title"  # the id that makes a text bold

Corner = Literal["upper left", "lower left", "lower right"]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure, in inches."""
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", edgecolor="white", layout=layout)
    figure.subplotpars.update(left=0.125, right=0.9, bottom=0.11, top=0.88, wspace=0.2, hspace=0.2)
    return figure


def new_axes(figure: Figure, *, rows: int = 1, columns: int = 1, position: int = 1, title: str = "") -> Axes:
    """Add plain axes: a thin frame on the left and at the bottom, and a faint grid behind."""
    axes = figure.add_subplot(rows, columns, position, facecolor="white")
    axes.set_axisbelow(True)
    axes.minorticks_off()
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, linewidth=0.8)
    axes.tick_params(which="major", direction="out", length=3, width=0.8, pad=4, color=MUTED)
    axes.tick_params(which="major", labelcolor=INK, labelsize=9, labelbottom=True, labelleft=True)
    axes.tick_params(which="major", top=False, right=False, labeltop=False, labelright=False, bottom=True, left=True)
    axes.grid(visible=True, which="major", axis="both", color=FAINT, linewidth=0.6, linestyle="-", alpha=1.0)
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=8, y=None, gid=_TITLE)
    return axes


def name_figure(figure: Figure, title: str) -> None:
    """Put a title above all panels of a figure, in the look of the title of axes."""
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK, gid=_TITLE)


def label_axes(axes: Axes, *, x: str, y: str) -> None:
    """Name both axes."""
    axes.set_xlabel(x, fontsize=10, color=INK, labelpad=5, loc="center")
    axes.set_ylabel(y, fontsize=10, color=INK, labelpad=5, loc="center")


def scale(axis: Axis, low: float, high: float, *, margin: float = 0.04, nbins: int = 6, whole: bool = False) -> None:
    """Let an axis run from ``low`` to ``high`` with a margin, with round numbers for ticks, or with whole ones."""
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):  # nothing to spread: one value, or values that print alike
        span = abs(high) or 1.0
    low, high = low - margin * span, high + margin * span
    if low == high:  # a value so small that its margin is lost
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(nbins, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1 if whole else 2)
    ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    axis.set_ticks(ticks, labels=_tick_labels(ticks))
    set_limits = axis.axes.set_xlim if isinstance(axis, XAxis) else axis.axes.set_ylim
    set_limits(low, high)


def name_ticks(axis: Axis, names: Sequence[str], *, size: float = 9, every: int = 1) -> None:
    """Put names at 0, 1, 2, …, or at every n-th of them."""
    axis.set_ticks(list(range(0, len(names), every)), labels=list(names[::every]), fontsize=size)


def legend(axes: Axes, *, beside: bool, location: Corner) -> None:
    """Add a legend inside the axes, or beside them where it is long."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    drawn = axes.legend(
        handles,
        names,
        loc="upper left" if beside else location,
        bbox_to_anchor=(1.01, 1.0) if beside else None,
        fontsize=7.5 if beside else 8.5,
        frameon=not beside,
        facecolor="white",
        edgecolor=FAINT,
        labelcolor=INK,
        framealpha=0.9,
        fancybox=True,
        shadow=False,
        borderpad=0.5,
        borderaxespad=0.6,
        labelspacing=0.4,
        handlelength=1.6,
        handletextpad=0.6,
        numpoints=1,
        markerscale=1.0,
    )
    drawn.get_frame().set_linewidth(0.8)


def png(figure: Figure) -> bytes:
    """Render a finished figure, once its lines and letters no longer depend on any setting.

    Text is letters in a known font: never mathematics, never TeX.
    """
    family = [*_families()]
    for line in figure.findobj(Line2D):
        assert isinstance(line, Line2D)
        line.set_solid_capstyle("butt")
        line.set_dash_capstyle("butt")
        line.set_solid_joinstyle("round")
        line.set_dash_joinstyle("round")
        line.set_antialiased(True)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
        text.set_antialiased(True)
        text.set_fontfamily(family)
        text.set_fontweight("bold" if text.get_gid() == _TITLE else "normal")
        text.set_fontstyle("normal")
        text.set_fontvariant("normal")
        text.set_fontstretch("normal")
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return image.getvalue()


@cache
def _families() -> tuple[str, ...]:
    """DejaVu Sans, which comes with matplotlib, and a font for CJK letters if one is installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *[name for name in _CJK_FONTS if name in installed][:1])


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    if len(ticks) < 2:
        return [f"{tick:g}" for tick in ticks]
    largest, step = max(map(abs, ticks)), ticks[1] - ticks[0]
    if largest >= 1e7 or largest < 1e-4:
        return [f"{tick:.{max(0, math.ceil(math.log10(largest / step)))}e}" for tick in ticks]
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    decimals += not math.isclose(step * 10**decimals, round(step * 10**decimals))  # steps of 2.5
    return [f"{0.0 if abs(tick) < step / 1e6 else tick:,.{decimals}f}" for tick in ticks]
