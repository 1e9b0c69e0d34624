"""One store as a registry: what it says of registered models, together with the runs that their versions come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overt.errors import ConfigurationError, RunNotFound
from overt.query.finding import open_configured
from overt.records import Metric, ModelVersion
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
