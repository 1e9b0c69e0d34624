"""An alias moves only after the version that had it was beaten on the same data, where that was asked for.

What cannot be told is refused. Before the alias moves, the promotion is written down as begun, and as done afterwards:
a process that dies between leaves a record that claims nothing. The registry is MLflow's, and so is its lack of a lock:
an alias is read again just before it is moved, and who moved it within the same moment is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from overt import clock
from overt.capture.environment import host, user
from overt.errors import ConfigurationError, ModelNotFound, PromotionRefused, StoreRejected
from overt.naming import check_alias, check_model_name, check_name, to_version
from overt.query.datasets import identity_of
from overt.query.directions import mode_of
from overt.records import Metric, ModelVersion, Promotion
from overt.registry.shelf import Shelf, open_shelf
from overt.stores.protocols import RegistryStore, Store

Mode = Literal["max", "min"]

_ON_TRAINING_DATA = ("training_", "train_")


def promote(
    name: str,
    source: str | int,
    alias: str,
    *,
    if_better: str | None = None,
    mode: Mode | None = None,
    store: str | Store | None = None,
) -> Promotion:
    """Move ``alias`` to the version that is called ``source``, if it is better than the one that has the alias now.

    Parameters
    ----------
    name : str
        Of the registered model.
    source : str or int
        Alias or number of the version to promote; an alias stays where it is.
    alias : str
        What the version is to be called: letters, digits, ``_`` and ``-``, neither ``latest`` nor a number.
    if_better : str, optional
        Metric to compare by: a held-out score of the version's own model, taken on data of the same digest for both,
        or of the same whole text ``name#…`` where the digest is not overt's.
        On each data set the score that was recorded last counts, whatever its step. What further calls of ``evaluate``
        recorded as ``eval_2_f1_score``, ``eval_3_f1_score``, … is ``f1_score`` on other data. Without ``if_better``
        nothing is compared.
    mode : {"max", "min"}, optional
        Which way the metric is better, where its name does not say.
    store : str or Store, optional
        Instead of the configured one.

    Returns
    -------
    Promotion
        As it is kept with the version: who, when, from which run, on which numbers.

    Raises
    ------
    PromotionRefused
        When the version is not better, when nobody can tell, when it has the alias already, or when somebody else moved
        the alias meanwhile.
    ModelNotFound
        When the registry has no such model, alias or version.
    ConfigurationError
        When the direction of the metric is not known, the store has no registry, or an argument is none.
    StoreError
        When the store is away, or refuses the alias.
    """
    check_model_name(name)
    check_alias(alias)
    which = to_version(source)
    if if_better is not None:
        check_name("if_better", if_better)
    if mode is not None and if_better is None:
        raise ConfigurationError(f"`mode` says which way `if_better` is better, and needs it (got {mode!r} alone).")
    if mode is not None and if_better is not None:
        mode_of(if_better, mode)  # raises if it is no direction, whether or not there is something to compare with
    shelf = open_shelf(store)
    registry = shelf.registry
    version = registry.read_version(name, which)
    current = _holder(registry, name, alias)
    if current is not None and current.version == version.version:
        raise PromotionRefused(f"version {version.version} of {name!r} is {alias} already: nothing was moved")
    begun = Promotion(
        model=name,
        version=version.version,
        alias=alias,
        source=which,
        replaced=current.version if current else None,
        run_id=version.run_id,
        by=f"{user()}@{host()}",
        at_ms=_free_moment(version, alias),
    )
    if if_better is not None:
        begun = _compared(begun, shelf, version, current, if_better, mode)
    return _carry_out(begun, registry)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The newest scores of two versions on the same data."""

    score: Metric
    replaced: Metric


def _compared(
    begun: Promotion,
    shelf: Shelf,
    version: ModelVersion,
    current: ModelVersion | None,
    metric: str,
    mode: Mode | None,
) -> Promotion:
    """The promotion with the numbers that speak for it.

    Raises
    ------
    PromotionRefused
        When they do not, or are not to be had.
    """
    if metric.startswith(_ON_TRAINING_DATA):
        raise PromotionRefused(f"{metric!r} is a score on the data that a model was fitted on: compare held-out ones")
    own = _scores(shelf, version, metric)
    if current is None:
        newest = own[-1]
        _check_is_number(version, newest)
        return replace(begun, metric=metric, mode=mode, score=newest.value, dataset=newest.dataset)
    better = mode_of(metric, mode)
    pair = _newest_on_same_data(metric, version, own, current, _scores(shelf, current, metric))
    _check_is_number(version, pair.score)
    _check_is_number(current, pair.replaced)
    gain = pair.score.value - pair.replaced.value if better == "max" else pair.replaced.value - pair.score.value
    if gain <= 0:
        raise PromotionRefused(
            f"version {version.version} of {begun.model!r} is {'no better' if gain == 0 else 'worse'}: {metric} "
            f"{pair.score.value!r}, and version {current.version}, which is {begun.alias}, has {pair.replaced.value!r} "
            f"on the same data ({pair.score.dataset}; {'higher' if better == 'max' else 'lower'} is better)"
        )
    return replace(
        begun,
        metric=metric,
        mode=better,
        score=pair.score.value,
        replaced_score=pair.replaced.value,
        dataset=pair.score.dataset,
    )


def _scores(shelf: Shelf, version: ModelVersion, metric: str) -> Sequence[Metric]:
    """Held-out ones, oldest first: a step says how far a model was trained, and not which score is the newest."""
    scores = _recorded_scores(shelf, version, metric)
    fitted_to = shelf.training_data(version)
    held_out = [score for score in scores if identity_of(score.dataset) not in fitted_to]
    if not held_out:
        raise PromotionRefused(
            f"version {version.version} of {version.name!r} has {metric!r} only on the data that its model was fitted "
            f"to ({_data_of(scores)}): evaluate it on held-out data"
        )
    return held_out


def _recorded_scores(shelf: Shelf, version: ModelVersion, metric: str) -> Sequence[Metric]:
    try:
        scores = sorted(shelf.iter_scores(version, metric), key=lambda score: (score.time_ms, score.step))
    except ModelNotFound as error:
        raise PromotionRefused(
            f"the model of version {version.version} of {version.name!r} is gone, and its scores with it, so nobody "
            f"can tell: {error}. To move the alias all the same, promote without if_better"
        ) from error
    if not scores:
        raise PromotionRefused(
            f"version {version.version} of {version.name!r} has no {metric!r} that belongs to its model, so nobody can "
            "tell: record one with evaluate(), or with run.log_metric(…, model=…, dataset=…), where run may be "
            "overt.start_run(resume=…), or promote without if_better"
        )
    return scores


def _check_is_number(version: ModelVersion, score: Metric) -> None:
    if not math.isfinite(score.value):
        raise PromotionRefused(
            f"{score.name} of version {version.version} of {version.name!r} is {score.value}, so nobody can tell which "
            "is better"
        )


def _newest_on_same_data(
    metric: str, version: ModelVersion, own: Sequence[Metric], current: ModelVersion, others: Sequence[Metric]
) -> _Pair:
    """The newest score of ``own`` for whose data there is one among ``others``, and the newest of those."""
    by_data = {identity: score for score in others if (identity := identity_of(score.dataset))}
    for score in reversed(own):
        identity = identity_of(score.dataset)
        if identity in by_data:
            return _Pair(score, by_data[identity])
    raise PromotionRefused(
        f"{metric} of version {version.version} was taken on {_data_of(own)}, that of version {current.version} on "
        f"{_data_of(others)}: nobody can tell which is better. Evaluate both on the same data"
    )


def _data_of(scores: Sequence[Metric]) -> str:
    return ", ".join(dict.fromkeys(score.dataset or "unknown data" for score in scores))


def _carry_out(begun: Promotion, registry: RegistryStore) -> Promotion:
    """Write the promotion down, move the alias unless somebody else has moved it, and write down what became of it."""
    registry.record_promotion(begun)
    holder = _holder(registry, begun.model, begun.alias)
    if (holder.version if holder else None) != begun.replaced:
        registry.record_promotion(replace(begun, state="abandoned"))
        has = f"version {holder.version}" if holder else "no version"
        was = f"version {begun.replaced}" if begun.replaced else "no version"
        raise PromotionRefused(
            f"somebody else moved {begun.alias} of {begun.model!r} meanwhile: {has} has it, and it was compared with "
            f"{was}. Promote again to compare with what there is now"
        )
    try:
        registry.set_alias(begun.model, begun.alias, begun.version)
    except StoreRejected:
        registry.record_promotion(replace(begun, state="abandoned"))
        raise
    done = replace(begun, state="done")
    registry.record_promotion(done)
    return done


def _holder(registry: RegistryStore, name: str, alias: str) -> ModelVersion | None:
    """The version that has the alias now."""
    try:
        return registry.read_version(name, alias)
    except ModelNotFound:
        return None


def _free_moment(version: ModelVersion, alias: str) -> int:
    """Now, or the first millisecond from now in which no promotion of the version to the alias is recorded."""
    taken = {made.at_ms for made in version.promotions if made.alias == alias}
    return next(moment for moment in count(clock.now_ms()) if moment not in taken)
