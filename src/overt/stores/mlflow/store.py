"""MLflow behind the five verbs: one run key is one MLflow run, however often its journal is delivered.

The run is found again by the tag ``overt.key``. Params of a run cannot change in MLflow: a changed one becomes the tag
``param_drift.<name>`` instead of a lost batch. Metric values that MLflow cannot hold (infinities become 1.797e308) are
named in a tag ``overt.infinite.<name>``. Of a dataset with several contexts MLflow keeps the first; the others stand in
a tag ``overt.contexts.<name>.<digest>``. Only the tracking client is used, never the fluent global run.
"""

from __future__ import annotations

import errno
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow import entities as mlflow_entities
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from overt import clock
from overt.errors import StoreRejected, StoreUnavailable
from overt.records import ATTEMPTS_TAG, Attempt, Batchable, Dataset, EndStatus, Metric, Model, Param, RunSpec, Tag
from overt.stores.mlflow import limits
from overt.stores.mlflow.connection import connect, translated_errors
from overt.stores.mlflow.models import find_model, log_model
from overt.stores.mlflow.names import digest, is_cut, path_to_mlflow, to_mlflow
from overt.stores.protocols import JoinableStore, ModelStore, ProbeStore, ResumableStore, Store

KEY_TAG = "overt.key"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # else the UI takes it for a GenAI project
OWN_FOLDER = "overt"  # of a run's artifacts: what a user records lies elsewhere, also under the names below
PARAMS_FILE = f"{OWN_FOLDER}/params.json"
TAGS_FILE = f"{OWN_FOLDER}/tags.json"
PROBE_TAG = "overt.probe"
PROBE_FILE = f"{OWN_FOLDER}/probe.txt"


@dataclass(slots=True)
class _Known:
    """What is in MLflow for one run already: asked once, then kept up to date."""

    experiment_id: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    contexts: dict[tuple[str, str], str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


class MlflowStore:
    """Runs in an MLflow tracking server or database.

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
        self._experiments: dict[str, str] = {}
        self._known: dict[str, _Known] = {}
        self._run_ids: dict[str, str] = {}  # of keys: a parent may be in another experiment than its child

    @classmethod
    def open(cls, uri: str) -> MlflowStore:
        """Connect to ``uri``; a database is created or migrated if need be."""
        return cls(connect(uri), uri)

    def create_run(self, spec: RunSpec) -> str:
        """Create the run or find it by its key; a run to be joined is only marked with the key."""
        with translated_errors(self._uri):
            self._run_ids[spec.key] = run_id = self._create_or_join(spec)
            return run_id

    def log_batch(self, run_id: str, records: Sequence[Batchable]) -> None:
        """Add metrics, params, tags and datasets within MLflow's limits."""
        with self._errors_about(run_id):
            known = self._know(run_id)
            try:
                self._log_batch(run_id, known, records)
            except MlflowException as refusal:
                if refusal.error_code != "INVALID_PARAMETER_VALUE" or self._know_anew(run_id).params == known.params:
                    raise
                self._log_batch(run_id, self._know(run_id), records)  # somebody else has written params into the run

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Upload every file below ``folder``."""
        with self._errors_about(run_id), _as_mlflow_names_files(folder) as named:
            self._client.log_artifacts(run_id, str(named))

    def log_model(self, run_id: str, model: Model, folder: Path) -> str:
        """Add the model as a logged model, READY and an output of the run; its ``models:/`` URI."""
        with self._errors_about(run_id):
            known = self._know(run_id)
            logged = log_model(
                self._client, experiment_id=known.experiment_id, run_id=run_id, model=model, folder=folder
            )
            known.models[model.name] = logged.model_id
            return f"models:/{logged.model_id}"

    def is_running(self, run_id: str) -> bool:
        """Whether MLflow has the run as RUNNING or SCHEDULED."""
        with translated_errors(self._uri):
            return self._client.get_run(run_id).info.status in ("RUNNING", "SCHEDULED")

    def begin_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Set the run to RUNNING and note the attempt in a tag; MLflow keeps the old end time until the next."""
        with self._errors_about(run_id):
            known = self._know_anew(run_id)
            starts = sorted({*_attempt_starts(known.tags), attempt.started_ms})
            self._client.set_tag(run_id, ATTEMPTS_TAG, json.dumps(starts))
            known.tags[ATTEMPTS_TAG] = json.dumps(starts)
            self._client.update_run(run_id, status="RUNNING")

    def attempt_starts(self, run_id: str) -> Sequence[int]:
        """What the tag says."""
        with self._errors_about(run_id):
            return _attempt_starts(self._know(run_id).tags)

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """Ask for the whole history of a metric."""
        with self._errors_about(run_id):
            history = self._client.get_metric_history(run_id, to_mlflow(name, limits.NAME_CHARACTERS))
        return (Metric(name, point.value, point.step, point.timestamp) for point in history)

    def finish(self, run_id: str, status: EndStatus, ended_ms: int) -> None:
        """Set the ending with the time at which it was recorded."""
        with self._errors_about(run_id):
            self._client.set_terminated(run_id, status, ended_ms)

    def probe(self) -> None:
        """Ask for one experiment."""
        with translated_errors(self._uri):
            self._client.search_experiments(view_type=ViewType.ALL, max_results=1)

    def probe_run(self, run_id: str, *, with_file: bool = False) -> None:
        """Set a tag to what it never was and take it away again; a file stays, since MLflow's client removes none."""
        with self._errors_about(run_id):
            self._client.set_tag(run_id, PROBE_TAG, clock.new_key())
            self._client.delete_tag(run_id, PROBE_TAG)
            if with_file:
                self._client.log_text(run_id, "overt wrote this file to see whether files arrive.\n", PROBE_FILE)

    def close(self) -> None:
        """Nothing is held that the process's end would not release."""

    # -- runs and experiments ------------------------------------------------------------------------------------------

    def _experiment_id(self, name: str) -> str:
        """Id of the experiment, created if need be; a creation lost to another process is that process's success."""
        if name not in self._experiments:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    self._experiments[name] = self._client.create_experiment(name, tags=EXPERIMENT_TAGS)
                    return self._experiments[name]
                except MlflowException as error:
                    experiment = self._client.get_experiment_by_name(name)
                    if experiment is None:
                        raise error
            if experiment.lifecycle_stage != "active":
                raise StoreRejected(
                    f"experiment {name!r} is deleted in MLflow, and its name cannot be used until it is restored: "
                    f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
                )
            self._experiments[name] = experiment.experiment_id
        return self._experiments[name]

    def _find_run(self, experiment_id: str, key: str) -> str | None:
        found = self._client.search_runs(
            [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", run_view_type=ViewType.ALL, max_results=1
        )
        return found[0].info.run_id if found else None

    def _create_or_join(self, spec: RunSpec) -> str:
        if spec.joined_run_id:
            self._know(spec.joined_run_id)
            self._client.set_tag(spec.joined_run_id, KEY_TAG, spec.key)
            return spec.joined_run_id
        experiment_id = spec.experiment_id or self._experiment_id(spec.experiment)
        short, long = _short_tags(self._start_tags(experiment_id, spec))
        run_id = self._find_run(experiment_id, spec.key) or self._create_run(experiment_id, spec, short)
        self._keep_whole(run_id, TAGS_FILE, long)
        return run_id

    def _start_tags(self, experiment_id: str, spec: RunSpec) -> dict[str, str]:
        tags = dict(spec.tags) | {KEY_TAG: spec.key}
        if spec.parent_key:
            parent_id = self._run_ids.get(spec.parent_key) or self._find_run(experiment_id, spec.parent_key)
            tags |= {"mlflow.parentRunId": parent_id} if parent_id else {"overt.parent_key": spec.parent_key}
        return tags

    def _create_run(self, experiment_id: str, spec: RunSpec, tags: dict[str, str]) -> str:
        name = tags.get("mlflow.runName", spec.name)  # MLflow refuses two that differ
        try:
            run = self._client.create_run(experiment_id, start_time=spec.started_ms, tags=tags, run_name=name)
        except MlflowException:
            if self._experiments.pop(spec.experiment, None) is not None:
                self._experiment_id(spec.experiment)  # if it was deleted since it was asked for, this says so
            raise
        run_id = str(run.info.run_id)
        self._known[run_id] = _Known(experiment_id, tags=tags)
        return run_id

    def _know(self, run_id: str) -> _Known:
        return self._known.get(run_id) or self._know_anew(run_id)

    def _know_anew(self, run_id: str) -> _Known:
        run = self._client.get_run(run_id)
        self._known[run_id] = _Known(run.info.experiment_id, dict(run.data.params), dict(run.data.tags), _contexts(run))
        return self._known[run_id]

    @contextmanager
    def _errors_about(self, run_id: str) -> Iterator[None]:
        """Errors as a store may raise them; a deleted run can be restored, so nothing of it is refused for good."""
        with translated_errors(self._uri):
            try:
                yield
            except MlflowException:
                self._raise_if_deleted(run_id)
                raise

    def _raise_if_deleted(self, run_id: str) -> None:
        """Say that the whole run is refused, before each of its records is tried alone."""
        with suppress(MlflowException):
            if self._client.get_run(run_id).info.lifecycle_stage == "deleted":
                raise StoreUnavailable(
                    f"run {run_id} was deleted in MLflow while it was being recorded; to take it back: "
                    f"mlflow runs restore --run-id {run_id}"
                )

    # -- records to entities -------------------------------------------------------------------------------------------

    def _log_batch(self, run_id: str, known: _Known, records: Sequence[Batchable]) -> None:
        tags = {r.name: r.value for r in records if isinstance(r, Tag)}
        self._log_datasets(run_id, known, [r for r in records if isinstance(r, Dataset)], tags)
        params = self._new_params(run_id, known, [r for r in records if isinstance(r, Param)], tags)
        metrics = [self._metric(run_id, known, r, tags) for r in records if isinstance(r, Metric)]
        short, long = _short_tags(tags)
        self._keep_whole(run_id, TAGS_FILE, long)
        self._send(run_id, metrics, params, short)
        known.params.update(params)
        known.tags.update(short)

    def _metric(self, run_id: str, known: _Known, metric: Metric, tags: dict[str, str]) -> mlflow_entities.Metric:
        name = _name(metric.name, tags)
        if math.isinf(metric.value):
            note = f"overt.infinite.{metric.name}"
            if to_mlflow(note, limits.NAME_CHARACTERS) not in known.tags:
                tags.setdefault(note, f"{metric.value} first at step {metric.step}")
        dataset, _, dataset_digest = (metric.dataset or "").rpartition("#")
        return mlflow_entities.Metric(
            name,
            metric.value,
            metric.time_ms,
            metric.step,
            model_id=self._model_id(run_id, known, metric.model) if metric.model else None,
            dataset_name=dataset or None,
            dataset_digest=dataset_digest or None,
            run_id=run_id,
        )

    def _model_id(self, run_id: str, known: _Known, name: str) -> str | None:
        if name not in known.models:
            logged = find_model(self._client, experiment_id=known.experiment_id, run_id=run_id, name=name)
            if logged is None:
                return None
            known.models[name] = logged.model_id
        return known.models[name]

    def _new_params(self, run_id: str, known: _Known, records: Sequence[Param], tags: dict[str, str]) -> dict[str, str]:
        """Params that MLflow does not have yet; changed ones go to ``tags`` as drift, long ones whole to a file."""
        if any(len(record.value) > limits.PARAM_CHARACTERS for record in records):  # the file is of those that are ours
            known.params = dict(self._client.get_run(run_id).data.params)
        new: dict[str, str] = {}
        whole: dict[str, str] = {}
        for record in records:
            name = _name(record.name, tags)
            text = limits.shortened(record.value, limits.PARAM_CHARACTERS, whole_in=PARAMS_FILE)
            recorded = new.get(name, known.params.get(name))
            if recorded is None:
                new[name] = text
                if text != record.value:
                    whole[record.name] = record.value
            elif recorded != text:
                tags[f"param_drift.{record.name}"] = record.value
        self._keep_whole(run_id, PARAMS_FILE, whole)
        return new

    def _keep_whole(self, run_id: str, file: str, texts: dict[str, str]) -> None:
        """Add ``texts`` to the JSON artifact ``file`` of the run."""
        if not texts:
            return
        with tempfile.TemporaryDirectory(prefix="overt-") as folder:
            kept: dict[str, str] = {}
            if any(entry.path == file for entry in self._client.list_artifacts(run_id, OWN_FOLDER)):
                kept = json.loads(Path(self._client.download_artifacts(run_id, file, folder)).read_text("utf-8"))
            if kept | texts != kept:
                path = Path(folder, file)
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(kept | texts, indent=2, ensure_ascii=False), "utf-8")
                self._client.log_artifact(run_id, str(path), OWN_FOLDER)

    def _log_datasets(self, run_id: str, known: _Known, records: Sequence[Dataset], tags: dict[str, str]) -> None:
        for record in records:
            if known.contexts.setdefault((record.name, record.digest), record.context) != record.context:
                note = f"overt.contexts.{record.name}.{record.digest}"
                listed = tags.get(note) or known.tags.get(to_mlflow(note, limits.NAME_CHARACTERS)) or "[]"
                tags[note] = json.dumps(list(dict.fromkeys([*json.loads(listed), record.context])), ensure_ascii=False)
            if record.schema is not None and len(record.schema) > limits.SCHEMA_CHARACTERS:
                tags["overt.schema_note"] = "of so many columns no schema: it is longer than MLflow takes"
        if records:
            self._client.log_inputs(run_id, [_dataset_input(record) for record in records])

    def _send(
        self,
        run_id: str,
        metrics: Sequence[mlflow_entities.Metric],
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        """Send entities in as few calls as the limits on count and on a request's size allow."""
        param_list = [mlflow_entities.Param(name, value) for name, value in params.items()]
        tag_list = [mlflow_entities.RunTag(name, value) for name, value in tags.items()]
        texts = sum(len(name) + len(value) for name, value in (*params.items(), *tags.items()))
        if len(metrics) <= 700 and len(param_list) <= 100 and len(tag_list) <= 100 and texts <= 200_000:
            if metrics or param_list or tag_list:
                self._client.log_batch(run_id, metrics, param_list, tag_list)
            return
        for some_metrics in limits.in_slices(metrics, limits.METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=some_metrics)
        for some_params in limits.in_slices(param_list, limits.PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=some_params)
        for some_tags in limits.in_slices(tag_list, limits.TAGS_PER_BATCH):
            self._client.log_batch(run_id, tags=some_tags)


@contextmanager
def _as_mlflow_names_files(folder: Path) -> Iterator[Path]:
    """``folder``, or where names in it have to be spelled otherwise, one of links to its files."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    if all(path_to_mlflow(path) == path for path in files):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="overt-") as name:
        for path, file in files.items():
            link = Path(name, path_to_mlflow(path))
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(file.absolute())
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise StoreRejected(f"{path!r} is too long a name as MLflow has to be given it") from error
        yield Path(name)


def _short_tags(tags: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """``tags`` as MLflow takes them, and whole the texts of those that had to be cut."""
    named: dict[str, str] = {}
    for name in tags:
        _name(name, named)
    named |= tags
    long = {name: text for name, text in named.items() if len(text) > limits.TAG_CHARACTERS}
    short = {
        to_mlflow(name, limits.NAME_CHARACTERS): limits.shortened(text, limits.TAG_CHARACTERS, whole_in=TAGS_FILE)
        for name, text in named.items()
    }
    return short, long


def _name(name: str, tags: dict[str, str]) -> str:
    """``name`` as MLflow takes it; one that had to be cut is kept whole in a tag."""
    if is_cut(name, limits.NAME_CHARACTERS):
        tags[f"overt.name.{digest(name)}"] = name
    return to_mlflow(name, limits.NAME_CHARACTERS)


def _attempt_starts(tags: dict[str, str]) -> list[int]:
    """When attempts began, as noted in a tag; a tag that somebody else has written says nothing."""
    with suppress(ValueError):
        starts = json.loads(tags.get(ATTEMPTS_TAG, "[]"))
        if isinstance(starts, list) and all(type(start) is int for start in starts):
            return starts
    return []


def _contexts(run: mlflow_entities.Run) -> dict[tuple[str, str], str]:
    """The one context that MLflow has of each dataset."""
    return {
        (item.dataset.name, item.dataset.digest): tag.value
        for item in (run.inputs.dataset_inputs if run.inputs else ())
        for tag in item.tags
        if tag.key == "mlflow.data.context"
    }


def _dataset_input(dataset: Dataset) -> mlflow_entities.DatasetInput:
    is_short = dataset.schema is not None and len(dataset.schema) <= limits.SCHEMA_CHARACTERS
    return mlflow_entities.DatasetInput(
        mlflow_entities.Dataset(
            name=dataset.name,
            digest=dataset.digest,
            source_type=dataset.source_type,
            source=dataset.source,
            schema=dataset.schema if is_short else None,  # without it the data are still known by their digest
            profile=dataset.profile,
        ),
        [mlflow_entities.InputTag("mlflow.data.context", dataset.context[: limits.DATASET_TAG_CHARACTERS])],
    )


def _conforms(store: MlflowStore) -> tuple[Store, ModelStore, JoinableStore, ProbeStore, ResumableStore]:
    return store, store, store, store, store
