"""One store as a registry: what it says of registered models, together with the runs that their versions come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overt.errors import ConfigurationError, RunNotFound
from overt.query.datasets import of_training
from overt.query.finding import open_configured
from overt.records import Metric, ModelVersion, RunDetails
from overt.stores.protocols import QueryStore, RegistryStore, Store


@dataclass(frozen=True, slots=True)
class Shelf:
    """One store, as what it is to read runs and as what it is to govern models."""

    runs: QueryStore
    registry: RegistryStore

    def iter_scores(self, version: ModelVersion, metric: str) -> Iterator[Metric]:
        """Scores of the version's model, whichever evaluation of its run they are of."""
        for name in (metric, *self._further(version, metric)):
            yield from self.registry.read_scores(version, name)

    def training_data(self, version: ModelVersion) -> frozenset[str]:
        """Identities of the data that the version's model was fitted to, as far as its run tells."""
        details = self._run_of(version)
        return frozenset() if details is None else of_training(details.datasets)

    def _further(self, version: ModelVersion, metric: str) -> Sequence[str]:
        """What the metric is called where ``evaluate`` took it on a second set of data, a third, and so on."""
        details = self._run_of(version)
        further = re.compile(rf"eval_\d+_{re.escape(metric)}")
        return [] if details is None else [name for name in details.run.metrics if further.fullmatch(name)]

    def _run_of(self, version: ModelVersion) -> RunDetails | None:
        try:
            return None if version.run_id is None else self.runs.read_run(version.run_id)
        except RunNotFound:
            return None


def open_shelf(store: str | Store | None) -> Shelf:
    """The store to work with; the configured one if None."""
    opened = open_configured(store)
    return Shelf(opened, registry_of(opened))


def registry_of(store: QueryStore) -> RegistryStore:
    """``store`` as what governs models; ConfigurationError where it governs none."""
    if not isinstance(store, RegistryStore):
        raise ConfigurationError(
            "registered models need an MLflow store, such as store='sqlite:///mlflow.db' or a server's address "
            f"(got a {type(store).__name__})."
        )
    return store
