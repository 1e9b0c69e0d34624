"""One run being recorded: what each of Lightning's hooks means for it. Nothing here decides which run, or ends it.

Step series have the optimizer step as their axis (``trainer.global_step`` after the step, as in a checkpoint's file
name), epoch series the epoch. Validation is an epoch series where it runs once per epoch at most; where
``val_check_interval`` has it run more often, the optimizer step is its axis.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from overt.capture.training import count_samples, first_samples, learning_rates, summarize_model
from overt.evaluation.predictions import ReadPredictions, evaluate_predictions
from overt.evaluation.report import Report
from overt.guard import Parts
from overt.integrations.lightning import described, logged, measuring, models, outputs
from overt.integrations.lightning.evaluated import EvaluatedData
from overt.models.torch import torch_model
from overt.resuming import run_key_of
from overt.run import Run
from overt.settings import is_quiet

LogModel = Literal["last", "best", False]
MODEL_NAME = "model"
CHECKPOINTS = "checkpoints"

_EXAMPLE_ROWS = 5
_NOTHING_BEST = 'log_model="best" found %s: the last weights were recorded instead'


class Session:
    """Records one fit, and the evaluations that follow it, into one run.

    Parameters
    ----------
    run : Run
        Where everything goes.
    log_model, log_every_n_steps, evaluate, class_names, gradient_norm
        As :class:`~overt.TrackingCallback` takes them.
    """

    def __init__(
        self,
        run: Run,
        *,
        log_model: LogModel,
        log_every_n_steps: int | None,
        evaluate: bool,
        class_names: Sequence[str] | None,
        gradient_norm: bool,
    ) -> None:
        self.run = run
        self.parts = Parts(run)
        self.n_stepped = 0
        self._log_model = log_model
        self._every = log_every_n_steps
        self._evaluate = evaluate
        self._class_names = class_names
        self._with_gradient_norm = gradient_norm
        self._names: set[str] = set()  # of what the module logs
        self._described: Mapping[str, object] = {}
        self._has_described_optimizers = False
        self._model: str | None = None
        self._weights: Path | None = None  # the checkpoint that the recorded model is from; None for the last weights
        self._module: weakref.ref[Any] | None = None  # the one that holds the recorded weights

        self._step_values = logged.StepValues()
        self._epoch_values = logged.TrainEpochValues()
        self._n_results = 0  # of what the module has logged while training, when it was looked at last
        self._began_at = self._last_step = -1
        self._step: int | None = None  # of the batch whose last values are not read yet
        self._is_due = False
        self._accumulates = False  # gradients: the step that is going on has had batches before this one
        self._measured: dict[str, Any] = {}  # learning rates and gradient norms of the batch that is going on
        self._has_seen_batch = False
        self._candidates: list[Any] = []  # for what the model takes

        self._first_epoch: int | None = None  # of what is trained here; None where nothing is
        self._kept_before: Mapping[Path, int] | None = None  # best checkpoints of earlier fits, which stay in a Trainer
        self._epoch: int | None = None  # the one whose values are not read yet
        self._epoch_began = 0.0
        self._n_samples = 0
        self._evaluating_s = 0.0

        self._evaluation_began = 0.0
        self._evaluation_values = logged.StepValues()
        self._n_evaluated: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._outputs = outputs.Outputs(self.parts)
        self._data: defaultdict[str, EvaluatedData] = defaultdict(EvaluatedData)  # by stage
        self._prefix = ""  # of all that is recorded of this pass, where the stage has seen other data before: test_2_
        self._validated_at: int | None = None
        self._validates_within_epochs: bool | None = None  # as the first validation of a fit does

    # -- before --------------------------------------------------------------------------------------------------------

    def describe_fit(self, trainer: Any, module: Any) -> None:
        """Params, summary and configuration, before the first step."""
        with self.parts.guarded("params"):
            self._described = described.describe_fit(trainer, module, with_optimizers=False)
            self._log_params(self._described)
        if trainer.ckpt_path:
            self.describe_optimizers(trainer, module)  # a checkpoint's settings replace these before training starts
        with self.parts.guarded("model summary"):
            summary = summarize_model(module)
            self._log_params(summary.to_params())
            self.run.log_text(summary.table, "model_summary.txt")
        self._record_cli_config(trainer)

    def describe_optimizers(self, trainer: Any, module: Any) -> None:
        """Params of optimizers and schedulers, when training starts: a LearningRateFinder has been there by then."""
        if self._has_described_optimizers:
            return
        self._has_described_optimizers = True
        with self.parts.guarded("params"):
            params = described.describe_fit(trainer, module)
            self._log_params({name: value for name, value in params.items() if name not in self._described})

    def describe_evaluation(self, trainer: Any, module: Any) -> None:
        """Params of a validate, test or predict that follows no fit."""
        with self.parts.guarded("params"):
            self._log_params(described.describe_evaluation(trainer, module))
        self._record_cli_config(trainer)

    def _record_cli_config(self, trainer: Any) -> None:
        with self.parts.guarded("configuration of LightningCLI"):
            if (config := described.cli_config(trainer)) is not None:
                self.run.log_text(config[1], config[0])

    def _log_params(self, params: Mapping[str, object]) -> None:
        for name, value in params.items():
            self.run.log_param(name, value)

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint is to tell of this run."""
        evaluated = [[*place, count] for place, count in self._n_evaluated.items()]
        return {"run": self.run.to_checkpoint(), "n_stepped": self.n_stepped, "n_evaluated": evaluated}

    def save_so_far(self, trainer: Any) -> None:
        """Have everything up to a checkpoint on the disk when the checkpoint is."""
        self.close_step(trainer)
        self.run.flush()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a checkpoint; where it is another run's, say so."""
        if "run" not in state:
            return
        self.n_stepped = int(state["n_stepped"])
        if (key := run_key_of(state["run"])) != self.run.key:
            self.run.set_tag("overt.checkpoint_of", key)
        else:
            self._kept_before = {}  # they are of this run
            self._n_evaluated.update({(stage, int(loader)): int(n) for stage, loader, n in state["n_evaluated"]})

    # -- training ------------------------------------------------------------------------------------------------------

    def train_start(self, trainer: Any) -> None:
        """Remember where counting begins: not at zero when training was resumed, nor at an epoch's start."""
        self._began_at = self._last_step = trainer.global_step
        self._first_epoch = trainer.current_epoch
        self._measure_anew()
        if self._kept_before is None:
            self._kept_before = models.best_checkpoints(trainer)

    def train_epoch_start(self, trainer: Any) -> None:
        """Close the epoch before, and begin to measure this one."""
        self.close_epoch(trainer)
        self._measure_anew()

    def _measure_anew(self) -> None:
        self._epoch_began = time.perf_counter()
        self._evaluating_s, self._n_samples = 0.0, 0

    def train_batch_start(self, trainer: Any, module: Any, batch: Any) -> None:
        """See what this batch begins with: its learning rates, and what was logged before it."""
        self.close_step(trainer)
        if not self._has_seen_batch:
            self._has_seen_batch = True
            with self.parts.guarded("batch size"):
                self._log_params(described.batch_size(trainer, batch, known=self._described))
            with self.parts.guarded("input example"):
                self._candidates = first_samples(models.candidates_in(batch, module), _EXAMPLE_ROWS)
        every = self._every or trainer.log_every_n_steps
        is_first = self._n_samples == 0
        self._is_due = bool(every) and (self.n_stepped + 1) % every == 0
        if self._is_due and not self._accumulates:
            self._step_values.forget(logged.training_results(trainer))
        # the scheduler moves on before the batch has ended: these are the rates that this batch steps with
        self._measured = learning_rates(trainer.optimizers) if self._is_due or is_first else {}

    def before_optimizer_step(self, trainer: Any, optimizer: Any) -> None:
        """See the gradients of a step that is to be recorded."""
        if self._with_gradient_norm and self._is_due:
            self._measured |= measuring.gradient_norm(trainer, optimizer)

    def train_batch_end(self, trainer: Any, module: Any, batch: Any) -> None:
        """Record what this step has logged, if it is one to be recorded."""
        self._n_samples += count_samples(batch) or 0
        step = trainer.global_step
        # a module that steps by hand is known to step through Lightning once it has
        is_counted = module.automatic_optimization or step > self._began_at
        self._accumulates = bool(is_counted and step == self._last_step)
        if self._accumulates:
            return  # the last value of each name stands for the step, as in Lightning's loggers
        self._last_step = step
        self.n_stepped += 1
        results = logged.training_results(trainer)
        if self._is_due:
            self._step = step
            self._log(self._step_values.iter_fresh(results), step=step)
        if self._measured:
            if len(results) != self._n_results:
                self._n_results = len(results)
                self._names.update(logged.iter_names(results))
            self._log_own(self._measured, step=step)

    def close_step(self, trainer: Any) -> None:
        """Record what was logged after our own hook: by the module's ``on_train_batch_end``."""
        step, self._step = self._step, None
        if step is not None:
            results = logged.training_results(trainer)
            self._log(self._step_values.iter_fresh(results, hook=logged.BATCH_END), step=step)

    def train_epoch_end(self, trainer: Any) -> None:
        """Measure the epoch; what was logged for it is complete only after the module's own hook."""
        self.close_step(trainer)
        self._epoch = trainer.current_epoch
        seconds = time.perf_counter() - self._epoch_began
        measured = {"epoch_seconds": seconds}
        if self._n_samples and seconds > self._evaluating_s:
            n_samples = self._n_samples * trainer.world_size
            measured["samples_per_second"] = n_samples / (seconds - self._evaluating_s)
        with self.parts.guarded("device memory"):
            measured |= measuring.device_memory(trainer.strategy.root_device)
        self._log_own(measured, step=self._epoch)

    def close_epoch(self, trainer: Any) -> None:
        """Record what Lightning has computed for the epoch that has ended, and force it to the disk."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            self._log(self._epoch_values.iter_fresh(trainer), step=epoch)
            self.run.flush()

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def evaluation_start(self, trainer: Any) -> None:
        """Begin a pass over validation or test data."""
        self.close_step(trainer)
        self._evaluation_began = time.perf_counter()
        self._evaluation_values = logged.StepValues()
        self._prefix = ""
        with self.parts.guarded("predictions"):
            self._outputs.begin(trainer.lightning_module)

    def evaluation_batch_start(self, trainer: Any, batch: Any, batch_idx: int, stage: str, loader: int) -> None:
        """See which data these are, and what losses are given, where that is what can be evaluated."""
        if batch_idx == loader == 0:
            with self.parts.guarded("evaluated data"):
                self._tell_data_apart(trainer, batch, stage)
        if self._evaluate:
            self._outputs.watch((stage, loader))

    def _tell_data_apart(self, trainer: Any, batch: Any, stage: str) -> None:
        data = self._data[stage]
        if trainer.state.fn == "fit" and len(data):
            return
        is_test = stage == "test"
        number = data.number(batch, n_batches=trainer.num_test_batches if is_test else trainer.num_val_batches)
        if number > 1:
            self._prefix = f"{'test' if is_test else 'val'}_{number}_"
            self.run.warn(
                f"{stage}() was called on other data than before: recorded as {self._prefix}… in run {self.run.name}. "
                f"To evaluate several sets at once: trainer.{stage}(model, [one, other])"
            )

    def stop_watching(self) -> None:
        """Leave nothing of ours on PyTorch's stack: a batch may end in an exception."""
        self._outputs.stop_watching()

    def evaluation_batch_end(self, trainer: Any, returned: Any, stage: str, loader: int) -> None:
        """Keep predictions, and record what the module logs batch by batch, along the batches seen so far."""
        if self._evaluate:
            with self.parts.guarded("predictions"):
                self._outputs.add(returned, (stage, loader))
        place = (self._prefix or stage, loader)
        self._log(self._iter_named(self._evaluation_values.iter_fresh(trainer._results)), step=self._n_evaluated[place])
        self._n_evaluated[place] += 1

    def validation_end(self, trainer: Any) -> None:
        """Record a validation."""
        if trainer.state.fn == "fit":
            if self._validates_within_epochs is None:  # StochasticWeightAveraging lengthens the epoch that it adds
                self._validates_within_epochs = _validates_within_epochs(trainer)
            self._validated_at = trainer.global_step if self._validates_within_epochs else trainer.current_epoch
        elif self._validated_at is None:
            self._validated_at = max(trainer.current_epoch - 1, 0)  # after a fit it is the one that would come next
        self._log(self._iter_named(logged.iter_evaluated(trainer)), step=self._validated_at)
        self._evaluating_s += time.perf_counter() - self._evaluation_began

    def test_end(self, trainer: Any) -> None:
        """Record a test."""
        self._log(self._iter_named(logged.iter_evaluated(trainer)), step=trainer.current_epoch)

    def read_predictions(self, trainer: Any) -> dict[int, ReadPredictions]:
        """What was kept of the last pass on this rank, by data loader; each sample on one rank only."""
        return outputs.without_repeats(trainer, self._outputs.read())

    def report_validation(self, found: Mapping[int, ReadPredictions]) -> None:
        """Record the report of the last validation, as ``val_…``."""
        self._report(found, self._prefix or "val_", step=self._validated_at or 0, step_name="validation_step")

    def report_test(self, trainer: Any, found: Mapping[int, ReadPredictions]) -> None:
        """Record the report of a test, under plain names."""
        model = self._model if self._has_recorded_weights(trainer) else None
        self._report(found, self._prefix, step=trainer.current_epoch, step_name="test_step", model=model)

    def _has_recorded_weights(self, trainer: Any) -> bool:
        """Whether the trainer has just tested the weights that the run's model has."""
        if trainer.ckpt_path:
            self._module = None  # the module has that checkpoint's weights from here on
            return self._weights is not None and self._weights == Path(trainer.ckpt_path)
        return self._module is not None and self._module() is trainer.lightning_module

    def _report(
        self,
        found: Mapping[int, ReadPredictions],
        prefix: str,
        *,
        step: int,
        step_name: str,
        model: str | None = None,
    ) -> None:
        if not found and self._evaluate and self._n_evaluated and not self.run.is_null:
            self._advise(step_name)
        for loader, read in found.items():
            place = f"{prefix}dataloader_{loader}_" if len(found) > 1 else prefix
            with self.parts.guarded(f"{place}evaluation"):
                report = evaluate_predictions(read, class_names=self._class_names)
                report = replace(report, notes=(*self._outputs.notes(loader), *report.notes))
                self._log_report(report, place, step=step, model=model)
        self._outputs.forget()

    def _log_report(self, report: Report, prefix: str, *, step: int, model: str | None) -> None:
        """Record a report; where the module logs something under a name of its own, that stands."""
        for name, value in report.metrics.items():
            spellings = [f"{prefix}{name}"] if prefix else [name, f"test_{name}"]
            free = next((spelling for spelling in spellings if spelling not in self._names), None)
            if free is not None:
                self.run.log_metric(free, value, step=step, model=model)
        self.run.log_report_files(report, prefix=prefix)
        if report.notes:
            self.run.set_tag(f"overt.notes.{prefix or 'test_'}report", "; ".join(report.notes))

    def _advise(self, step_name: str) -> None:
        advice = outputs.ADVICE % step_name
        self.run.set_tag("overt.not_evaluated", advice)
        if not is_quiet():
            print(f"overt: {advice}", file=sys.stderr)

    def log_prediction(self, n_samples: int, seconds: float) -> None:
        """Record that predictions were made, and how fast."""
        self.run.log_metrics({"predict_samples": n_samples, "predict_seconds": seconds})

    # -- after ---------------------------------------------------------------------------------------------------------

    def record_outcome(self, trainer: Any, module: Any) -> None:
        """Record how the fit went: why it stopped, its best checkpoint, its model."""
        with self.parts.guarded("early stopping"):
            for callback in trainer.callbacks:
                if described.is_a(callback, "EarlyStopping") and self._was_stopped_by(callback, trainer):
                    self.run.set_tag("overt.stopped_early", f"after epoch {callback.stopped_epoch}: {callback.monitor}")
        if not self._log_model:
            return
        best = None
        with self.parts.guarded("best checkpoint"):
            best = self._best_checkpoint(trainer)
            if best is not None:
                self.run.log_artifact(best, CHECKPOINTS)
                self.run.set_tag("overt.best_checkpoint", f"{CHECKPOINTS}/{best.name}")
        with self.parts.guarded("model"):
            notes = []
            if self._log_model == "best" and best is None:
                is_earlier = bool(models.best_checkpoints(trainer))
                found = "the best checkpoint of an earlier fit" if is_earlier else "no checkpoint of a ModelCheckpoint"
                notes.append(_NOTHING_BEST % found)
                self.run.warn(f"{notes[0]}. Add a new ModelCheckpoint to the Trainer, or pass log_model='last'")
            self._weights = best if self._log_model == "best" else None
            saved = module if self._weights is None else models.with_weights_of(module, self._weights)
            params = {name: value for name, value in self.run.params.items() if len(value) <= 250}
            files = torch_model(saved, *self._candidates, params=params)
            self.run.log_model(files, name=MODEL_NAME)
            if notes := [*notes, *files.notes]:
                self.run.set_tag("overt.model_note", "; ".join(notes))
            self._model = MODEL_NAME
            self._module = weakref.ref(module) if self._weights is None else None

    def _was_stopped_by(self, callback: Any, trainer: Any) -> bool:
        """Whether an EarlyStopping has ended this fit: its ``stopped_epoch`` may be an earlier one's, or 0 for none."""
        if self._first_epoch is None or not trainer.should_stop:
            return False
        epoch: int = callback.stopped_epoch
        return self._first_epoch <= epoch < trainer.current_epoch and (epoch > 0 or trainer.current_epoch == 1)

    def _best_checkpoint(self, trainer: Any) -> Path | None:
        """The best one that this fit has made, or this run before it."""
        before = self._kept_before
        if before is None:
            return None
        return next((path for path, ns in models.best_checkpoints(trainer).items() if before.get(path) != ns), None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _iter_named(self, values: Iterable[logged.Value]) -> Iterable[logged.Value]:
        """What the module has logged of data, under the names that these data have."""
        stage = self._prefix.partition("_")[0]
        return ((f"{self._prefix}{name.removeprefix(f'{stage}_')}" if stage else name, value) for name, value in values)

    def _log(self, values: Iterable[logged.Value], *, step: int) -> None:
        for name, value in values:
            self._names.add(name)
            self.run.log_metric(name, value, step=step)

    def _log_own(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record what overt measures; where the module logs something under that name, the module's stands."""
        for name, value in values.items():
            if name not in self._names:
                self.run.log_metric(name, value, step=step)


def _validates_within_epochs(trainer: Any) -> bool:
    """Whether a fit validates at other times than the ends of epochs: then the optimizer step is the axis."""
    if trainer.check_val_every_n_epoch is None or trainer.val_check_batch is None:
        return True
    return bool(trainer.val_check_batch < trainer.num_training_batches)
