"""A run that grows with every ``partial_fit``: a call adds little to it, and the model is written when it ends.

Pickling a model may take longer than a call on a small batch, so it waits for the end of the run (by ``run_.finish()``,
a ``fit``, the end of a ``with`` or of the script), or for an evaluation whose scores refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from sklearn.utils import _safe_indexing, indexable

from overt.integrations.sklearn.recording import FitRecorder
from overt.models.sklearn import ModelFormat
from overt.run import Run
from overt.tracker import HookRun

DESCRIBED_CALLS = 10
"""Calls whose data are described: a digest reads every byte, and nobody reads a list of thousands of inputs."""

_EXAMPLE_ROWS = 5


@dataclass(slots=True)
class PartialFit:
    """The calls of ``partial_fit`` that share one run.

    Attributes
    ----------
    log_model, model_format, register_as
        As :class:`~overt.TrackedEstimator` takes them. Only a model whose run did not fail is registered.
    fitted : estimator or None
        As the last call left it; None before the first has succeeded and after the end.
    """

    hook: HookRun
    recorder: FitRecorder
    log_model: bool
    model_format: ModelFormat
    register_as: str | None
    fitted: Any = field(default=None, init=False)
    _params: Mapping[str, str] = field(default_factory=dict, init=False)
    _n_described: int = field(default=0, init=False)
    _head: Any = field(default=None, init=False)
    _model: str | None = field(default=None, init=False)
    _is_written: bool = field(default=False, init=False)

    @property
    def run(self) -> Run:
        """The run of these calls."""
        return self.hook.run

    def note_params(self, estimator: Any) -> None:
        """Record the parameters of a call, as far as they are others than those of the call before."""
        self._params = self.recorder.params(estimator, self._params)

    def describe(self, X: Any, y: Any) -> None:
        """Record the data of a call, of the first calls; the run says from where on it does not."""
        if self._n_described == 0:
            self._head = _first_rows(X)
        if self._n_described < DESCRIBED_CALLS:
            self.recorder.dataset(X, y, name="train", context="training")
        elif self._n_described == DESCRIBED_CALLS:
            self.run.set_tag(
                "overt.data_note", f"the data of the first {DESCRIBED_CALLS} calls of partial_fit are described"
            )
        self._n_described = min(self._n_described, DESCRIBED_CALLS) + 1

    def follow(self, fitted: Any, *, seconds: float) -> None:
        """Take note of a call that has succeeded."""
        self.fitted, self._is_written = fitted, False
        self.run.log_metric("partial_fit_seconds", seconds)

    def model(self) -> str | None:
        """The name that metrics refer to the model by, which is written as it is now if a call has changed it."""
        if self.fitted is not None and self.log_model and not self._is_written:
            self._write(register_as=None)
        return self._model

    def close(self) -> None:
        """End the run if it is ours to end; what is recorded at its end is recorded now in any case."""
        if self.hook.owned:
            self.run.finish()
        self.at_end(self.run)

    def at_end(self, run: Run) -> None:
        """Record what a fit would have recorded, once. A run calls this when it has ended."""
        if self.fitted is None:
            return
        register_as = self.register_as if run.status not in ("FAILED", "KILLED") else None
        if self.log_model and (register_as or not self._is_written):
            self._write(register_as=register_as)
        self.recorder.html(self.fitted)
        self.recorder.importances(self.fitted)
        self.fitted = self._head = None  # the run may outlive the user's interest in them

    def _write(self, *, register_as: str | None) -> None:
        self._model = self.recorder.model(
            self.fitted, self._head, model_format=self.model_format, register_as=register_as
        )
        self._is_written = True


def _first_rows(X: Any) -> Any:
    """A copy of a few rows, for signature and example: X itself may be large, and the user's to overwrite."""
    try:
        (X,) = indexable(X)
        return _safe_indexing(X, numpy.arange(min(_EXAMPLE_ROWS, X.shape[0] if hasattr(X, "shape") else len(X))))
    except Exception:  # noqa: BLE001 - data may be of any class: then there is no example
        return None
