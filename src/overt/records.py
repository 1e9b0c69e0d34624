"""What can be recorded and read back, as frozen values: the one language of hooks, journal, delivery and stores.

A record is complete when it is made: its time, step and names are in it, nothing is filled in later. That is what
lets a delivery be repeated any number of times, by any process, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from overt.display import html_table

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""MLflow's own words. RUNNING is never recorded: it is what a run is until a :class:`RunEnd` says otherwise."""

EndStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is, known in full at its start.

    Attributes
    ----------
    key : str
        32 hexadecimal digits, made locally; a store finds the run again by it.
    store : str
        Where the run is to be delivered, a URI without its credentials; empty where none was configured.
    parent_key : str or None
        Key of the run that this one is nested in.
    joined_run_id : str or None
        The store's id of a run that the caller started and will end. overt records into it and never ends it.
    experiment_id : str or None
        The store's id of the experiment, for a joined run and its children: the caller chose it, and its name is not
        known here without asking the store.
    """

    key: str
    name: str
    experiment: str
    started_ms: int
    store: str = ""
    parent_key: str | None = None
    joined_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One point of a series. ``model`` and ``dataset`` name records of the same run that the score belongs to."""

    name: str
    value: float
    step: int
    time_ms: int
    model: str | None = None
    dataset: str | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """One setting, as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """One label, as text; a later tag of the same name replaces it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that a run was fitted or evaluated on: its digest and shape, never its rows.

    ``digest`` has at most 36 characters. ``schema`` and ``profile`` are JSON texts in MLflow's form.
    """

    name: str
    digest: str
    context: str
    source_type: str
    source: str
    schema: str
    profile: str


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in the spool, named by their own SHA-256, so that what arrives is what was recorded."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of the run at ``path``, a relative POSIX path."""

    path: str
    blob: Blob


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture still to be drawn, from numbers: ``blob`` holds the JSON that ``overt.figures.draw(kind, …)`` takes."""

    path: str
    kind: str
    blob: Blob


Cell = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table in the file ``path``, a relative POSIX path ending in ``.csv``.

    Each process that shares the run may add rows; in the file they stand in the order of their time.
    """

    path: str
    cells: Mapping[str, Cell]
    time_ms: int


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted model as files, with all that a store needs to make it loadable without opening it.

    Attributes
    ----------
    name : str
        What ``runs:/<id>/<name>`` resolves.
    flavor : str
        MLflow flavor, such as ``"sklearn"``.
    files : tuple of Artifact
        Paths are relative to the model's folder.
    flavor_fields, pyfunc_fields : mapping
        JSON-able fields of the flavor and of ``python_function`` in the MLmodel file; no fields of the latter for a
        model that does not predict, which then has no such flavor.
    signature : mapping or None
        ``{"inputs": …, "outputs": …}`` in MLflow's form.
    example : mapping or None
        ``saved_input_example_info`` of the MLmodel file; the example itself is among the files.
    requirements : tuple of str
        Lines such as ``scikit-learn==1.9.1``.
    """

    name: str
    flavor: str
    files: tuple[Artifact, ...]
    flavor_fields: Mapping[str, Any]
    pyfunc_fields: Mapping[str, Any]
    signature: Mapping[str, Any] | None
    example: Mapping[str, Any] | None
    requirements: tuple[str, ...]
    python_version: str
    created_ms: int
    model_type: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    register_as: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that could not be written: the count says what the journal does not hold."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How and when the run ended. The first one recorded wins."""

    status: EndStatus
    ended_ms: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Nothing more is expected: the journal may go once it is delivered. A later record reopens it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that writes a segment, exactly enough to tell later whether it still lives."""

    pid: int
    started: str
    host: str
    boot: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the trainings that a run consists of: one that was killed and goes on from a checkpoint is the next.

    Attributes
    ----------
    number : int
        1 for the training that started the run.
    started_ms : int
        What is recorded from then on, up to the start of the next, is this attempt's; 0 for the first.
    """

    number: int = 1
    started_ms: int = 0


FIRST_ATTEMPT = Attempt()

NOTES_TAG = "mlflow.note.content"
"""Markdown on a run, which MLflow's UI shows on its page."""

ROWS_TAG = "overt.rows"
"""Says what a run's rows are. One that was started with it is delivered once it has a row or a point."""

ATTEMPTS_TAG = "overt.attempts"
"""When the attempts from the second on began, as a JSON list: how a store tells that a run was resumed."""


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """First line of every segment, so that any one of them can be delivered alone."""

    spec: RunSpec
    owner: Owner
    format: int = 1
    attempt: Attempt = FIRST_ATTEMPT


Record = Metric | Param | Tag | Dataset | Artifact | Figure | Row | Model | Lost | RunEnd | Seal
Batchable = Metric | Param | Tag | Dataset

# -- what can be read back ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class RunSummary:
    """A run as a store lists it, whoever recorded it.

    Attributes
    ----------
    key : str or None
        The run key, for a run that overt recorded.
    status : str
        One of :data:`Status`, or another word of the store's own.
    metrics : mapping
        The last value of each metric, under the name that it was recorded with.
    """

    id: str
    name: str
    experiment: str
    status: str
    started_ms: int
    ended_ms: int | None = None
    key: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        who = f"id={self.id!r}, name={self.name!r}, experiment={self.experiment!r}, status={self.status!r}"
        return f"RunSummary({who}, n_metrics={len(self.metrics)}, n_params={len(self.params)})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head = [("id", self.id), ("experiment", self.experiment), ("status", self.status)]
        params = [(f"param {name}", value) for name, value in self.params.items()]
        metrics = [(f"metric {name}", f"{value:.6g}") for name, value in self.metrics.items()]
        return html_table(("run", self.name), [*head, *params, *metrics])


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """A dataset that a run names. ``context`` says what for; ``profile`` is JSON text."""

    name: str
    digest: str
    context: str
    profile: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An artifact of a run: its path and, where the store tells, its size in bytes."""

    path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model of a run: ``uri`` loads it once ``status`` is READY, in each of the ways that ``flavors`` names."""

    name: str
    uri: str
    status: str
    flavors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunDetails:
    """Everything that a store holds of a run; ``points`` counts the points of each metric's series."""

    run: RunSummary
    points: Mapping[str, int]
    datasets: tuple[StoredDataset, ...]
    files: tuple[StoredFile, ...]
    models: tuple[StoredModel, ...]


@dataclass(frozen=True, slots=True)
class Promotion:
    """One move of an alias to a version of a registered model: who did it, when, and on which numbers.

    Attributes
    ----------
    source : str
        The alias or number by which the version was named.
    replaced : str or None
        Version that had the alias before; None if there was none.
    run_id : str or None
        The run that made the version.
    by : str
        ``user@host``.
    at_ms : int
        When it was recorded, just before the alias was moved.
    metric, mode : str or None
        What had to be better, and which way; None for a promotion without a condition.
    score, replaced_score : float or None
        Both versions' values of the metric; ``replaced_score`` is None where there was nothing to beat.
    dataset : str or None
        ``name#digest`` of the data that both were scored on.
    state : {"begun", "done", "abandoned"}
        ``begun`` is written before the alias moves and becomes ``done`` when it has moved, or ``abandoned`` when
        somebody else had moved it meanwhile. One that stays ``begun`` was cut off: whether the alias moved, the alias
        itself says.
    """

    model: str
    version: str
    alias: str
    source: str
    replaced: str | None
    run_id: str | None
    by: str
    at_ms: int
    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    score: float | None = None
    replaced_score: float | None = None
    dataset: str | None = None
    state: Literal["begun", "done", "abandoned"] = "begun"

    @property
    def at(self) -> str:
        """:attr:`at_ms` in ISO form, UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model, as the registry held it when it was read.

    Attributes
    ----------
    name, version : str
        Of the registered model, and the version's number as text.
    run_id : str or None
        The run that made it.
    model_uri : str or None
        The run's model that the version is of, such as ``models:/m-…``; None where the registry does not say.
    aliases : tuple of str
        Names that point to this version now.
    tags : mapping
        Without those that hold promotions.
    promotions : tuple of Promotion
        Every move of an alias to this version that overt was asked for, oldest first.
    """

    name: str
    version: str
    run_id: str | None
    model_uri: str | None
    created_ms: int
    aliases: tuple[str, ...] = ()
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    promotions: tuple[Promotion, ...] = ()

    @property
    def uri(self) -> str:
        """What loads this version, here and in MLflow."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model's folder, fetched and opened by nobody yet.

    Attributes
    ----------
    uri : str
        What was asked for.
    folder : Path
        Where the files are.
    digests : mapping or None
        SHA-256 of each file by its path, as they were recorded outside the folder when the model was delivered; None
        where nobody recorded them.
    """

    uri: str
    folder: Path
    digests: Mapping[str, str] | None
