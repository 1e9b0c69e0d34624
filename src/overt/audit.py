"""The trail from a model, or a run, back to what it was made of, from the store alone; a gap in it is said, not hidden.

The store is the witness: nothing of this machine (its journals, repository, environment) enters a trail, so two people
who read the same store see the same. What a store holds may have been written by anybody with access to it; only the
SHA-256 of a model's files is checked here, against the one that was recorded when the model was delivered.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from overt.errors import ConfigurationError, ModelNotFound, ModelRefused, RunNotFound, StoreError
from overt.query.datasets import identity_of, of_training
from overt.query.directions import direction_of
from overt.query.finding import find_run, open_configured
from overt.query.gaps import iter_gaps, named
from overt.query.origin import Origin, origin_of
from overt.records import Metric, ModelVersion, Promotion, RunDetails
from overt.stores.protocols import ModelSource, QueryStore, RegistryStore, RestoringStore, Store

_OF_TRAINING = ("train_", "training_", "cv_", "best_cv_", "overt.", "system/")
_REMARKABLE = ("overt.error", "overt.ending", "overt.lost_records", "overt.model_note", "overt.data_note")
_REMARKABLE_STARTS = ("overt.overlap_rows", "param_drift.")


@dataclass(frozen=True, slots=True)
class Score:
    """A score that is none of the training data, as far as the store knows; ``dataset`` is ``name#digest``, or None."""

    name: str
    value: float
    dataset: str | None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model: its SHA-256 as recorded and as it is; None where there is none."""

    path: str
    recorded: str | None
    found: str | None

    @property
    def is_changed(self) -> bool:
        """Whether it is another than was recorded."""
        return self.recorded != self.found


@dataclass(frozen=True, slots=True)
class Trail:
    """What a store knows of a model or a run.

    Attributes
    ----------
    version : ModelVersion or None
        The version that was asked for; None where a run was.
    files : tuple of ModelFile
        Of the version's model, or of the run's models, each below its model's name; of none whose SHA-256 were not
        recorded.
    promotions : tuple of Promotion
        Moves of an alias to this version, and away from it to another, oldest first.
    run : RunDetails or None
        The run that made it; None where there is none to be read.
    origin : Origin or None
        Code, command line, environment, seeds and data of the run.
    scores : tuple of Score
        Those on data that the model was not fitted to, or on data that the store does not name: of each on each data
        the newest. Of a version those of its own model, and of the run's others those that are no other model's.
    missing : tuple of str
        What the trail lacks or leaves in doubt, one sentence each.
    """

    version: ModelVersion | None
    files: tuple[ModelFile, ...]
    promotions: tuple[Promotion, ...]
    run: RunDetails | None
    origin: Origin | None
    scores: tuple[Score, ...]
    missing: tuple[str, ...]


def trail(name: str, store: str | Store | None = None) -> Trail:
    """Follow a model or a run back to what it was made of.

    Parameters
    ----------
    name : str
        ``MODEL@ALIAS`` or ``MODEL/VERSION`` of a registered model, or a run's id, key, name, or ``last``.
    store : str or Store, optional
        Where to look instead of in the configured store.

    Raises
    ------
    ConfigurationError
        When a model is asked for, and the store has no registry.
    ModelNotFound, RunNotFound
        When nothing in the store answers to ``name``.
    StoreUnavailable
        When it does not answer.

    Examples
    --------
    >>> overt.audit.trail("fraud-detector@champion").run.run.tags["mlflow.user"]  # doctest: +SKIP
    'mina'
    """
    opened = open_configured(store)
    version = _version(opened, name)
    if version is None:
        return _followed(opened, None, opened.read_run(_run_id(opened, name)))
    return _followed(opened, version, _run_of(opened, version))


def _version(store: QueryStore, name: str) -> ModelVersion | None:
    """The version that ``name`` means; None if it means a run."""
    model, which = _named_version(name.removeprefix("models:/"))
    if not model or not isinstance(store, RegistryStore):
        return None
    try:
        return store.read_version(model, which)
    except ModelNotFound:
        with suppress(RunNotFound):  # a run may be called so
            find_run(store, name)
            return None
        raise


def _named_version(name: str) -> tuple[str, str]:
    """Model and alias, or number; both empty for a name that has neither."""
    model, _, alias = name.rpartition("@")
    if model and alias:
        return model, alias
    model, _, number = name.rpartition("/")
    return (model, number) if model and (number.isdecimal() or number == "latest") else ("", "")


def _run_id(store: QueryStore, name: str) -> str:
    try:
        return find_run(store, name)
    except RunNotFound as error:
        if "@" in name and not isinstance(store, RegistryStore):
            raise ConfigurationError(
                f"no run is called {name!r}, and this store has no registry to find a model in: registered models need "
                "an MLflow store, such as --store sqlite:///mlflow.db"
            ) from error
        raise


def _run_of(store: QueryStore, version: ModelVersion) -> RunDetails | None:
    if version.run_id is None:
        return None
    try:
        return store.read_run(version.run_id)
    except RunNotFound:
        return None


def _followed(store: QueryStore, version: ModelVersion | None, run: RunDetails | None) -> Trail:
    origin = None if run is None else origin_of(store, run)
    looked = [_looked_at(store, uri, below) for uri, below in _models(version, run)]
    files = tuple(file for look in looked for file in look.files)
    recorded = _recorded_promotions(store, version)
    promotions = tuple(made for made in recorded if version and version.version in (made.version, made.replaced))
    scores = () if run is None else tuple(_iter_scores(store, version, run))
    missing = [*_iter_missing_of_files(files), *(look.doubt for look in looked if look.doubt)]
    missing += _iter_missing_of_version(version, recorded)
    missing += _iter_missing_of_run(version, run)
    if run is not None and isinstance(store, RestoringStore) and (deletion := store.deletion_of(run.run.id)):
        missing.append(deletion)
    if origin is not None:
        missing += iter_gaps(origin)
        missing += _iter_missing_of_scores(scores)
    return Trail(version, files, promotions, run, origin, scores, tuple(missing))


# -- what is known -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """What came of looking at a model's files: them, or a sentence that says why nobody can tell."""

    files: tuple[ModelFile, ...] = ()
    doubt: str | None = None


def _models(version: ModelVersion | None, details: RunDetails | None) -> Iterator[tuple[str, str]]:
    """URI of each model whose files are part of the trail, and what their paths are to begin with."""
    if version is not None:
        yield version.uri, ""
    elif details is not None:
        for name in dict.fromkeys(model.name for model in details.models):
            yield f"runs:/{details.run.id}/{name}", f"{name}/"


def _looked_at(store: QueryStore, uri: str, below: str) -> _Look:
    """The files of a model, compared; none if nobody recorded what they were, or they are out of reach."""
    whose = f"the files of {below.rstrip('/') or 'the model'}"
    if not isinstance(store, ModelSource):
        return _Look(doubt=f"{whose} could not be looked at: this store gives no models back")
    try:
        with tempfile.TemporaryDirectory(prefix="overt-") as place:
            fetched = store.fetch_model(uri, Path(place))
            recorded = fetched.digests or {}
            found = dict(_iter_digests(fetched.folder)) if recorded else {}
    except (StoreError, ModelNotFound, ModelRefused) as error:
        return _Look(doubt=f"{whose} could not be looked at, so nobody can tell whether they were changed: {error}")
    if not recorded:
        return _Look(doubt=f"the SHA-256 of {whose} was not recorded, so nobody can tell whether they were changed")
    paths = sorted(recorded.keys() | found.keys())
    return _Look(tuple(ModelFile(below + path, recorded.get(path), found.get(path)) for path in paths))


def _iter_digests(folder: Path) -> Iterator[tuple[str, str]]:
    """SHA-256 by path; a link is no file of the model's, so it has none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                yield path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()


def _recorded_promotions(store: QueryStore, version: ModelVersion | None) -> Sequence[Promotion]:
    """Those of every version of the model, oldest first."""
    if version is None or not isinstance(store, RegistryStore):
        return ()
    every = (promotion for other in store.iter_versions(version.name) for promotion in other.promotions)
    return sorted(every, key=lambda made: made.at_ms)


def _iter_scores(store: QueryStore, version: ModelVersion | None, details: RunDetails) -> Iterator[Score]:
    """The newest score on each data; a metric that belongs to no model and no data is one if its name says so."""
    training = of_training(details.datasets)
    for name in sorted(details.run.metrics):
        if name.startswith(_OF_TRAINING):
            continue
        points = sorted(_points(store, version, details, name), key=lambda point: (point.time_ms, point.step))
        newest = {point.dataset: point for point in points}
        for dataset, point in newest.items():
            is_score = point.model or dataset or direction_of(name)
            if is_score and identity_of(dataset) not in training:
                yield Score(name, point.value, dataset)


def _points(store: QueryStore, version: ModelVersion | None, details: RunDetails, metric: str) -> Sequence[Metric]:
    """A metric's points, each with its model and data; of a version its model's own, else those of no model."""
    if isinstance(store, RegistryStore) and version is not None:
        own = _own_scores(store, version, metric)
        if own:
            return [replace(point, model=version.model_uri) for point in own]
    points = list(store.iter_points(details.run.id, metric))
    if isinstance(store, RegistryStore):
        of_models = dict(_iter_of_models(store, details, metric))
        points = [of_models.get((point.step, point.time_ms), point) for point in points]
    return points if version is None else [point for point in points if point.model is None]


def _own_scores(store: RegistryStore, version: ModelVersion, metric: str) -> Sequence[Metric]:
    """None of a model that is gone: that it is, the look at its files says."""
    try:
        return store.read_scores(version, metric)
    except ModelNotFound:
        return ()


def _iter_of_models(store: RegistryStore, details: RunDetails, metric: str) -> Iterator[tuple[tuple[int, int], Metric]]:
    """The points that belong to one of the run's models, by step and time: a registry lists them apart from the run."""
    for model in details.models:
        unregistered = ModelVersion("", "", details.run.id, model.uri, 0)
        for point in _own_scores(store, unregistered, metric):
            yield (point.step, point.time_ms), replace(point, model=model.uri)


# -- what is missing ---------------------------------------------------------------------------------------------------


def _iter_missing_of_files(files: tuple[ModelFile, ...]) -> Iterator[str]:
    changed = [file.path for file in files if file.is_changed]
    if changed:
        yield f"CHANGED: files of the model are not those that were recorded: {named(changed)}"


def _iter_missing_of_version(version: ModelVersion | None, recorded: Sequence[Promotion]) -> Iterator[str]:
    """``recorded`` are the promotions of all versions: only the newest to an alias says who put it where it is."""
    if version is None:
        return
    holders = {made.alias: made.version for made in recorded if made.state == "done"}
    for alias in version.aliases:
        if alias not in holders:
            yield f"who gave it the alias {alias} is not recorded: overt.promote would have done so"
        elif holders[alias] != version.version:
            yield f"who gave it the alias {alias} is not recorded: the last to be promoted was version {holders[alias]}"
    for made in recorded:
        if made.state == "begun" and version.version in (made.version, made.replaced):
            yield f"a promotion to {made.alias} at {made.at_ms} ms was begun and cut off"


def _iter_missing_of_run(version: ModelVersion | None, details: RunDetails | None) -> Iterator[str]:
    if details is None:
        which = version.run_id if version is not None else None
        yield f"run {which}, which made it, is not in the store" if which else "it was made by no run"
        return
    run = details.run
    if run.key is None:
        yield "the run was not recorded by overt, so all that is known is what its own recording kept"
    if run.status != "FINISHED":
        yield f"the run is {run.status}, so it may hold less than it was meant to"
    for what, tag in (("who started the run", "mlflow.user"), ("on which host it ran", "overt.host")):
        if tag not in run.tags:
            yield f"{what} is not recorded"
    yield from _iter_remarks(run.tags)


def _iter_remarks(tags: Mapping[str, str]) -> Iterator[str]:
    for name, text in sorted(tags.items()):
        is_taken_back = name.startswith("overt.overlap_rows") and text == "0"
        if name in _REMARKABLE or (name.startswith(_REMARKABLE_STARTS) and not is_taken_back):
            yield f"{name}: {text}"


def _iter_missing_of_scores(scores: tuple[Score, ...]) -> Iterator[str]:
    if not scores:
        yield "no score on held-out data is recorded"
    unknown = [score.name for score in scores if score.dataset is None]
    if unknown:
        yield f"which data these were taken on is not recorded: {named(unknown)}"
    if any(not math.isfinite(score.value) for score in scores):
        yield f"no finite number: {named([score.name for score in scores if not math.isfinite(score.value)])}"
