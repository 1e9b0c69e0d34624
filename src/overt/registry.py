"""Registered models: which version has which name, on whose numbers it got it, and how it is loaded without trust.

An alias moves only after the version that had it was beaten on the same data, where that was asked for; what cannot be
told is refused. Before it moves, the promotion is written down as begun, and as done afterwards: a process that dies
between leaves a record that claims nothing. The registry is MLflow's, and so is its lack of a lock: an alias is read
again just before it is moved, and who moved it within the same moment is not seen.
"""

from __future__ import annotations

import atexit
import math
import posixpath
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from overt import clock
from overt.capture.environment import host, user
from overt.errors import (
    ConfigurationError,
    ModelNotFound,
    OvertWarning,
    PromotionRefused,
    RunNotFound,
    StoreRejected,
)
from overt.models.loading import check_files, check_needs_no_pickle, describe, load_skops
from overt.query.directions import mode_of
from overt.query.finding import find_run, open_configured, run_id_of
from overt.records import FetchedModel, Metric, ModelVersion, Promotion, RunSummary
from overt.run import Run
from overt.stores.protocols import ModelSource, QueryStore, RegistryStore, Store

Mode = Literal["max", "min"]

_MODEL = "model"
_ON_TRAINING_DATA = ("training_", "train_")
_ALIAS = re.compile(r"[\w\-]{1,255}")
_RESERVED_ALIAS = re.compile(r"latest|v?\d+", re.IGNORECASE)
_TAG = re.compile(r"[/\w.\- :]{1,250}")
_NUMBERED = re.compile(r"([^/:]+)/(\d+)")
_ALIASED = re.compile(r"([^/:]+)@([^/:@]+)")


def register(
    run: Run | RunSummary | str,
    name: str,
    *,
    model: str = _MODEL,
    alias: str | None = None,
    description: str | None = None,
    tags: Mapping[str, object] | None = None,
    store: str | Store | None = None,
) -> ModelVersion:
    """Make a run's model a version of a registered model. What this process recorded has arrived before.

    The same model is registered once: a second call finds its version, and adds what it is given to it.

    Parameters
    ----------
    run : Run, RunSummary or str
        A run, or what ``overt show`` takes: an id or its beginning, a name, ``last``.
    name : str
        Of the registered model, which is made if there is none.
    model : str
        Which of the run's models.
    alias : str, optional
        Moved to this version, without any comparison; :func:`promote` compares, and keeps a record.
    description : str, optional
        Replaces the version's.
    tags : mapping, optional
        Set on the version; its other tags stay.
    store : str or Store, optional
        Instead of the configured one.

    Raises
    ------
    RunNotFound
        When no run answers to ``run``, or more than one.
    ModelNotFound
        When the run has no such model, or its files have not arrived whole.
    ConfigurationError
        When the store has no registry, or an argument is none that MLflow takes: then nothing was made.
    StoreError
        When the store is away, or refuses the name.
    """
    _check_name("model", model)
    _check_model_name(name)
    if alias is not None:
        _check_alias(alias)
    if description is not None and not isinstance(description, str):
        raise ConfigurationError(f"`description` must be text (got {description!r}).")
    labels = _labels(tags)
    reading, registry = _open_registry(store)
    version = registry.register_model(run_id_of(reading, run), model, name)
    if description is not None or labels:
        registry.describe_version(version, description=description, tags=labels)
    if alias is not None:
        registry.set_alias(name, alias, version.version)
    return registry.read_version(name, version.version)


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
        Metric to compare by: a held-out score of the version's own model, taken on data of the same digest for both.
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
    _check_model_name(name)
    _check_alias(alias)
    which = _which(source)
    if if_better is not None:
        _check_name("if_better", if_better)
    if mode is not None and if_better is None:
        raise ConfigurationError(f"`mode` says which way `if_better` is better, and needs it (got {mode!r} alone).")
    if mode is not None and if_better is not None:
        mode_of(if_better, mode)  # raises if it is no direction, whether or not there is something to compare with
    reading, registry = _open_registry(store)
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
        begun = _compared(begun, _Shelf(reading, registry), version, current, if_better, mode)
    return _carry_out(begun, registry)


def load_model(
    model: Run | RunSummary | str,
    *,
    allow_pickle: bool = False,
    trusted_types: Sequence[str | type] = (),
    store: str | Store | None = None,
) -> Any:
    """Fetch a model, check each file against the SHA-256 that was recorded with it, and load it.

    Parameters
    ----------
    model : str, Run or RunSummary
        ``"name@alias"``, ``"name/3"``, a ``models:/`` or ``runs:/`` URI; or a run, whose model ``"model"`` it is. A
        run that is called like a version is found where there is no such version.
    allow_pickle : bool
        Load what runs code when it is loaded: pickles, torch modules, with MLflow any other flavor. Without
        it only models recorded with ``model_format="skops"`` are loaded, and nothing in them is run.
    trusted_types : sequence of str or type
        Types that a skops file may name besides scikit-learn's own; that the file brings a list along counts nothing.
    store : str or Store, optional
        Instead of the configured one.

    Raises
    ------
    ModelRefused
        When a file is changed, missing or added; when it takes ``allow_pickle`` or ``trusted_types``.
    ModelNotFound, RunNotFound
        When nothing answers to ``model``.
    ConfigurationError
        When the store gives no models back.
    StoreUnavailable
        When the store is away.

    Warns
    -----
    OvertWarning
        When no SHA-256 was recorded: nobody can say whether the files are those that were trained.
    """
    if isinstance(trusted_types, str | type):
        raise ConfigurationError(f"`trusted_types` must be a sequence of types or their names (got {trusted_types!r}).")
    reading = open_configured(store)
    uri = _model_uri(reading, model)
    if uri.startswith("models:/"):
        _check_registry(reading)
    if not isinstance(reading, ModelSource):
        raise ConfigurationError(f"`store` must be one that gives models back ({type(reading).__name__} does not).")
    place = Path(tempfile.mkdtemp(prefix="overt-model-"))  # of mode 0700: nobody else changes what was checked
    is_kept = False
    try:
        fetched = reading.fetch_model(uri, place)
        check_files(fetched.folder, fetched.digests)
        _warn_if_unrecorded(fetched)
        described = describe(fetched.folder)
        if described.skops_file is not None:
            is_recorded = fetched.digests is not None
            return load_skops(described.skops_file, is_recorded=is_recorded, trusted_types=trusted_types)
        if not allow_pickle:
            check_needs_no_pickle(described, uri)
        is_kept = True  # a model of any flavor may read its files later on
        return reading.load_code(fetched, described.flavor)
    finally:
        if is_kept:
            atexit.register(shutil.rmtree, place, ignore_errors=True)
        else:
            shutil.rmtree(place, ignore_errors=True)


# -- promoting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shelf:
    """One store, as what it is to read runs and as what it is to govern models."""

    runs: QueryStore
    registry: RegistryStore

    def iter_scores(self, version: ModelVersion, metric: str) -> Iterator[Metric]:
        """Scores of the version's model, whichever evaluation of its run they are of."""
        for name in (metric, *self._further(version, metric)):
            yield from self.registry.read_scores(version, name)

    def _further(self, version: ModelVersion, metric: str) -> Sequence[str]:
        """What the metric is called where ``evaluate`` took it on a second set of data, a third, and so on."""
        if version.run_id is None:
            return ()
        further = re.compile(rf"eval_\d+_{re.escape(metric)}")
        try:
            names = self.runs.read_run(version.run_id).run.metrics
        except RunNotFound:
            return ()
        return [name for name in names if further.fullmatch(name)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The newest scores of two versions on the same data."""

    score: Metric
    replaced: Metric


def _compared(
    begun: Promotion,
    shelf: _Shelf,
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


def _scores(shelf: _Shelf, version: ModelVersion, metric: str) -> Sequence[Metric]:
    """Oldest first: a step says how far a model was trained, and not which of its scores is the newest."""
    scores = sorted(shelf.iter_scores(version, metric), key=lambda score: (score.time_ms, score.step))
    if not scores:
        raise PromotionRefused(
            f"version {version.version} of {version.name!r} has no {metric!r} that belongs to its model, so nobody can "
            "tell: record one with evaluate(), or run.log_metric(…, model=…, dataset=…), or promote without if_better"
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
    by_digest = {_digest(score): score for score in others}
    for score in reversed(own):
        if _digest(score) is not None and _digest(score) in by_digest:
            return _Pair(score, by_digest[_digest(score)])
    raise PromotionRefused(
        f"{metric} of version {version.version} was taken on {_data_of(own)}, that of version {current.version} on "
        f"{_data_of(others)}: nobody can tell which is better. Evaluate both on the same data"
    )


def _digest(score: Metric) -> str | None:
    return (score.dataset or "").rpartition("#")[2] or None


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


# -- what the caller gave ----------------------------------------------------------------------------------------------


def _check_name(argument: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"`{argument}` must be a name (got {name!r}).")


def _check_model_name(name: object) -> None:
    """Refuse what MLflow would make a registered model of, and then could not look up."""
    _check_name("name", name)
    if isinstance(name, str) and "'" in name and '"' in name:
        raise ConfigurationError(f"`name` must not hold both kinds of quotes: MLflow cannot look it up (got {name!r}).")


def _check_alias(alias: object) -> None:
    """MLflow's own rule, but for a number: that names a version wherever an alias may stand."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        raise ConfigurationError(
            "`alias` must be a name such as 'champion': up to 255 letters, digits, _ and -, and neither 'latest' nor "
            f"a number such as 3 or v3 (got {alias!r})."
        )


def _which(source: object) -> str:
    """Alias or number of a version as text."""
    if isinstance(source, int) and not isinstance(source, bool):
        return str(source)
    if isinstance(source, str) and source:
        return source
    raise ConfigurationError(f"`source` must be an alias or a number of a version (got {source!r}).")


def _labels(tags: object) -> Mapping[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ConfigurationError(f"`tags` must be a mapping from name to value (got {type(tags).__name__}).")
    for tag in tags:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag) or not _is_normal_path(tag):
            raise ConfigurationError(
                f"a name in `tags` must be up to 250 letters, digits, spaces and _ - . : / (got {tag!r})."
            )
    return {tag: str(value) for tag, value in tags.items()}


def _is_normal_path(tag: str) -> bool:
    return posixpath.normpath(tag) == tag and tag != "." and not tag.startswith(("..", "/"))


# -- finding -----------------------------------------------------------------------------------------------------------


def _open_registry(store: str | Store | None) -> tuple[QueryStore, RegistryStore]:
    """The store to work with, as what it is to read runs and as what it is to govern models."""
    opened = open_configured(store)
    return opened, _check_registry(opened)


def _check_registry(store: QueryStore) -> RegistryStore:
    if not isinstance(store, RegistryStore):
        raise ConfigurationError(
            "registered models need an MLflow store, such as store='sqlite:///mlflow.db' or a server's address "
            f"(got a {type(store).__name__})."
        )
    return store


def _model_uri(reading: QueryStore, model: Run | RunSummary | str) -> str:
    if isinstance(model, str):
        if model.startswith(("models:/", "runs:/")):
            return model
        if named := _NUMBERED.fullmatch(model) or _ALIASED.fullmatch(model):
            return _version_uri(reading, model, *named.groups())
    return f"runs:/{run_id_of(reading, model)}/{_MODEL}"


def _version_uri(reading: QueryStore, given: str, name: str, which: str) -> str:
    """The version that ``given`` means; where there is none, the model of the run that is called so."""
    try:
        _check_registry(reading).read_version(name, which)
        return f"models:/{given}"
    except (ModelNotFound, ConfigurationError):
        with suppress(RunNotFound):
            return f"runs:/{find_run(reading, given)}/{_MODEL}"
        raise


def _warn_if_unrecorded(fetched: FetchedModel) -> None:
    if fetched.digests is None:
        warnings.warn(
            f"no SHA-256 was recorded with {fetched.uri}, so nobody can say whether its files are those that were "
            "trained: it was recorded by another tool, or by an older overt. Record it anew to have them checked",
            OvertWarning,
            stacklevel=3,
        )
