"""Reads MLflow in pages and gives back what was recorded: names, infinities and keys as their run knew them.

The counterpart of :mod:`overt.stores.mlflow.store`: whatever that had to spell differently is undone here.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow import entities as mlflow_entities
from mlflow.entities import LoggedModel, LoggedModelStatus, ViewType
from mlflow.exceptions import MlflowException

from overt.errors import ArtifactNotFound, RunNotFound
from overt.filters import Condition, Entity, Order
from overt.journal.codec import is_key, is_safe_path
from overt.records import Metric, RunDetails, RunSummary, StoredDataset, StoredFile, StoredModel
from overt.say import warn
from overt.stores.mlflow import limits
from overt.stores.mlflow.connection import connect, translated_errors
from overt.stores.mlflow.environment import BRIEF, QUIET, client_is
from overt.stores.mlflow.names import digest, from_mlflow, to_mlflow
from overt.stores.mlflow.store import KEY_TAG
from overt.stores.protocols import QueryStore, RestoringStore, SearchStore
from overt.stores.uri import is_database, public_name

PAGE_RUNS = 200
"""Runs asked for at a time; each comes with all its params, tags and last values."""

_CUT_NAME = re.compile(r" -- ([0-9a-f]{8})$")
_LARGEST = 1.79e308
_IN_SINGLE_QUOTES = re.compile(r"(?:''|\\'|[^'])*")

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
    def open(cls, uri: str) -> Self:
        """Connect to ``uri``; :func:`overt.query.finding.open_query` has seen that something is there.

        Raises
        ------
        StoreUnavailable
            When a database or server does not answer within seconds: by itself MLflow would try for minutes.
        """
        client = connect(uri)
        if not is_database(uri):
            with translated_errors(uri), client_is(*BRIEF):
                client.search_experiments(max_results=1)
        return cls(client, uri)

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
                yield from self._called(experiments, name)
            elif prefix is not None:
                yield from self._begun_so(experiments, prefix)
            else:
                yield from self._search(experiments, "")

    def deletion_of(self, name: str) -> str | None:
        """That the newest deleted run of this id, key or name is deleted, and how to take it back; None without one."""
        every = self._experiments(None, ViewType.ALL)
        with translated_errors(self._uri):
            found = self._begun_so(every, name, ViewType.DELETED_ONLY) or self._called(
                every, name, ViewType.DELETED_ONLY
            )
            run = next(iter(found), None)
            if run is None:
                return None
            experiment = self._client.get_experiment(self._client.get_run(run.id).info.experiment_id)
            what, restoring = f"run {run.id} ({run.name}) is", f"runs restore --run-id {run.id}"
            if experiment.lifecycle_stage == "deleted":  # its runs go with it, and come back with it
                what = f"run {run.id} ({run.name}) and its experiment {run.experiment!r} are"
                restoring = f"experiments restore --experiment-id {experiment.experiment_id}"
            return f"{what} deleted in MLflow; to take it back: mlflow {restoring}"

    def search_runs(
        self,
        *,
        experiment: str | None = None,
        conditions: Sequence[Condition] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> Iterator[RunSummary]:
        """Runs that are not deleted and fulfil all conditions, in this order; MLflow does the searching.

        Raises
        ------
        RunNotFound
            When there is no such experiment.
        """
        experiments = self._experiments(experiment)
        condition = _filter_text(conditions)
        with translated_errors(self._uri):
            yield from self._search(experiments, condition, order=tuple(map(_order_text, order)), limit=limit)

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

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """The whole history of a metric; none for one that the run has not.

        Raises
        ------
        RunNotFound
            When there is no such run.
        """
        tags = self._found(lambda: self._client.get_run(run_id), f"there is no run {run_id}").data.tags
        marks = {_name(tag, tags): text for tag, text in tags.items()}
        with translated_errors(self._uri):
            for point in self._client.get_metric_history(run_id, to_mlflow(name, limits.NAME_CHARACTERS)):
                yield Metric(name, _value(name, point.value, marks), point.step, point.timestamp)

    def read_file(self, run_id: str, path: str) -> bytes:
        """Content of one artifact.

        Raises
        ------
        ArtifactNotFound
            When the run has none at ``path``.
        """
        if not is_safe_path(path):
            raise ArtifactNotFound(f"no file of a run has such a path: {path!r}")
        folder, _, _ = path.rpartition("/")
        self._found(lambda: self._client.get_run(run_id), f"there is no run {run_id}")
        with translated_errors(self._uri), client_is(*QUIET), tempfile.TemporaryDirectory(prefix="overt-") as place:
            if not any(entry.path == path for entry in self._client.list_artifacts(run_id, folder or None)):
                raise ArtifactNotFound(f"run {run_id} has no file {path}")
            return Path(self._client.download_artifacts(run_id, path, place)).read_bytes()

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

    def _experiments(self, name: str | None, view: int = ViewType.ACTIVE_ONLY) -> dict[str, str]:
        """Names of the experiments that are not deleted, by id; of one alone if it is named."""
        names: dict[str, str] = {}
        token: str | None = None
        with translated_errors(self._uri):
            while token != "":
                page = self._client.search_experiments(view_type=view, page_token=token)
                names |= {experiment.experiment_id: experiment.name for experiment in page}
                token = page.token or ""
        if name is None:
            return names
        chosen = {experiment_id: known for experiment_id, known in names.items() if known == name}
        if not chosen:
            place = public_name(self._uri)
            raise RunNotFound(f"there is no experiment {name!r} in {place}; there is {_listed(names.values())}")
        return chosen

    def _called(
        self, experiments: Mapping[str, str], name: str, view: int = ViewType.ACTIVE_ONLY
    ) -> Iterator[RunSummary]:
        found = self._search(experiments, f"attributes.run_name LIKE '{_pattern(name)}'", view=view)
        return (run for run in found if run.name == name)

    def _begun_so(
        self, experiments: Mapping[str, str], prefix: str, view: int = ViewType.ACTIVE_ONLY
    ) -> list[RunSummary]:
        by_id = self._search(experiments, f"attributes.run_id LIKE '{_pattern(prefix)}%'", view=view)
        by_key = self._search(experiments, f"tags.`{KEY_TAG}` LIKE '{_pattern(prefix)}%'", view=view)
        begun_so = {run.id: run for run in (*by_id, *by_key) if _begins(run, prefix)}
        return sorted(begun_so.values(), key=lambda run: -run.started_ms)

    def _search(
        self,
        experiments: Mapping[str, str],
        condition: str,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> Iterator[RunSummary]:
        """Runs page by page, at most ``limit``; MLflow's own order comes last: newest first, then by id."""
        token: str | None = None
        left = math.inf if limit is None else limit
        while experiments and left > 0 and token != "":
            most = int(min(PAGE_RUNS, left))
            page = self._client.search_runs(
                list(experiments), condition, view, max_results=most, order_by=list(order), page_token=token
            )
            yield from (_summary(run, experiments[run.info.experiment_id]) for run in page)
            left -= len(page)
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
            with client_is(*QUIET), tempfile.TemporaryDirectory(prefix="overt-") as folder:
                path = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{logged.artifact_location}/MLmodel", dst_path=folder, tracking_uri=self._uri
                )
                return tuple(sorted(yaml.safe_load(Path(path).read_text("utf-8"))["flavors"]))
        except Exception as error:  # noqa: BLE001  it may lie anywhere and hold anything; the run is shown all the same
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            warn(
                f"what model {logged.name} is cannot be read from here, so nothing but pyfunc is known to load it "
                f"({reason}). Its files are to be in {logged.artifact_location}"
            )
            return ()


# -- what is asked, in MLflow's words ----------------------------------------------------------------------------------


def _filter_text(conditions: Sequence[Condition]) -> str:
    """All conditions; a text that ends in a backslash comes last, because MLflow would look behind it for its end."""
    last = sorted(conditions, key=lambda condition: str(condition.value).endswith("\\"))
    return " AND ".join(map(_condition_text, last))


def _condition_text(condition: Condition) -> str:
    value = condition.value
    text = "" if value is None else _text_list(value) if isinstance(value, tuple) else _literal(value)
    return f"{_identifier(condition.entity, condition.key)} {condition.comparator} {text}".rstrip()


def _order_text(order: Order) -> str:
    return f"{_identifier(order.entity, order.key)} {'ASC' if order.is_ascending else 'DESC'}"


def _identifier(entity: Entity, key: str) -> str:
    """A name as MLflow holds it, in backticks: in what it takes as a name there are none."""
    is_recorded = entity in ("metric", "param", "tag")
    return f"{entity}.`{to_mlflow(key, limits.NAME_CHARACTERS) if is_recorded else key}`"


def _literal(value: str | float) -> str:
    """A number, spelled as MLflow reads them; or a text, in quotes that are not in it."""
    if not isinstance(value, str):
        return repr(value).replace("e+", "e").replace("inf", "9e999")
    return f"'{value}'" if _IN_SINGLE_QUOTES.fullmatch(value) else f'"{value}"'


def _text_list(texts: tuple[str, ...]) -> str:
    return f"({', '.join(map(repr, texts))})"


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
        key=_key(tags),
        metrics={_name(name, raw): _value(name, value, tags) for name, value in run.data.metrics.items()},
        params={_name(name, raw): value for name, value in run.data.params.items()},
        tags=tags,
    )


def _key(tags: Mapping[str, str]) -> str | None:
    """The key in the tags, which anybody may write: a text that is no key could name a folder outside the journal's."""
    key = tags.get(KEY_TAG, "")
    return key if is_key(key) else None


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


def _searches(query: MlflowQuery) -> tuple[SearchStore, RestoringStore]:
    return query, query
