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
d2_absolute_error d2_pinball d2_log_loss d2_brier d2_tweedie matthews_corrcoef mcc cohen_kappa kappa jaccard iou dice
silhouette calinski_harabasz adjusted_rand adjusted_mutual_info normalized_mutual_info mutual_info rand v_measure
homogeneity completeness fowlkes_mallows bleu rouge score
""".split()
_BETTER_LOW = """
loss log_loss error rmse rmsle mse msle mae mape smape brier brier_score deviance nll perplexity cross_entropy
crossentropy davies_bouldin inertia wer cer fid mean_poisson_deviance mean_gamma_deviance mean_tweedie_deviance
""".split()
_MEASURED_BY_PART = "precision recall f1_score rmse mae r2".split()
"""Of these overt records one for each class or output, whose name may be anything."""
_DIRECTIONS: dict[str, Mode] = {**dict.fromkeys(_BETTER_HIGH, _MAX), **dict.fromkeys(_BETTER_LOW, _MIN)}

_PREFIXES = re.compile(
    r"(?:(?:train|training|val|valid|validation|test|eval(?:_\d+)?|cv(?:_mean)?|best|search|epoch)[_/])+"
)
_ENDINGS = re.compile(  # of the same quantity: another average, threshold or set of data
    r"(?:[_/](?:macro|micro|weighted|samples|binary|ovr|ovo|mean|avg|average|pooled|score|rate|small|medium|large|l|lsum"
    r"|train|training|val|valid|validation|test|step|epoch|(?:at_|top_?)?\d+)|@[\d.:]+)*"
)
_SAYS_NOTHING = re.compile(r"(?:^|[_/])(?:std|var|seconds|time|count)(?:[_/]|$)")
_OF_ANOTHER_KIND = re.compile(  # what is told of a metric, and no class or output
    r"(?:^|[_/])(?:drop|gap|diff|difference|delta|change|gain|improvement|reduction|increase|decrease|variance|ci|width"
    r"|interval|lower|upper|value|pvalue|fpr|fnr|seed|size|scale|weight|threshold|ratio|rank)(?:[_/]|$)"
)
_LOSS = re.compile(r"(?:^|.*[_/])(?:loss|error)(?:_rate)?(?:_step|_epoch)?")


def direction_of(metric: str) -> Mode | None:
    """``"max"`` where higher is better, ``"min"`` where lower is, None where the name does not say.

    Prefixes such as ``val_`` and ``cv_mean_`` change nothing, nor do endings such as ``_macro``, ``@10`` or, of what
    is recorded class by class and output by output, a name of one. What another word follows, as in ``accuracy_drop``,
    is another quantity, and the name does not say. scikit-learn's ``neg_…`` is better high, whatever follows.
    """
    spelled = re.sub(r"[ -]", "_", metric.lower())
    name = spelled.removeprefix(_leading(spelled))
    if name.startswith("neg_"):
        return "max"
    known = max((known for known in _DIRECTIONS if name.startswith(known)), key=len, default="")
    if known and _ENDINGS.fullmatch(name, len(known)):
        return _DIRECTIONS[known]
    if _SAYS_NOTHING.search(name):
        return None
    if _LOSS.fullmatch(name):
        return "min"
    is_part = name.startswith(tuple(f"{part}_" for part in _MEASURED_BY_PART)) and not _OF_ANOTHER_KIND.search(name)
    return _DIRECTIONS[known] if is_part else None


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
