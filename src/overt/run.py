"""The one vocabulary of recording: users and integrations say everything through :class:`Run`, and it returns at once.

When a method has returned, what it was given is with the operating system and survives the process. Nothing here
imports a framework, touches a network or waits for a store, except what says so: ``id``, ``model_uri`` and ``wait``.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, get_args

from overt import clock
from overt.capture.params import describe, flatten
from overt.capture.secrets import redact, redact_value
from overt.content import figure_bytes, image_bytes, json_bytes, table_bytes, to_plain
from overt.deferred import DeferredPoint, is_due, is_tensor, kept_on_device, read_together
from overt.errors import JournalError, RecordError, StoreUnavailable
from overt.evaluation.report import FigureSpec, Report
from overt.journal.codec import MOST_WHOLE, encode, encode_metric
from overt.journal.owner import this_process
from overt.journal.series import Series
from overt.journal.writer import Writer
from overt.loops import Loops
from overt.naming import check_model_name
from overt.records import (
    Artifact,
    Dataset,
    EndStatus,
    Figure,
    Model,
    Param,
    Record,
    Row,
    RunEnd,
    RunSpec,
    Seal,
    SegmentHead,
    Status,
    Tag,
)
from overt.settings import Settings
from overt.stores.uri import light_path
from overt.validation import (
    TRACEBACK_FILE,
    given_pairs,
    recorded_cell,
    recorded_dataset,
    recorded_name,
    recorded_path,
    to_number,
    to_step,
    without_surrogates,
)

T = TypeVar("T")

GOES_ON = "Training goes on without it"
"""What ends a warning about something that was not recorded."""

KEPT_NOWHERE = "is kept nowhere: tracking is switched off, or another rank records"
"""Why a null run has nothing to give."""


class Delivered(Protocol):
    """Where a run is in its store."""

    @property
    def run_id(self) -> str | None:
        """The store's id."""

    @property
    def models(self) -> Mapping[str, str]:
        """URI of each model, by its name."""


class Link(Protocol):
    """What a run knows of its own delivery."""

    def require_arrival(self) -> Delivered:
        """Wait for the store; StoreUnavailable if it does not answer."""

    def warn(self, text: str) -> None:
        """Tell the user."""


class Run:
    """One run: records into its journal, from any thread, and from forks and copies of itself in other processes.

    Obtained from :func:`overt.start_run`, from a tracked estimator's ``run_`` or from :func:`overt.current_run`. As a
    context manager it becomes the current run and ends with its block: FINISHED on return and on ``sys.exit(0)``,
    KILLED on Ctrl-C, FAILED on anything else.

    Parameters
    ----------
    spec : RunSpec
        What the run is.
    writer : Writer
        Where its records go.
    link : Link
        What it knows of its delivery.
    strict : bool
        Whether trouble with tracking raises (``on_error="raise"``).
    rebuild : tuple, optional
        Function and arguments that open the same run in another process.
    is_null : bool
        Whether nothing of it is kept: tracking is off, or this is not the rank that records.
    top_steps : mapping, optional
        Of a run that goes on from a checkpoint: the highest step of each series there.

    Attributes
    ----------
    hook_joined : bool
        Whether a hook records into it already: the next one gets a child.
    ends_when_waited_for : bool
        Whether :func:`overt.wait` ends it, as nobody else says when it is over.
    is_inherited : bool
        Whether another process ends it.
    is_taken_over : bool
        Whether the process that started it is gone, and this one delivers what it adds.
    place : Settings
        Store and journal folder, where they are known here: those of the runs nested in it.
    is_told_by_callback : bool
        Whether a trainer's callback tells of what is trained here now: who watches the parts of it gives way.
    """

    def __init__(
        self,
        spec: RunSpec,
        writer: Writer,
        *,
        link: Link,
        strict: bool = False,
        rebuild: tuple[Callable[..., Run], tuple[Any, ...]] | None = None,
        is_null: bool = False,
        top_steps: Mapping[str, int] | None = None,
    ) -> None:
        self.spec = spec
        self.is_null = is_null
        self.hook_joined = False
        self.ends_when_waited_for = False
        self.place = Settings()
        self._writer = writer
        self._link = link
        self._strict = strict
        self._rebuild = rebuild
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = dict(spec.tags)
        self._series: dict[str, Series] = {}
        self._models: dict[str, None] = {}
        self._top_steps = dict(top_steps or {})
        self._deferred: list[DeferredPoint] = []
        self._end: RunEnd | None = None
        self._sealed = False
        self.is_inherited = False
        self.is_taken_over = False
        self.is_told_by_callback = False
        self.loops = Loops(self._series)
        self._at_end: list[Callable[[Run], None]] = []
        self._context: list[Token[Run | None]] = []
        _all_runs[spec.key] = self

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """32 hexadecimal digits, known at once; the store's run carries them as the tag ``overt.key``."""
        return self.spec.key

    @property
    def name(self) -> str:
        """The run's name."""
        return self.spec.name

    @property
    def experiment(self) -> str:
        """The run's experiment."""
        return self.spec.experiment

    @property
    def status(self) -> Status:
        """RUNNING until it has ended."""
        return self._end.status if self._end else "RUNNING"

    @property
    def metrics(self) -> dict[str, float]:
        """Last value recorded here of each metric; never waits for a store."""
        self._read_deferred()
        with self._writer.lock:
            return {name: series.value for name, series in self._series.items()}

    @property
    def params(self) -> dict[str, str]:
        """Params recorded here; never waits."""
        with self._writer.lock:
            return dict(self._params)

    @property
    def tags(self) -> dict[str, str]:
        """Tags recorded here; never waits."""
        with self._writer.lock:
            return dict(self._tags)

    def highest_step(self, name: str) -> int | None:
        """Highest step of this metric, None where none was recorded here; nothing is read from a device for it."""
        series = self._series.get(name)
        return None if series is None else series.top_step

    @property
    def id(self) -> str:
        """The store's id of this run. Waits for the store.

        Raises
        ------
        StoreUnavailable
            When the store does not answer.
        """
        run_id = self._read_own().run_id
        if self.is_null:
            raise StoreUnavailable(f"run {self.name} {KEPT_NOWHERE}, so no store has an id for it")
        if run_id is None:
            raise StoreUnavailable(f"run {self.name} has not been given an id by its store yet")
        return run_id

    @property
    def model_uri(self) -> str:
        """URI that loads the run's model, such as ``models:/m-…``. Waits for the store.

        Raises
        ------
        StoreUnavailable
            When the store does not answer.
        LookupError
            When the run has no model.
        """
        models = self._read_own().models
        if self.is_null:
            raise LookupError(f"run {self.name} {KEPT_NOWHERE}, and so is no model of it")
        if not models and self.is_inherited:
            raise LookupError(f"run {self.name} was recorded by another process, which knows its model: overt show")
        if not models:
            raise LookupError(f"run {self.name} has no model: none was recorded, or log_model was off")
        return models.get("model") or list(models.values())[-1]

    @property
    def is_strict(self) -> bool:
        """Whether trouble with tracking raises (``on_error="raise"``)."""
        return self._strict

    def warn(self, text: str) -> None:
        """Tell the user something about tracking, once per text, without ever raising into training."""
        self._link.warn(text)

    def __repr__(self) -> str:
        return f"Run(name={self.name!r}, experiment={self.experiment!r}, status={self.status!r}, key={self.key!r})"

    # -- params, metrics, tags -----------------------------------------------------------------------------------------

    def log_param(self, name: str, value: object) -> None:
        """Record one setting; secrets by name or shape are replaced by ``[redacted]``."""
        name = recorded_name("log_param", name)
        text = without_surrogates(redact_value(name, describe(value)))
        with self._writer.lock:
            self._params.setdefault(name, text)  # as in the store, where a changed param is drift
        self._record(Param(name, text))

    def log_params(self, params: Mapping[str, object] | object) -> None:
        """Record settings: a mapping, a dataclass or a Namespace; nested ones are joined with dots."""
        for name, value in flatten(params).items():
            self.log_param(name, value)

    def log_metric(
        self,
        name: str,
        value: float,
        *,
        step: int | None = None,
        epoch: int | None = None,
        model: str | None = None,
        dataset: str | None = None,
    ) -> None:
        """Record one value. Budget: 5 us, one system call.

        Parameters
        ----------
        name : str
            Any text; a store that refuses it spells it differently.
        value : float
            Anything that ``float`` takes and that is not text: NaN and infinities too. A torch tensor stays on its
            device: it is read together with others at ``flush``, at an epoch's end, and at the latest after 10 s or
            10,000 values, as soon as another comes. Until then it is not kept by the operating system.
        step : int, optional
            Optimizer step; by default the one after the highest of this name.
        epoch : int, optional
            Pass over the data, for a series that has one value per epoch: it becomes the step.
        model, dataset : str, optional
            Name of a model that this run has logged before, and ``name#digest`` of a dataset, of one that the run has
            logged or of one of your own: what the value is a score of.

        Raises
        ------
        RecordError
            For a value that is no number, and a dataset that is no ``name#digest``.

        Warns
        -----
        OvertWarning
            When ``model`` names none that was logged before: in MLflow the value is a score of no model.
        """
        is_deferred = False
        if type(value) is not float:
            is_deferred = is_tensor(value)
            value = value if is_deferred else to_number(name, value)
        if step is None:
            step = epoch
        if step is not None and (type(step) is not int or not -MOST_WHOLE <= step <= MOST_WHOLE):
            step = to_step(name, step)
        series = (self._series.get(name) if type(name) is str else None) or self._new_series(name)
        if model is not None or dataset is not None:
            model = model and recorded_name("log_metric", model)
            if model and model not in self._models:
                self._warn_of_unknown_model(model)
            dataset = dataset and recorded_dataset(dataset)
        if is_deferred:
            self._defer(series, kept_on_device(value), step, model, dataset)
        elif not self._writer.append_point(series, value, step, model, dataset) or self._sealed:
            self._after_append()

    def log_kept(self, name: str, tensor: Any, *, step: int) -> None:
        """Record one number in a tensor that nobody else writes to: a copy that an integration has made already."""
        self._defer(self._series.get(name) or self._new_series(name), tensor, step, None, None)

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        *,
        step: int | None = None,
        epoch: int | None = None,
        model: str | None = None,
        dataset: str | None = None,
    ) -> None:
        """Record several values at one step, or none if one of them cannot be; see :meth:`log_metric`."""
        numbers: dict[str, float] = {}
        for name, value in given_pairs("log_metrics", metrics):
            if type(name) is not str or not name:
                recorded_name("log_metric", name)
            numbers[name] = value if type(value) is float or is_tensor(value) else to_number(name, value)
        for name, value in numbers.items():
            self.log_metric(name, value, step=step, epoch=epoch, model=model, dataset=dataset)

    def score(self, metric: Callable[..., Any], /, *args: Any, name: str | None = None, **kwargs: Any) -> float:
        """Compute a metric and record it: ``run.score(roc_auc_score, y_test, probabilities)``.

        Parameters
        ----------
        metric : callable
            Any function that returns one number. What it raises reaches the caller, and nothing is recorded.
        *args, **kwargs
            What it is called with.
        name : str, optional
            What the number is recorded as; the name of the function, or of a scorer's function, if absent. A second
            score of a name is a later point of the same series, and the last point is what a run is listed and
            compared by. So two averages of ``f1_score`` want names of their own, and so does an ``f1_score`` after
            ``evaluate``, which records one itself.

        Returns
        -------
        float
            The number.

        Raises
        ------
        RecordError
            When the function has no name and none is given, when ``name`` is no text or empty, which is said before
            the function is called, or when it returns something else than one number.

        Examples
        --------
        >>> import overt
        >>> from sklearn.metrics import f1_score
        >>> with overt.testing.captured_runs() as runs, overt.start_run() as run:
        ...     macro = run.score(f1_score, [0, 1, 1], [0, 1, 0], average="macro", name="f1_macro")
        >>> round(macro, 3), runs[0].metrics["f1_macro"] == macro
        (0.667, True)
        """
        name = _name_of_metric(metric) if name is None else recorded_name("score", name)
        value = to_number(name, metric(*args, **kwargs))
        self.log_metric(name, value)
        return value

    def set_tag(self, name: str, value: object) -> None:
        """Set one label; a later one of the same name replaces it."""
        name = recorded_name("set_tag", name)
        text = without_surrogates(redact_value(name, value if isinstance(value, str) else describe(value)))
        with self._writer.lock:
            self._tags[name] = text
        self._record(Tag(name, text))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set several labels."""
        for name, value in given_pairs("set_tags", tags):
            self.set_tag(name, value)

    # -- loops ---------------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int | None:
        """Number that the epoch going on in :meth:`epochs` is recorded with; None outside."""
        return self.loops.epoch

    def epochs(self, count: int, *, checkpoint: object = None) -> Iterator[int]:
        """Go through ``count`` epochs, each of which is on the disk when the next one begins.

        At the end of each, tensors are read together, and its ``epoch_seconds`` is recorded. On a terminal or in a
        notebook one line shows how far it has come (``OVERT_QUIET=1``: none).

        Parameters
        ----------
        count : int
            How many.
        checkpoint : model, optimizer, scheduler or other, or tuple of them, optional
            What has ``state_dict`` and ``load_state_dict``: saved after each epoch, with the states of the random
            numbers. In a function with ``@track_training``, called again with the same settings by a process that
            follows one which was killed or failed, they are restored and the loop goes on with the next epoch, in the
            same run. The file lies in ``.overt/checkpoints`` and goes when the run has finished.

        Yields
        ------
        int
            From 0 up. It is recorded with the number :attr:`epoch`, which is the same in a run's first loop and counts
            on in those that follow it or lie within it.

        Raises
        ------
        RecordError
            When ``count`` is no whole number from 0 up, or something in ``checkpoint`` has no state.
        ConfigurationError
            When what was saved does not fit what ``checkpoint`` is.

        Notes
        -----
        A loop that is left before its end (``break``) makes a FINISHED run have the tag ``stopped_early``; the epoch
        that it is left in has no ``epoch_seconds``.

        Examples
        --------
        >>> import overt
        >>> with overt.testing.captured_runs() as runs:
        ...     with overt.start_run() as run:
        ...         for epoch in run.epochs(3):
        ...             for batch in run.batches([0.5, 0.25]):
        ...                 run.log_metric("loss_step", batch)
        ...             run.log_metric("loss", 0.1, epoch=epoch)
        >>> [(point.name, point.step) for point in runs[0].history if point.name == "loss"]
        [('loss', 0), ('loss', 1), ('loss', 2)]
        """
        return self.loops.epochs(self, count, checkpoint)

    def batches(self, loader: Iterable[T]) -> Iterable[T]:
        """Go through the batches of ``loader``, each as it is; may be gone through again, as the loader may.

        Nothing is recorded of it. Where :meth:`epochs` shows how far it has come, this does too; elsewhere it costs
        nothing.

        Raises
        ------
        RecordError
            When ``loader`` is nothing to go through.
        """
        return self.loops.batches(self, loader)

    # -- files ---------------------------------------------------------------------------------------------------------

    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str | os.PathLike[str] | None = None) -> None:
        """Record a file, or a folder with all that is in it, as it is now.

        Parameters
        ----------
        path : path
            Of the file or folder. It is copied as it is, so it may be changed or deleted at once; nothing in it is
            redacted.
        artifact_path : str, optional
            Folder within the run's artifacts.

        Raises
        ------
        FileNotFoundError
            When nothing is there.
        """
        source = Path(path)
        if source.is_dir():
            top = source.resolve().name
            files = {f"{top}/{p.relative_to(source).as_posix()}": p for p in source.rglob("*") if p.is_file()}
            if not files:
                self.warn(f"log_artifact recorded nothing of {source}: there is no file in it")
        elif source.exists():
            files = {source.name: source}
        else:
            raise FileNotFoundError(f"log_artifact: no file or folder at {source}")
        prefix = f"{os.fspath(artifact_path).strip('/')}/" if artifact_path else ""
        targets = {recorded_path("log_artifact", prefix + name): file for name, file in sorted(files.items())}
        for target, file in targets.items():
            blob = self._kept(target, lambda file=file: self._writer.store_file(file))  # type: ignore[misc]
            if blob is not None:
                self._record(Artifact(target, blob))

    def log_bytes(self, data: bytes, path: str | os.PathLike[str]) -> None:
        """Record ``data`` as the file ``path``, unchanged."""
        self._log_file("log_bytes", path, lambda _: data)

    def log_text(self, text: str, path: str | os.PathLike[str]) -> None:
        """Record ``text`` as the file ``path``; secrets in it are replaced by ``[redacted]``."""
        if not isinstance(text, str):
            raise RecordError(f"log_text: `text` must be a text (got {type(text).__name__}); log_bytes takes bytes")
        self._log_file("log_text", path, lambda _: redact(text).encode("utf-8", "replace"))

    def log_dict(self, content: Mapping[str, Any] | Sequence[Any], path: str | os.PathLike[str]) -> None:
        """Record ``content`` as JSON in the file ``path``; what JSON cannot say is described in words."""
        self._log_file("log_dict", path, lambda _: json_bytes(content))

    def log_table(self, data: Any, path: str | os.PathLike[str]) -> None:
        """Record a table as the file ``path``, ending in ``.csv`` or ``.json``.

        Parameters
        ----------
        data : DataFrame, mapping of columns, or sequence of rows
            Columns of equal length; each row a mapping of column's name to cell.
        path : str
            Its ending chooses the format: CSV with a head line, or JSON as ``{"columns": …, "data": …}``, the form
            that MLflow's table view reads.
        """
        self._log_file("log_table", path, lambda target: table_bytes(data, target))

    def log_row(self, row: Mapping[str, object], path: str | os.PathLike[str]) -> None:
        """Add one row to the table in the file ``path``: from any thread and process that shares the run.

        The file has a column for each name that any row has, and its rows in the order of their time.

        Parameters
        ----------
        row : mapping
            Column's name to a number, a text or None; anything else is described. Secrets are replaced by
            ``[redacted]``.
        path : str
            Ending in ``.csv``.

        Raises
        ------
        RecordError
            For another ending, and when the run has ended: the table has been delivered with its last row.

        Notes
        -----
        A run that was resumed has a table of its own for each attempt: ``rows.attempt-2.csv``.
        """
        path = recorded_path("log_row", path)
        if not path.endswith(".csv"):
            raise RecordError(f"log_row: `path` must end in .csv (got {path!r})")
        if (self._end is not None and not self.is_inherited) or self.is_taken_over:
            raise RecordError(f"log_row: run {self.name} has ended, and with it the table {path}")
        if (attempt := self._writer.attempt.number) > 1:  # the rows of earlier ones may be delivered and gone
            path = f"{path.removesuffix('.csv')}.attempt-{attempt}.csv"
        cells = {
            recorded_name("log_row", name): recorded_cell(name, value) for name, value in given_pairs("log_row", row)
        }
        self._record(Row(path, cells, clock.now_ms()))

    def log_figure(self, figure: Any, path: str | os.PathLike[str]) -> None:
        """Record a matplotlib figure (any format it saves) or a plotly figure (``.html``) as the file ``path``."""
        self._log_file("log_figure", path, lambda target: figure_bytes(figure, target))

    def log_image(self, image: Any, path: str | os.PathLike[str]) -> None:
        """Record an image as the file ``path``: a PIL image, or an array of shape (height, width[, 1, 3 or 4]).

        An array has whole numbers from 0 to 255, or True and False or floats from 0 to 1; others count as the nearest.
        """
        self._log_file("log_image", path, lambda target: image_bytes(image, target))

    # -- what evaluations and models consist of ------------------------------------------------------------------------

    def log_dataset(self, X: Any, y: Any = None, *, name: str, context: str | None = None) -> str:
        """Record shape, types and digest of the data, never its rows.

        Returns
        -------
        str
            ``name#digest``, as :meth:`log_metric` takes it.
        """
        from overt.capture.dataset import dataset

        found = dataset(X, y, name=recorded_name("log_dataset", name))
        self._record(
            Dataset(
                name=found.name,
                digest=found.digest,
                context=context or found.name,
                source_type="code",
                source=json.dumps({"tags": {"mlflow.source.name": self._tags.get("mlflow.source.name", "")}}),
                schema=json.dumps(found.schema),
                profile=json.dumps(found.profile),
            )
        )
        return f"{found.name}#{found.digest}"

    def log_report(
        self,
        report: Report,
        *,
        prefix: str = "",
        step: int = 0,
        model: str | None = None,
        dataset: str | None = None,
    ) -> None:
        """Record an evaluation: its metrics, tables and pictures, each name preceded by ``prefix``."""
        metrics = {f"{prefix}{name}": value for name, value in report.metrics.items()}
        self.log_metrics(metrics, step=step, model=model, dataset=dataset)
        self.log_report_files(report, prefix=prefix)

    def log_report_files(self, report: Report, *, prefix: str = "") -> None:
        """Record an evaluation's tables and pictures without its metrics."""
        for path, content in report.iter_files():
            self.log_bytes(content, f"{prefix}{path}")
        for figure in report.iter_figures():
            self.log_drawing(figure, prefix=prefix)

    def log_drawing(self, figure: FigureSpec, *, prefix: str = "") -> None:
        """Record a picture as its numbers; it is drawn where it is delivered."""
        path = recorded_path("log_drawing", f"{prefix}{figure.path}")
        data = json.dumps(figure.data, ensure_ascii=False, default=to_plain).encode()
        blob = self._kept(path, lambda: self._writer.store_bytes(data))
        if blob is not None:
            self._record(Figure(path, figure.kind, blob))

    def log_model(self, model: Any, *, name: str = "model", register_as: str | None = None) -> None:
        """Record a model.

        Parameters
        ----------
        model : estimator, torch.nn.Module or ModelFiles
            A fitted scikit-learn estimator or a torch module is saved as it is now. With a signature, as ``skops``, or
            of another kind: what :func:`overt.models.sklearn.sklearn_model`, :func:`overt.models.torch.torch_model` or
            a function like these has made of it.
        name : str
            What ``runs:/<run id>/<name>`` resolves.
        register_as : str, optional
            Registered model that it becomes a version of.

        Raises
        ------
        RecordError
            For a name that is no text, or one that no artifact can have, and for a model that cannot be saved.
        ConfigurationError
            For a ``register_as`` that MLflow does not take.

        Warns
        -----
        OvertWarning
            When ``register_as`` is given and the store is one of plain files, which has no registered models.
        """
        from overt.models.kinds import to_files

        name = recorded_path("log_model", name)
        if register_as is not None:
            check_model_name(register_as, argument="register_as")
            register_as = recorded_name("log_model", register_as)
            if self.spec.store and light_path(self.spec.store) is not None:
                self.warn(f"register_as={register_as!r} registers nothing: registered models need an MLflow store")
        if self.is_null:
            return
        made = to_files(model)
        files: list[Artifact] = []
        for path, content in made.files.items():
            blob = self._kept(f"{name}/{path}", lambda content=content: self._writer.store_bytes(content))  # type: ignore[misc]
            if blob is None:
                return  # a model without one of its files loads nowhere
            files.append(Artifact(recorded_path("log_model", path), blob))
        self._record(
            Model(
                name=name,
                flavor=made.flavor,
                files=tuple(files),
                flavor_fields=made.flavor_fields,
                pyfunc_fields=made.pyfunc_fields,
                signature=made.signature,
                example=made.example,
                requirements=made.requirements,
                python_version=made.python_version,
                created_ms=clock.now_ms(),
                model_type=made.model_type,
                params=made.params,
                register_as=register_as,
            )
        )
        self._models[name] = None
        if made is not model and made.notes:  # who made the files says so by themselves
            self.set_tag("overt.model_note", "; ".join(made.notes))

    # -- ending --------------------------------------------------------------------------------------------------------

    def to_checkpoint(self) -> dict[str, Any]:
        """What a checkpoint of the training is to tell, so that one that goes on from it goes on in this run.

        Returns
        -------
        dict
            Of texts and whole numbers, so that it can be saved with any weights and loaded with weights only. No secret
            is in it: the store's credentials are not.
        """
        self.flush()
        head = SegmentHead(self.spec, this_process(), attempt=self._writer.attempt)
        with self._writer.lock:
            top_steps = self._top_steps | {name: series.top_step for name, series in self._series.items()}
        return {"run": encode(head).decode(), "top_steps": top_steps}

    def call_at_end(self, call: Callable[[Run], None]) -> None:
        """Have ``call(run)`` called once the run has ended, by whatever ends it in this process."""
        self._at_end.append(call)

    def flush(self) -> None:
        """Return when everything recorded so far survives power loss; tensors are read from their devices."""
        self._read_deferred()
        try:
            self._writer.sync()
        except OSError as error:
            self._trouble(f"run {self.name} could not be forced to the disk ({error.strerror})")

    def let_go(self) -> None:
        """Release this process's part of the journal until it records again, so that a delivered one can be removed.

        For a worker after each of its tasks: what was recorded survives the process. It costs a fiftieth of
        :meth:`flush`, which forces it to the disk for a power cut to leave it.
        """
        self._read_deferred()
        self._writer.close()

    def finish(self, status: EndStatus = "FINISHED", error: BaseException | None = None) -> None:
        """End the run. The first ending wins; evaluations may still be added, and do not change it.

        In a forked child nothing ends: its parent started the run, goes on with it, and knows how it went.

        Parameters
        ----------
        status : {"FINISHED", "FAILED", "KILLED"}
            How it ended.
        error : BaseException, optional
            What ended it: its type, message and traceback are recorded.

        Raises
        ------
        RecordError
            For another status; the run goes on.
        """
        if status not in (endings := get_args(EndStatus)):
            raise RecordError(f"finish: `status` must be one of {', '.join(endings)} (got {status!r})")
        if self.is_inherited:
            self.flush()
            self._writer.close()
            return
        self._read_deferred()
        with self._writer.lock:
            if self._end is not None:
                return
            self._end = RunEnd(status, clock.now_ms())
        if error is not None:
            self.set_tag("overt.error", "".join(traceback.format_exception_only(error)).strip())
            self.log_text("".join(traceback.format_exception(error)), TRACEBACK_FILE)
        self._record(self._end)
        self._writer.preamble = encode(self._end)
        self.flush()
        self._writer.close()
        for call in self._at_end:
            call(self)
        if self._strict and error is None:
            self._link.require_arrival()

    def seal(self) -> None:
        """Say that nothing more is expected: the journal may go when it is delivered. A later record reopens it."""
        if self._end is not None and not self._sealed:
            self._read_deferred()
            self._record(Seal())
            self._sealed = True
            unsealed_runs.discard(self)
            self._writer.close()

    @contextmanager
    def as_current(self) -> Iterator[Run]:
        """Be the current run for a block, without ending with it."""
        token = _current.set(self)
        try:
            yield self
        finally:
            with suppress(ValueError):  # left in another context than it was entered in, where it was never current
                _current.reset(token)

    def __enter__(self) -> Run:
        self._context.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # left in another context than it was entered in, where it was never current
            _current.reset(self._context.pop())
        self.finish(status_of(error), error=error if status_of(error) == "FAILED" else None)
        self.seal()

    # -- copies --------------------------------------------------------------------------------------------------------

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        return self

    def __sklearn_clone__(self) -> Run:
        return self

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        if self._rebuild is None:
            raise RecordError(f"run {self.name} lives in this process only and cannot be sent to another")
        function, arguments = self._rebuild
        return function, (*arguments, self._end)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _record(self, record: Record) -> None:
        self._append(encode(record))

    def _warn_of_unknown_model(self, model: str) -> None:
        """Say it where all models are known here: an earlier attempt, another process or MLflow may have logged it."""
        is_known_here = (
            not self.is_null and self._writer.attempt.number == 1 and not (self.is_inherited or self.is_taken_over)
        )
        if is_known_here and not self.spec.joined_run_id:
            there = ", ".join(map(repr, self._models)) or "none"
            self.warn(
                f"model={model!r} names no model that run {self.name} logged before its scores, so in MLflow they "
                f"belong to none; there is {there}. log_model comes first"
            )

    def _new_series(self, name: str) -> Series:
        name = recorded_name("log_metric", name)
        with self._writer.lock:
            return self._series.setdefault(name, Series(name, top_step=self._top_steps.get(name, -1)))

    def _defer(self, series: Series, kept: Any, step: int | None, model: str | None, dataset: str | None) -> None:
        """Record a value that stays on its device until it is read with others."""
        with self._writer.lock:
            stamp = series.stamp(kept, step)
            self._deferred.append(DeferredPoint(series, kept, *stamp, model, dataset))
            is_time = is_due(self._deferred)
        if is_time or self._sealed:
            self._read_deferred()

    def _read_deferred(self) -> None:
        """Write down the values that are still on their devices."""
        if not self._deferred:
            return
        with self._writer.lock:
            waiting, self._deferred = self._deferred, []
        try:
            values = read_together([point.tensor for point in waiting])
        except Exception as error:  # noqa: BLE001 - a device may fail in any way
            self._trouble(
                f"{len(waiting)} metric value(s) of run {self.name} could not be read from their device ({error})"
            )
            return
        lines = []
        for point, value in zip(waiting, values, strict=True):
            if point.series.value is point.tensor:  # nothing has been recorded since
                point.series.value = value
            lines.append(encode_metric(point.series.name, value, point.step, point.time_ms, point.model, point.dataset))
        if not self._writer.append_all(lines) or self._sealed:
            self._after_append()

    def _append(self, line: bytes) -> None:
        if not self._writer.append(line) or self._sealed:
            self._after_append()

    def _after_append(self) -> None:
        """The rare part of recording: a loss under ``on_error="raise"``, a record after the seal."""
        if self._sealed:
            self._sealed = False
            unsealed_runs.add(self)
        lost = getattr(self._writer, "lost", 0)
        if self._strict and lost:
            raise JournalError(f"{lost} record(s) of run {self.name} could not be written")

    def _log_file(self, call: str, path: str | os.PathLike[str], make: Callable[[str], bytes]) -> None:
        """Record what ``make`` makes of the path as the file ``path`` that ``call`` was given."""
        target = recorded_path(call, path)
        content = make(target)
        blob = self._kept(target, lambda: self._writer.store_bytes(content))
        if blob is not None:
            self._record(Artifact(target, blob))

    def _kept(self, path: str, store: Callable[[], T]) -> T | None:
        try:
            return store()
        except OSError as error:
            self._trouble(f"{path} of run {self.name} could not be kept ({error.strerror or error})")
            return None

    def _trouble(self, text: str) -> None:
        if self._strict:
            raise JournalError(text)
        self._link.warn(f"{text}. {GOES_ON}")

    def _inherit(self, end: RunEnd | None) -> Run:
        """Be the copy of a run that another process started and ends: it may have ended already."""
        self.is_inherited = True
        self._end = end
        if end is not None:
            self._writer.preamble = encode(end)
        return self

    def _read_own(self) -> Delivered:
        self.seal()
        return self._link.require_arrival()


def _name_of_metric(metric: Callable[..., Any]) -> str:
    sign = "neg_" if getattr(metric, "_sign", 1) < 0 else ""  # of a scorer, as scikit-learn names its own
    metric = getattr(metric, "_score_func", metric)
    while isinstance(metric, partial):
        metric = metric.func
    name = getattr(metric, "__name__", "<unnamed>")
    if not name.isidentifier():  # a lambda, an object
        raise RecordError(f'score: the function has no name of its own (got {metric!r}): score(…, name="my_score")')
    return f"{sign}{name}"


def status_of(error: BaseException | None) -> EndStatus:
    """How a block ended that was left with ``error``."""
    if error is None or isinstance(error, GeneratorExit):
        return "FINISHED"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit):
        return "FINISHED" if error.code in (None, 0) else "FAILED"
    return "FAILED"


_all_runs: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
unsealed_runs: set[Run] = set()
"""Runs that this process is to seal: those it has started, and any that is recorded into after its seal."""


def find_run(key: str) -> Run | None:
    """The run with this key, if this process has it."""
    return _all_runs.get(key)


_current: ContextVar[Run | None] = ContextVar("overt_current_run", default=None)


def current_run() -> Run | None:
    """The run of the innermost ``with overt.start_run()`` or tracked call around this line; None outside any.

    Threads begin outside any: pass ``parent=`` there.
    """
    return _current.get()


def _in_forked_child() -> None:
    unsealed_runs.clear()
    for run in list(_all_runs.values()):
        run._writer.lock = threading.RLock()  # another thread of the parent may have held it
        run._deferred = []  # its parent's to read
        run.is_inherited = True


os.register_at_fork(after_in_child=_in_forked_child)
