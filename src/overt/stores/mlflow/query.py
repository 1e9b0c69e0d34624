"""Reads MLflow in pages and gives back what was recorded: names, infinities and keys as their run knew them.

The counterpart of :mod:`overt.stores.mlflow.store`: whatever that had to spell differently is undone here.
"""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow import entities as mlflow_entities
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

from overt.errors import OvertWarning, RunNotFound
from overt.records import RunDetails, RunSummary, StoredDataset, StoredFile, StoredModel
from overt.stores.mlflow.connection import connect, translated_errors
from overt.stores.mlflow.names import digest, from_mlflow
from overt.stores.mlflow.store import KEY_TAG
from overt.stores.protocols import QueryStore
from overt.stores.uri import public_name

PAGE_RUNS = 200
"""Runs asked for at a time; each comes with all its params, tags and last values."""

_CUT_NAME = re.compile(r" -- ([0-9a-f]{8})$")
_LARGEST = 1.79e308

T = TypeVar("T")


class MlflowQuery:
    """The runs of an MLflow tracking server or database, for reading.

    Parameters
    ----------
    client : MlflowClient
        Of the server or database.
    uri : str
        Its URI.
    """

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client = client
        self._uri = uri

    @classmethod
    def open(cls, uri: str) -> MlflowQuery:
        """Connect to ``uri``; :func:`overt.query.open_query` has seen that something is there."""
        return cls(connect(uri), uri)

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        """Runs that are not deleted, newest first.

        Raises
        ------
        RunNotFound
            When there is no such experiment.
        """
        experiments = self._experiments(experiment)
        with translated_errors(self._uri):
            if name is not None:
                found = self._search(experiments, f"attributes.run_name LIKE '{_pattern(name)}'")
                yield from (run for run in found if run.name == name)
            elif prefix is not None:
                by_id = self._search(experiments, f"attributes.run_id LIKE '{_pattern(prefix)}%'")
                by_key = self._search(experiments, f"tags.`{KEY_TAG}` LIKE '{_pattern(prefix)}%'")
                begun_so = {run.id: run for run in (*by_id, *by_key) if _begins(run, prefix)}
                yield from sorted(begun_so.values(), key=lambda run: -run.started_ms)
            else:
                yield from self._search(experiments, "")

    def read_run(self, run_id: str) -> RunDetails:
        """Everything that MLflow holds of one run, contents of files excepted.

        Raises
        ------
        RunNotFound
            When there is no such run.
        """
        run = self._found(lambda: self._client.get_run(run_id), f"there is no run {run_id}")
        with translated_errors(self._uri):
            return RunDetails(
                run=_summary(run, self._client.get_experiment(run.info.experiment_id).name),
                points={
                    _name(name, run.data.tags): len(self._client.get_metric_history(run_id, name))
                    for name in run.data.metrics
                },
                datasets=tuple(map(_dataset, run.inputs.dataset_inputs if run.inputs else ())),
                files=tuple(self._iter_files(run_id)),
                models=tuple(self._iter_models(run)),
            )

    def aliased_run_id(self, model: str, alias: str) -> str:
        """Id of the run that made the version of a registered model which has this alias.

        Raises
        ------
        RunNotFound
            When there is no such model or alias, or when the version was made by no run.
        """
        version = self._found(
            lambda: self._client.get_model_version_by_alias(model, alias),
            f"no version of a model {model!r} has the alias {alias!r}",
        )
        if not version.run_id:
            raise RunNotFound(f"version {version.version} of {model!r} ({alias}) was made by no run")
        return str(version.run_id)

    # -- asking --------------------------------------------------------------------------------------------------------

    def _found(self, ask: Callable[[], T], absence: str) -> T:
        """What ``ask`` gives; RunNotFound, in the words of ``absence``, if MLflow knows nothing of the kind."""
        with translated_errors(self._uri):
            try:
                return ask()
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
        raise RunNotFound(f"{absence} in {public_name(self._uri)}")

    def _experiments(self, name: str | None) -> dict[str, str]:
        """Names of the experiments that are not deleted, by id; of one alone if it is named."""
        names: dict[str, str] = {}
        token: str | None = None
        with translated_errors(self._uri):
            while token != "":
                page = self._client.search_experiments(page_token=token)
                names |= {experiment.experiment_id: experiment.name for experiment in page}
                token = page.token or ""
        if name is None:
            return names
        chosen = {experiment_id: known for experiment_id, known in names.items() if known == name}
        if not chosen:
            place = public_name(self._uri)
            raise RunNotFound(f"there is no experiment {name!r} in {place}; there is {_listed(names.values())}")
        return chosen

    def _search(self, experiments: Mapping[str, str], condition: str) -> Iterator[RunSummary]:
        if not experiments:
            return
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                list(experiments), condition, max_results=PAGE_RUNS, order_by=["start_time DESC"], page_token=token
            )
            yield from (_summary(run, experiments[run.info.experiment_id]) for run in page)
            token = page.token or ""

    def _iter_files(self, run_id: str, folder: str | None = None) -> Iterator[StoredFile]:
        for entry in self._client.list_artifacts(run_id, folder):
            if entry.is_dir:
                yield from self._iter_files(run_id, entry.path)
            else:
                yield StoredFile(entry.path, entry.file_size)

    def _iter_models(self, run: mlflow_entities.Run) -> Iterator[StoredModel]:
        """The run's models; where one logged model replaced another of its name, the newest is first."""
        token: str | None = None
        while token != "":
            page = self._client.search_logged_models(
                [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'", page_token=token
            )
            for logged in page:
                flavors = self._flavors(logged) if logged.status == LoggedModelStatus.READY else ()
                yield StoredModel(logged.name, logged.model_uri, str(logged.status), flavors)
            token = page.token or ""

    def _flavors(self, logged: LoggedModel) -> tuple[str, ...]:
        """The ways to load a model, from its MLmodel file; none, and a warning, where that cannot be read from here."""
        try:
            with tempfile.TemporaryDirectory(prefix="overt-") as folder:
                path = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{logged.artifact_location}/MLmodel", dst_path=folder, tracking_uri=self._uri
                )
                return tuple(sorted(yaml.safe_load(Path(path).read_text("utf-8"))["flavors"]))
        except Exception as error:  # noqa: BLE001  it may lie anywhere and hold anything; the run is shown all the same
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            warnings.warn(
                f"what model {logged.name} is cannot be read from here, so nothing but pyfunc is known to load it "
                f"({reason}). Its files are to be in {logged.artifact_location}",
                OvertWarning,
                stacklevel=2,
            )
            return ()


# -- entities to values ------------------------------------------------------------------------------------------------


def _summary(run: mlflow_entities.Run, experiment: str) -> RunSummary:
    raw = run.data.tags
    tags = {_name(name, raw): value for name, value in raw.items()}
    return RunSummary(
        id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment=experiment,
        status=run.info.status,
        started_ms=run.info.start_time or 0,
        ended_ms=run.info.end_time,
        key=tags.get(KEY_TAG),
        metrics={_name(name, raw): _value(name, value, tags) for name, value in run.data.metrics.items()},
        params={_name(name, raw): value for name, value in run.data.params.items()},
        tags=tags,
    )


def _name(name: str, tags: Mapping[str, str]) -> str:
    """The name that was recorded; one that had to be cut comes back from the tag that keeps it."""
    cut = _CUT_NAME.search(name)
    whole = tags.get(f"overt.name.{cut.group(1)}") if cut else None
    if cut and whole is not None and digest(whole) == cut.group(1):
        return whole
    return from_mlflow(name)


def _value(name: str, value: float, tags: Mapping[str, str]) -> float:
    """``value``, infinite again if it was: MLflow holds the largest finite number instead, and a tag says so."""
    is_marked = f"overt.infinite.{name}" in tags or f"overt.infinite.{from_mlflow(name)}" in tags
    return math.copysign(math.inf, value) if is_marked and abs(value) > _LARGEST else value


def _dataset(given: mlflow_entities.DatasetInput) -> StoredDataset:
    context = next((tag.value for tag in given.tags if tag.key == "mlflow.data.context"), "")
    return StoredDataset(given.dataset.name, given.dataset.digest, context, given.dataset.profile or "")


def _begins(run: RunSummary, prefix: str) -> bool:
    return run.id.startswith(prefix) or (run.key or "").startswith(prefix)


def _pattern(text: str) -> str:
    """``text`` for LIKE, each character that could mean something there as "any character": compare what is found."""
    return re.sub(r"[^A-Za-z0-9 .:/-]", "_", text)


def _listed(names: Iterable[str], most: int = 8) -> str:
    known = sorted(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "") or "none"


def _conforms(query: MlflowQuery) -> QueryStore:
    return query
