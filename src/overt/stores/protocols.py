"""What a store must do, and what it may do besides. A store is a projection: journals can rebuild it at any time.

Everything here is called by delivery, never by a training loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from overt.filters import Condition, Order
from overt.records import (
    Attempt,
    Batchable,
    EndStatus,
    FetchedModel,
    Metric,
    Model,
    ModelVersion,
    Promotion,
    RunDetails,
    RunSpec,
    RunSummary,
)


@runtime_checkable
class Store(Protocol):
    """Takes runs.

    Repetition
        Delivery is at-least-once: any call may be repeated with equal arguments, also from another process and after
        other calls, and must leave the same result. Ids, times and steps are in the records for that reason.
    Order
        Calls for one run come in the order in which its records were made. Runs are interleaved.
    Threads
        One caller at a time.
    Errors
        Only two escape. ``StoreUnavailable``: the same call may succeed later. ``StoreRejected``: it never will; its
        ``record`` names the culprit where the store knows it, and the others of the batch are sent again without it.
    """

    def create_run(self, spec: RunSpec) -> str:
        """Create the run, or find it by ``spec.key``, and return the store's id. An ended run is left ended."""

    def log_batch(self, run_id: str, records: Sequence[Batchable]) -> None:
        """Add metrics, params, tags and datasets, all or none where the store can."""

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Add every file below ``folder`` at its relative path, replacing what stands there."""

    def finish(self, run_id: str, status: EndStatus, ended_ms: int) -> None:
        """Set the ending."""

    def close(self) -> None:
        """Release what is held. The store is not used afterwards."""


@runtime_checkable
class ModelStore(Protocol):
    """A store that knows models. Without this ability a model's files arrive as artifacts below its name."""

    def log_model(self, run_id: str, model: Model, folder: Path) -> str:
        """Add the model whose files lie in ``folder`` and return the URI that loads it."""


@runtime_checkable
class JoinableStore(Protocol):
    """A store whose runs a caller may have started by other means."""

    def is_running(self, run_id: str) -> bool:
        """Whether the run has not ended yet."""


@runtime_checkable
class ResumableStore(Protocol):
    """A store in which a run can go on after its end: a killed training that was resumed from a checkpoint.

    Without this ability a resumed run keeps the status of its first attempt, and all points of all attempts arrive.
    """

    def begin_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Have the run running again, and remember when the attempt began; repeating it changes nothing."""

    def attempt_starts(self, run_id: str) -> Sequence[int]:
        """When the attempts from the second on began, in milliseconds; empty for a run that was never resumed."""

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """Every point of one series that has arrived, under the name that it was recorded with."""


@runtime_checkable
class SealableStore(Protocol):
    """A store that does something once for a run of which nothing more is expected."""

    def seal(self, run_id: str) -> None:
        """Make the run final as it is now. It may be changed and sealed again; repeating it changes nothing."""


@runtime_checkable
class ProbeStore(Protocol):
    """A store that can be asked whether it works, so that one record's or one run's trouble is told from its own.

    Without this ability, whatever ``StoreUnavailable`` is raised for is tried again for ever.

    Errors
        Both verbs return if it works, and raise ``StoreUnavailable`` or ``StoreRejected`` if it does not.
    """

    def probe(self) -> None:
        """Ask the store something cheap, whatever the run."""

    def probe_run(self, run_id: str, *, with_file: bool = False) -> None:
        """Write something harmless to the run that was not there, and a small file too if wanted."""


@runtime_checkable
class QueryStore(Protocol):
    """A store that can be read.

    Laziness
        ``iter_runs`` asks for runs in pages and only as they are taken: a store of thousands costs what is looked at.
    Errors
        ``StoreUnavailable`` and ``StoreRejected`` as in :class:`Store`, and ``RunNotFound`` for a name or an id that
        nothing in the store answers to.
    """

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        """Runs that are not deleted, newest first: of one experiment, of one name, or whose id or key begins so."""

    def read_run(self, run_id: str) -> RunDetails:
        """Everything that the store holds of one run, contents of files excepted."""

    def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
        """Every point of one series, under the name that it was recorded with; none for a metric that it has not."""

    def read_file(self, run_id: str, path: str) -> bytes:
        """Content of one artifact; ``ArtifactNotFound`` if the run has none at ``path``."""


@runtime_checkable
class RestoringStore(Protocol):
    """A store in which a run that was deleted can be taken back.

    Errors
        As in :class:`QueryStore`.
    """

    def deletion_of(self, name: str) -> str | None:
        """That the newest deleted run of this id, key or name is deleted, and how to take it back; None without one."""


@runtime_checkable
class PointsStore(Protocol):
    """A store that gives all series of a run at once for what one costs."""

    def iter_all_points(self, run_id: str) -> Iterator[Metric]:
        """Every point of every series of the run."""


@runtime_checkable
class SearchStore(Protocol):
    """A store that filters and sorts by itself, so that what is not asked for need not travel.

    Without this ability runs are filtered and sorted where they are asked for, over ``QueryStore.iter_runs``.

    Errors
        As in :class:`QueryStore`.
    """

    def search_runs(
        self,
        *,
        experiment: str | None = None,
        conditions: Sequence[Condition] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> Iterator[RunSummary]:
        """Runs of one experiment, or of all, for which all conditions hold, as :func:`overt.filters.in_order` sorts."""


@runtime_checkable
class ModelSource(Protocol):
    """A store that gives models back.

    Errors
        ``StoreUnavailable`` and ``StoreRejected`` as in :class:`Store`, and ``ModelNotFound`` for what nothing in the
        store answers to.
    """

    def fetch_model(self, uri: str, folder: Path) -> FetchedModel:
        """Copy a model's files into ``folder``, which is empty, opening none of them.

        ``uri`` is ``runs:/RUN/NAME``, and with a registry ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or
        ``models:/ID``.
        """

    def load_code(self, fetched: FetchedModel, flavor: str) -> Any:
        """Load a fetched model by its flavor's own loader, which may run any code that the model brings along."""


@runtime_checkable
class RegistryStore(ModelSource, Protocol):
    """A store that knows registered models, their versions and aliases.

    Repetition
        Every verb may be repeated with equal arguments and leaves the same: a model is registered once under a name.
    Threads and processes
        No verb locks anything: an alias belongs to whoever moved it last.
    Errors
        ``StoreUnavailable`` and ``StoreRejected`` as in :class:`Store`, ``RunNotFound`` and ``ModelNotFound`` for what
        nothing in the store answers to.
    """

    def aliased_run_id(self, model: str, alias: str) -> str:
        """Id of the run that made the version of a model which has this alias or number, else RunNotFound."""

    def register_model(self, run_id: str, model: str, name: str) -> ModelVersion:
        """Make the run's model called ``model`` a version of the registered model ``name``, or find that version."""

    def describe_version(self, version: ModelVersion, *, description: str | None, tags: Mapping[str, str]) -> None:
        """Replace the description unless it is None, and set ``tags``; other tags stay."""

    def read_version(self, name: str, which: str) -> ModelVersion:
        """The version that has the alias or the number ``which``; ``latest`` is that with the highest number."""

    def iter_versions(self, name: str) -> Iterator[ModelVersion]:
        """Every version of the registered model, newest first, each with its aliases, tags and promotions."""

    def read_scores(self, version: ModelVersion, metric: str) -> Sequence[Metric]:
        """Values of the metric that belong to the version's model, in order, each with its ``dataset``.

        ``dataset`` is ``name#digest``, or None where it is unknown. ModelNotFound if that model is gone.
        """

    def record_promotion(self, promotion: Promotion) -> None:
        """Keep a promotion with its version. One of the same alias and time replaces its ``state``, nothing else."""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Have ``alias`` point to the version."""
