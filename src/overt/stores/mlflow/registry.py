"""MLflow's registry as values: versions with their aliases and promotions, and a run's model as one version only.

A promotion is one tag of the version, ``overt.promotion.<alias>.<ms>``, whose text is JSON; only its state is ever
replaced. Scores of a model are taken from its runs' histories, because MLflow's list of a model's metrics gives NaN as
0.0 and infinities as the largest number (3.17, sqlite). Which data they were taken on, only that list says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import entities as mlflow_entities
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException

from overt.errors import ConfigurationError, ModelNotFound, ModelRefused, RunNotFound
from overt.records import FetchedModel, Metric, ModelVersion, Promotion
from overt.stores.mlflow import limits
from overt.stores.mlflow.connection import translated_errors
from overt.stores.mlflow.environment import QUIET, client_is
from overt.stores.mlflow.models import find_model, quoted, recorded_digests, register_version
from overt.stores.mlflow.names import to_mlflow
from overt.stores.mlflow.query import MlflowQuery
from overt.stores.protocols import QueryStore, RegistryStore

PROMOTION_TAG = "overt.promotion."
LATEST = "latest"  # no alias: MLflow and overt refuse to call one so
_PROMOTION = re.compile(rf"{re.escape(PROMOTION_TAG)}(.+)\.(\d+)")
_MODEL_IN_SOURCE = re.compile(r"models:/(?P<id>m-\w+)|.*/models/(?P<place>m-\w+)/artifacts/?", re.DOTALL)
_NOTE_OF_A_READER = "registered_model_meta"
"""What MLflow's own loader leaves beside the files of a model that it does not have to copy, in the store itself: the
name and version under which it was asked for. Nothing reads it when a model is loaded from a folder."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowRegistry(MlflowQuery):
    """The runs of an MLflow server or database for reading, and its registered models for governing."""

    def aliased_run_id(self, model: str, alias: str) -> str:
        """Id of the run that made the version of a registered model which has this alias or number.

        Raises
        ------
        RunNotFound
            When there is no such model, alias or version, or when the version was made by no run.
        """
        try:
            version = self.read_version(model, alias)
        except ModelNotFound as error:
            raise RunNotFound(str(error)) from error
        if version.run_id is None:
            raise RunNotFound(f"version {version.version} of {model!r} ({alias}) was made by no run")
        return version.run_id

    def register_model(self, run_id: str, model: str, name: str) -> ModelVersion:
        """Make the run's model called ``model`` a version of the registered model ``name``, or find that version.

        Raises
        ------
        ModelNotFound
            When the run has no such model, or it is not READY.
        """
        logged = self._ready_model(run_id, model)
        with translated_errors(self._uri):
            made = register_version(self._client, name, logged, run_id)
            return self._version(made, self._aliases(name))

    def describe_version(self, version: ModelVersion, *, description: str | None, tags: Mapping[str, str]) -> None:
        """Replace the description unless it is None, and set ``tags``; other tags stay."""
        with translated_errors(self._uri):
            if description is not None:
                self._client.update_model_version(version.name, version.version, description=description)
            for tag, text in tags.items():
                self._client.set_model_version_tag(version.name, version.version, tag, text)

    def read_version(self, name: str, which: str) -> ModelVersion:
        """The version that has the alias or the number ``which``; ``latest`` is that with the highest number.

        Raises
        ------
        ModelNotFound
            When the registry has no such model, alias or version.
        """
        with translated_errors(self._uri):
            aliases = self._aliases(name)
            if which == LATEST and (newest := next(self.iter_versions(name), None)) is not None:
                return newest
            number = which if which.isdecimal() else aliases.get(which)
            if number is None:
                raise ModelNotFound(f"no version of {name!r} has the alias {which!r}; {_listed(aliases)}")
            return self._version(self._numbered(name, number), aliases)

    def iter_versions(self, name: str) -> Iterator[ModelVersion]:
        """Every version of the registered model, newest first, each with its aliases, tags and promotions.

        Raises
        ------
        ModelNotFound
            When the registry has no such model.
        """
        with translated_errors(self._uri):
            aliases, token = self._aliases(name), None
            while token != "":
                page = self._client.search_model_versions(
                    f"name = {quoted(name)}", order_by=["version_number DESC"], page_token=token
                )
                yield from (self._version(found, aliases) for found in page)
                token = page.token or ""

    def read_scores(self, version: ModelVersion, metric: str) -> Sequence[Metric]:
        """Values of the metric that belong to the version's model, in order of time, each with its ``dataset``.

        Raises
        ------
        ModelNotFound
            When the version's model is gone.
        """
        if version.model_uri is None:
            return ()
        spelled = to_mlflow(metric, limits.NAME_CHARACTERS)
        logged = self._logged(_model_id(version.model_uri))
        given = [m for m in logged.metrics or () if m.key == spelled]
        true = {
            (point.step, point.time_ms): point.value
            for run_id in {m.run_id or version.run_id for m in given} - {None}
            for point in self.iter_points(str(run_id), metric)
        }
        return sorted(
            (
                Metric(metric, true.get((m.step, m.timestamp), math.nan), m.step, m.timestamp, dataset=_dataset(m))
                for m in given
            ),
            key=lambda score: (score.time_ms, score.step),
        )

    def record_promotion(self, promotion: Promotion) -> None:
        """Keep a promotion with its version. One of the same alias and time replaces its ``state``, nothing else."""
        tag = f"{PROMOTION_TAG}{promotion.alias}.{promotion.at_ms}"
        with translated_errors(self._uri):
            self._client.set_model_version_tag(promotion.model, promotion.version, tag, _to_json(promotion))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Have ``alias`` point to the version."""
        with translated_errors(self._uri):
            self._client.set_registered_model_alias(name, alias, version)

    def fetch_model(self, uri: str, folder: Path) -> FetchedModel:
        """Copy a model's files into ``folder``, opening none of them; the digests come from the logged model's tags.

        Raises
        ------
        ModelNotFound
            When nothing answers to ``uri``.
        """
        location, logged = self._place(uri)
        with translated_errors(self._uri), client_is(*QUIET):
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=location, dst_path=str(folder), tracking_uri=self._uri
            )
        digests = recorded_digests(logged) if logged else None
        note = Path(path, _NOTE_OF_A_READER)
        if note.is_file() and _NOTE_OF_A_READER not in (digests or {}):
            note.unlink()
        return FetchedModel(uri, Path(path), digests)

    def load_code(self, fetched: FetchedModel, flavor: str) -> Any:
        """Load a fetched model by its flavor's own loader, which may run any code that the model brings along.

        Raises
        ------
        ModelRefused
            When MLflow cannot make sense of its folder.
        """
        try:
            return _loaded(str(fetched.folder), flavor)
        except MlflowException as error:
            reason = " ".join(str(error).split())[:500]
            raise ModelRefused(f"MLflow does not load {fetched.uri} as flavor {flavor}: {reason}") from error

    # -- finding -------------------------------------------------------------------------------------------------------

    def _ready_model(self, run_id: str, model: str) -> LoggedModel:
        run = self._found(lambda: self._client.get_run(run_id), f"there is no run {run_id}")
        with translated_errors(self._uri):
            logged = find_model(
                self._client, experiment_id=run.info.experiment_id, run_id=run_id, name=model, only_ready=True
            ) or find_model(self._client, experiment_id=run.info.experiment_id, run_id=run_id, name=model)
            if logged is not None and logged.status == LoggedModelStatus.READY:
                return logged
            if logged is not None:
                raise ModelNotFound(
                    f"model {model!r} of run {run_id} is {logged.status}, not READY: its files have not arrived whole. "
                    "overt sync delivers what is left; a FAILED one has to be recorded again"
                )
            others = sorted(
                found.name
                for found in self._client.search_logged_models(
                    [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
                )
            )
        has = (
            f"{', '.join(map(repr, others))}: name it with model="
            if others
            else "none: record one, with log_model=True"
        )
        raise ModelNotFound(f"run {run_id} has no model {model!r}; it has {has}")

    def _place(self, uri: str) -> tuple[str, LoggedModel | None]:
        """Where a model's files are, and the logged model that they are of."""
        scheme, _, rest = uri.partition(":/")
        name, slash, last = rest.strip("/").rpartition("/")
        aliased, at, alias = rest.strip("/").rpartition("@")
        if scheme == "runs" and slash:
            logged = self._ready_model(*rest.strip("/").split("/", 1))
            return logged.artifact_location, logged
        if scheme == "models" and (slash or at):
            version = self.read_version(*((name, last) if slash else (aliased, alias)))
            with translated_errors(self._uri):
                location = self._client.get_model_version_download_uri(version.name, version.version)
            return location, self._logged(_model_id(version.model_uri)) if version.model_uri else None
        if scheme == "models" and last:
            logged = self._logged(last)
            return logged.artifact_location, logged
        raise ConfigurationError(
            f"a model is named by NAME@ALIAS, NAME/VERSION, a models:/ or runs:/RUN/MODEL URI, or a run (got {uri!r})."
        )

    def _logged(self, model_id: str) -> LoggedModel:
        with translated_errors(self._uri):
            try:
                return self._client.get_logged_model(model_id)
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
                raise ModelNotFound(f"there is no model {model_id}") from error

    def _aliases(self, name: str) -> dict[str, str]:
        """Version of each alias of the registered model; MLflow lists versions without theirs."""
        try:
            return {alias: str(number) for alias, number in self._client.get_registered_model(name).aliases.items()}
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            raise ModelNotFound(f"there is no registered model {name!r}: overt.register makes one") from error

    def _numbered(self, name: str, number: str) -> MlflowVersion:
        try:
            return self._client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            raise ModelNotFound(f"{name!r} has no version {number}") from error

    def _version(self, found: MlflowVersion, aliases: Mapping[str, str]) -> ModelVersion:
        tags = dict(found.tags or {})
        promotions = [made for tag, text in tags.items() if (made := _promotion(found, tag, text))]
        kept = {f"{PROMOTION_TAG}{made.alias}.{made.at_ms}" for made in promotions}
        return ModelVersion(
            name=found.name,
            version=str(found.version),
            run_id=found.run_id or None,
            model_uri=_model_uri(found),
            created_ms=found.creation_timestamp or 0,
            aliases=tuple(sorted(alias for alias, number in aliases.items() if number == str(found.version))),
            description=found.description or "",
            tags={tag: text for tag, text in tags.items() if tag not in kept},
            promotions=tuple(sorted(promotions, key=lambda made: made.at_ms)),
        )


def _loaded(folder: str, flavor: str) -> Any:
    if flavor == "sklearn":
        import mlflow.sklearn

        return mlflow.sklearn.load_model(folder)
    if flavor == "pytorch":
        import mlflow.pytorch

        return mlflow.pytorch.load_model(folder)
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(folder)


# -- entities to values ------------------------------------------------------------------------------------------------


def _model_uri(version: MlflowVersion) -> str | None:
    """The logged model of a version; MLflow's databases forget the id that a version was made with (3.17)."""
    named = _MODEL_IN_SOURCE.fullmatch(str(version.source or ""))
    model_id = version.model_id or (named and (named["id"] or named["place"]))
    return f"models:/{model_id}" if model_id else None


def _model_id(model_uri: str) -> str:
    return model_uri.removeprefix("models:/")


def _dataset(metric: mlflow_entities.Metric) -> str | None:
    return f"{metric.dataset_name}#{metric.dataset_digest}" if metric.dataset_digest else None


def _to_json(promotion: Promotion) -> str:
    return json.dumps(
        {
            "state": promotion.state,
            "alias": promotion.alias,
            "source": promotion.source,
            "replaced": promotion.replaced,
            "run_id": promotion.run_id,
            "by": promotion.by,
            "at": promotion.at,
            "metric": promotion.metric,
            "mode": promotion.mode,
            "score": promotion.score,
            "replaced_score": promotion.replaced_score,
            "dataset": promotion.dataset,
        },
        ensure_ascii=False,
    )


def _promotion(version: MlflowVersion, tag: str, text: str) -> Promotion | None:
    """The promotion in a tag; None for a tag that holds none."""
    named = _PROMOTION.fullmatch(tag)
    if named is None:
        return None
    try:
        said = json.loads(text)
        return Promotion(
            model=version.name,
            version=str(version.version),
            alias=named.group(1),
            source=said["source"],
            replaced=said["replaced"],
            run_id=said["run_id"],
            by=said["by"],
            at_ms=int(named.group(2)),
            metric=said["metric"],
            mode=said["mode"],
            score=said["score"],
            replaced_score=said["replaced_score"],
            dataset=said["dataset"],
            state=said["state"],
        )
    except (ValueError, LookupError, TypeError):
        return None


def _listed(aliases: Mapping[str, str]) -> str:
    shown = ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items()))
    return f"it has {shown}" if shown else "it has no alias yet"


def _conforms(registry: MlflowRegistry) -> tuple[QueryStore, RegistryStore]:
    return registry, registry
