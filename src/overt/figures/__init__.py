"""The only room that imports matplotlib, and only through its objects: no pyplot, no changed setting, no window.

The data to draw may come from a stranger's journal. It is read as numbers and short texts of bounded size, and
whatever is not that ends in a RecordError; text is drawn letter by letter, never as mathematics or TeX. A style of
the user's own does not reach an image.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

from overt.errors import RecordError
from overt.optional import require

# Kind of figure: the module here that draws it. Its function is called ``draw_<kind>``.
_MODULES = {
    "confusion_matrix": "matrices",
    "roc_curve": "curves",
    "precision_recall_curve": "curves",
    "calibration_curve": "curves",
    "feature_importances": "bars",
    "cluster_sizes": "bars",
    "residuals": "points",
    "predicted_vs_actual": "points",
    "search_scores": "search",
}
KINDS = frozenset(_MODULES)


def draw(kind: str, data: Mapping[str, Any]) -> bytes:
    """Draw one figure.

    Parameters
    ----------
    kind : str
        One of ``overt.figures.KINDS``.
    data : Mapping[str, Any]
        What :class:`overt.evaluation.report.FigureSpec` holds for that kind, possibly after a trip through JSON.

    Returns
    -------
    bytes
        A PNG image at 120 dots per inch.

    Raises
    ------
    RecordError
        For an unknown kind, and for data of any other shape or size than the kind needs.
    MissingExtra
        When matplotlib is not installed.
    """
    if not isinstance(kind, str) or kind not in _MODULES:
        raise RecordError(f"a figure must be one of {', '.join(sorted(KINDS))} (got {kind!r:.80})")
    if not isinstance(data, Mapping):
        raise RecordError(f"the data of a {kind} figure must be a mapping (got {type(data).__name__})")
    with warnings.catch_warnings():
        # A glyph that no font has is drawn as a box, and matplotlib's imports may grumble at each other's age: nobody
        # reads a warning here.
        warnings.simplefilter("ignore")
        require("matplotlib", extra="plots")
        module = importlib.import_module(f"overt.figures.{_MODULES[kind]}")
        try:
            image: bytes = getattr(module, f"draw_{kind}")(data)
        except RecordError:
            raise
        except Exception as error:
            # The checks name every malformation that is known; what slips through them must not stop a delivery.
            raise RecordError(f"a {kind} figure could not be drawn: {type(error).__name__}: {error}") from error
    return image
