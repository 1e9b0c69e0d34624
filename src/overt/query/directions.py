"""Which way a metric is better, known from its name; of a name that says nothing the user is asked, never guessed."""

from __future__ import annotations

import re
from typing import Literal

from overt.errors import ConfigurationError

Mode = Literal["max", "min"]

_MAX: Mode = "max"
_MIN: Mode = "min"
_BETTER_HIGH = """
accuracy balanced_accuracy top_k_accuracy acc f1 f1_score fbeta fbeta_score precision average_precision recall
sensitivity specificity roc_auc pr_auc auc auroc auprc ap map ndcg dcg mrr r2 r2_score d2 explained_variance
matthews_corrcoef mcc cohen_kappa kappa jaccard iou dice silhouette calinski_harabasz adjusted_rand
adjusted_mutual_info normalized_mutual_info mutual_info rand v_measure homogeneity completeness fowlkes_mallows bleu
rouge
""".split()
_BETTER_LOW = """
loss log_loss error rmse rmsle mse msle mae mape smape brier brier_score deviance nll perplexity cross_entropy
crossentropy davies_bouldin inertia wer cer fid mean_poisson_deviance mean_gamma_deviance mean_tweedie_deviance
""".split()
_DIRECTIONS: dict[str, Mode] = {**dict.fromkeys(_BETTER_HIGH, _MAX), **dict.fromkeys(_BETTER_LOW, _MIN)}

_PREFIXES = re.compile(
    r"(?:(?:train|training|val|valid|validation|test|eval(?:_\d+)?|cv(?:_mean)?|best|search|epoch)[_/])+"
)
_SUFFIXES = re.compile(r"_(?:step|epoch)$")
_SAYS_NOTHING = re.compile(r"(?:^|[_/])(?:std|var|seconds|time|count)(?:[_/]|$)")
_LOSS = re.compile(r"(?:^|.*[_/])(?:loss|error)")


def direction_of(metric: str) -> Mode | None:
    """``"max"`` where higher is better, ``"min"`` where lower is, None where the name does not say.

    Prefixes such as ``val_`` and ``cv_mean_`` change nothing, nor do endings such as ``_macro`` or a class.
    scikit-learn's ``neg_…`` is better high, whatever follows.
    """
    spelled = re.sub(r"[ -]", "_", metric.lower())
    name = _SUFFIXES.sub("", spelled.removeprefix(_leading(spelled)))
    if name.startswith("neg_") or name == "score":
        return "max"
    if _SAYS_NOTHING.search(name):
        return None
    if _LOSS.fullmatch(name):
        return "min"
    begun = [
        known for known in _DIRECTIONS if name == known or name.startswith((f"{known}_", f"{known}/", f"{known}@"))
    ]
    return _DIRECTIONS[max(begun, key=len)] if begun else None


def mode_of(metric: str, mode: str | None) -> Mode:
    """The direction that was given, else the one that the metric's name says.

    Raises
    ------
    ConfigurationError
        When ``mode`` is no direction, or none is given and the name does not say, or is no text.
    """
    if not isinstance(metric, str):
        raise ConfigurationError(f"`metric` must be a name such as 'f1_score' (got {type(metric).__name__}).")
    if mode not in (None, "max", "min"):
        raise ConfigurationError(f"`mode` must be 'max' or 'min' (got {mode!r}).")
    known = direction_of(metric) if mode is None else _MAX if mode == "max" else _MIN
    if known is None:
        raise ConfigurationError(
            f"whether {metric!r} is better high or low cannot be told from its name: say mode='max' or mode='min'."
        )
    return known


def _leading(name: str) -> str:
    """The prefixes that say where a score comes from."""
    found = _PREFIXES.match(name)
    return found.group() if found else ""
