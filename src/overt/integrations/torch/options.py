"""What ``track_training`` was told, checked where it was written down: a mistake raises at the decorator's line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from overt.checkpoints import CheckpointFile
from overt.errors import ConfigurationError
from overt.resuming import Resume, find_checkpoint
from overt.run import Run
from overt.settings import Settings
from overt.tracker import HookRun, Tracker, open_for_hook
from overt.validation import check_details


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keywords of ``track_training``."""

    experiment: str | None = None
    run_name: str | None = None
    tags: Mapping[str, object] | None = None
    params: Mapping[str, object] | None = None
    notes: str | None = None
    run: Run | None = None
    parent: Run | str | None = None
    tracker: Tracker | None = None
    observe: Sequence[str] = ()
    every_n_steps: int | None = None
    log_model: bool = True
    evaluate: bool = True
    class_names: Sequence[str] | None = None
    gradient_norm: bool = False
    stop_on_nan: bool = False
    system_metrics: bool | None = None
    resume: Resume = "auto"

    def __post_init__(self) -> None:
        check_details(
            run_name=self.run_name,
            name_argument="run_name",
            experiment=self.experiment,
            tags=self.tags,
            params=self.params,
            notes=self.notes,
        )
        for name, kind in (("run", Run), ("tracker", Tracker)):
            if not isinstance(getattr(self, name), kind | None):
                raise ConfigurationError(
                    f"`{name}` must be a {kind.__name__} (got {type(getattr(self, name)).__name__})."
                )
        for name in ("log_model", "evaluate", "gradient_norm", "stop_on_nan"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"`{name}` must be True or False (got {getattr(self, name)!r}).")
        if not isinstance(self.system_metrics, bool | None):
            raise ConfigurationError(f"`system_metrics` must be True, False or None (got {self.system_metrics!r}).")
        if self.resume not in get_args(Resume):
            raise ConfigurationError(f"`resume` must be 'auto', 'never' or 'must' (got {self.resume!r}).")
        every = self.every_n_steps
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ConfigurationError(f"`every_n_steps` must be a whole number from 1 up (got {every!r}).")
        for name in ("observe", "class_names"):
            _check_texts(name, getattr(self, name))

    def find_checkpoint(self, function: str, params: Mapping[str, object]) -> CheckpointFile:
        """Where ``run.epochs(checkpoint=…)`` saves, and may have saved before."""
        given = Settings(experiment=self.experiment)
        settings = (given, self.tracker.settings) if self.tracker else (given,)
        return find_checkpoint(self.run_name or function, {**params, **(self.params or {})}, self.resume, *settings)

    def open_run(self, default_name: str, *, run: Run | None, checkpoint: Mapping[str, Any] | None = None) -> HookRun:
        """The run to record into; ``run`` if that is decided already, and that of a checkpoint if there is one."""
        return open_for_hook(
            default_name,
            experiment=self.experiment,
            run_name=self.run_name,
            tags=self.tags,
            params=self.params,
            notes=self.notes,
            run=run or self.run,
            parent=self.parent,
            tracker=self.tracker,
            system_metrics=self.system_metrics,
            checkpoint=checkpoint,
        )


def _check_texts(name: str, value: Any) -> None:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if value is not None and not (is_list and all(isinstance(item, str) for item in value)):
        raise ConfigurationError(f"`{name}` must be a list of texts (got {value!r}).")
