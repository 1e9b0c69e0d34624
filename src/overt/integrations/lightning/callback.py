"""``TrackingCallback`` without a tree: which run, from when to when, and how it ends. No Lightning is imported here.

Every hook is guarded: what fails in it is said in the run and once aloud, and training goes on. Only what can be told
to be the user's mistake before anything is trained raises: at construction, and when a fit starts.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from traceback import walk_tb
from typing import Any, TypeVar, get_args

from overt.capture.training import count_samples
from overt.errors import ConfigurationError
from overt.evaluation.predictions import ReadPredictions
from overt.integrations.lightning.described import is_a
from overt.integrations.lightning.outputs import gather
from overt.integrations.lightning.session import LogModel, Session
from overt.links import null_run
from overt.process import uncaught_error
from overt.records import EndStatus
from overt.resuming import Resume, run_key_of
from overt.run import Run, current_run, status_of
from overt.say import say
from overt.settings import is_quiet
from overt.tracker import HookRun, Tracker, open_for_hook
from overt.validation import check_details

_NOTHING_TO_RESUME = (
    "resume='must' needs a checkpoint that was made with a TrackingCallback, and %s. To start a new run: resume='auto'."
)
_AHEAD = (
    "run %s, which this checkpoint was made in, has got further and FINISHED: this fit is a run of its own. "
    "To go on in that one: resume='must'"
)
_OF_THE_PROCESS = ("_has_begun", "_is_of_fit", "_is_watched")
_OF_THE_MODULE = ("log", "log_dict")  # its own methods, which Lightning sets on each callback when it begins

_finished_after: dict[str, int] = {}
"""How many steps a fit had made when it FINISHED in this process, by the key of its run."""

T = TypeVar("T")


class TrackingHooks:
    """Records what a Lightning ``Trainer`` trains: pass it among the Trainer's callbacks.

    Parameters
    ----------
    experiment : str, optional
        Where the run goes; as configured if absent.
    run_name : str, optional
        The run's name; the module's class and four characters if absent.
    tags, params : mapping, optional
        Recorded besides what the training gives.
    notes : str, optional
        Markdown for the run's page.
    run : Run, optional
        Record into this run and leave it open.
    parent : Run or str, optional
        Run, or key of one, to nest the fit's run in.
    tracker : Tracker, optional
        Settings to use.
    log_model : {"last", "best", False}
        Which weights to record as the run's model: those that the fit ends with, those of the best checkpoint, or none.
        The best checkpoint's file is recorded as well, unless this is False.
    log_every_n_steps : int, optional
        Record what is logged for steps at every n-th; as the Trainer's own ``log_every_n_steps`` (50) if absent.
    evaluate : bool
        Whether to make a report of what ``validation_step`` and ``test_step`` return, if that is a mapping with
        ``logits``, ``probs``, ``preds`` or ``y_hat``, and ``target``, ``targets``, ``y`` or ``labels``; else of what a
        loss in them is given, of those in ``torch.nn.functional`` and of the loss modules, which call these.
    resume : {"auto", "never", "must"}
        Whether ``fit(ckpt_path=…)`` goes on in the run that the checkpoint was made in: if the checkpoint tells of one,
        never, or always, so that a fit without such a checkpoint raises. A run that was not the callback's own
        (``run=``, a ``with overt.start_run()`` around the fit) goes on under "must" only, and so does one that has got
        further and FINISHED in this process.
    class_names : sequence of str, optional
        What to call the classes 0, 1, … in reports.
    gradient_norm : bool
        Whether to record the norm of the gradients of each optimizer, at the steps that are recorded.
    system_metrics : bool, optional
        Whether the processor, memory, disk, network and GPU are watched; as configured if absent.

    Attributes
    ----------
    run_ : Run or None
        The run of the last fit, on every rank; None before, and under ``fast_dev_run``.

    Notes
    -----
    What the module logs keeps its name. Step values stand at ``trainer.global_step``, epoch values at the epoch;
    nothing is recorded of the sanity check. ``validate()``, ``test()`` and ``predict()`` after a fit go to its run;
    alone each is a run of its own. ``validate()`` or ``test()`` on other data than before is recorded as ``val_2_…`` or
    ``test_2_…``.
    """

    def __init__(
        self,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        notes: str | None = None,
        run: Run | None = None,
        parent: Run | str | None = None,
        tracker: Tracker | None = None,
        log_model: LogModel = "last",
        log_every_n_steps: int | None = None,
        evaluate: bool = True,
        class_names: Sequence[str] | None = None,
        resume: Resume = "auto",
        gradient_norm: bool = False,
        system_metrics: bool | None = None,
    ) -> None:
        details = {"experiment": experiment, "tags": tags, "params": params, "notes": notes}
        check_details(run_name=run_name, name_argument="run_name", **details)
        _check("run", run, Run | None)
        _check("parent", parent, Run | str | None)
        _check("tracker", tracker, Tracker | None)
        _check("evaluate", evaluate, bool)
        _check("gradient_norm", gradient_norm, bool)
        _check("system_metrics", system_metrics, bool | None)
        if not (log_model is False or log_model in ("last", "best")):
            raise ConfigurationError(f"`log_model` must be 'last', 'best' or False (got {log_model!r}).")
        if resume not in get_args(Resume):
            raise ConfigurationError(f"`resume` must be 'auto', 'never' or 'must' (got {resume!r}).")
        if resume == "must" and run is not None:
            raise ConfigurationError("`run` and resume='must' name two runs to record into: pass one of them.")
        if log_every_n_steps is not None and (type(log_every_n_steps) is not int or log_every_n_steps < 1):
            raise ConfigurationError(
                f"`log_every_n_steps` must be a whole number from 1 on, or None for the Trainer's own "
                f"(got {log_every_n_steps!r})."
            )
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names or ()):
            raise ConfigurationError(f"`class_names` must be a sequence of texts (got {class_names!r}).")
        self._where: dict[str, Any] = {
            **details,
            "run_name": run_name,
            "run": run,
            "parent": parent,
            "tracker": tracker,
            "system_metrics": system_metrics,
        }
        self._how: dict[str, Any] = {
            "log_model": log_model,
            "log_every_n_steps": log_every_n_steps,
            "evaluate": evaluate,
            "class_names": class_names,
            "gradient_norm": gradient_norm,
        }
        self._resume: Resume = resume
        self.run_: Run | None = None
        self._around: Run | None = None
        self._hook: HookRun | None = None
        self._session: Session | None = None
        self._has_begun = False  # whether the fit that is going on has come to on_fit_start
        self._is_watched = False  # whether it is to be looked after when the process ends
        self._is_of_fit = False
        self._loaded: dict[str, Any] = {}
        self._began = 0.0
        self._n_predicted = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: the settings and the last run. What is being recorded stays with the original."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_THE_MODULE}
        return kept | dict.fromkeys(_OF_THE_PROCESS, False) | {"_around": None, "_hook": None, "_session": None}

    # -- opening and ending --------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """From here to the end of the stage it is told from here what is trained, also in a decorated call."""
        self._around = current_run()
        self._tells(True)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the fit's run."""
        self._close()
        self._has_begun = True
        if not _is_rehearsal(trainer):
            self._open(trainer, pl_module, checkpoint=self._checkpoint_to_go_on_from(trainer))
            self._is_of_fit = True
            self._record("description", Session.describe_fit, trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Record model and outcome, when the strategy has brought the module home."""
        if trainer.is_global_zero:
            self._record("outcome", Session.record_outcome, trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End the run: Lightning comes here only when all went well."""
        self._tells(False)
        self._record("evaluation", Session.stop_watching)
        self._record("ending", self._finish, "FINISHED")
        self._loaded, self._has_begun = {}, False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as what happened to it."""
        self._tells(False)
        self._record("evaluation", Session.stop_watching)
        is_before = trainer.state.fn == "fit" and not self._has_begun and not _is_in_teardown(exception)
        if is_before and not _is_rehearsal(trainer):
            self._open_for_failure(trainer, pl_module)
        if trainer.state.fn == "fit":
            self._record("description", Session.describe_optimizers, trainer, pl_module)
        status = _status_of(exception)
        self._record("last step", Session.close_step, trainer)
        self._record("last epoch", Session.close_epoch, trainer)
        self._record("ending", self._finish, status, exception if status == "FAILED" else None)
        self._loaded, self._has_begun = {}, False

    def _tells(self, it_does: bool) -> None:
        if self._around is not None:
            self._around.is_told_by_callback = it_does

    def _open(self, trainer: Any, module: Any, *, checkpoint: Mapping[str, Any] | None = None) -> None:
        hook = open_for_hook(type(module).__name__, **self._where, checkpoint=checkpoint)
        if trainer.world_size > 1:
            key = trainer.strategy.broadcast(hook.run.key)
            if key != hook.run.key:
                hook = HookRun(null_run(replace(hook.run.spec, key=key)), owned=True)
        self._begin(hook)

    def _open_for_failure(self, trainer: Any, module: Any) -> None:
        """Open the run of a fit that has failed before Lightning came to ``on_fit_start``."""
        self._close()
        if not trainer.is_global_zero or is_a(trainer.strategy.launcher, "_MultiProcessingLauncher"):
            return  # the processes that it starts have runs of their own
        with suppress(Exception):  # the user is to see what has failed
            checkpoint = self._checkpoint_to_go_on_from(trainer)
            self._begin(open_for_hook(type(module).__name__, **self._where, checkpoint=checkpoint))
            self._record("description", Session.describe_fit, trainer, module)

    def _begin(self, hook: HookRun) -> None:
        if not self._is_watched:
            self._is_watched = True
            atexit.register(_end_what_was_left, weakref.ref(self))
        self._hook, self.run_ = hook, hook.run
        self._session = Session(self.run_, **self._how)
        loaded, self._loaded = self._loaded, {}
        self._record("checkpoint", Session.load_state, loaded)

    def _checkpoint_to_go_on_from(self, trainer: Any) -> Mapping[str, Any] | None:
        """What the checkpoint that a fit goes on from tells of the run to go on in; None for a new run."""
        loaded = self._loaded
        is_told = "run" in loaded and (loaded.get("is_own") or self._resume == "must")
        if self._resume == "must" and not is_told:
            raise ConfigurationError(
                _NOTHING_TO_RESUME % ("this one tells of no run" if trainer.ckpt_path else "fit() was given none")
            )
        if not is_told or self._resume == "never" or self._where["run"] is not None:
            return None
        key = run_key_of(loaded["run"])
        if self._resume == "auto" and _finished_after.get(key, 0) > int(loaded["n_stepped"]):
            if trainer.is_global_zero and not is_quiet():
                say(_AHEAD % key[:8])
            return None
        checkpoint: Mapping[str, Any] = loaded["run"]
        return checkpoint

    def end_what_was_left(self) -> None:
        """The process ends in the midst of a fit and Lightning has told nobody, as in processes that it spawns."""
        if self._has_begun and uncaught_error() is None:
            error = RuntimeError("the process ended in the midst of the fit; its launcher was told why")
            self._record("ending", self._finish, "FAILED", error)

    def _finish(self, session: Session, status: EndStatus, error: BaseException | None = None) -> None:
        session.run.flush()  # a test after the fit records into a run that has ended
        if self._hook is not None and self._hook.owned:
            self._hook.run.finish(status, error=error)
            if status == "FINISHED" and self._is_of_fit:
                _finished_after[session.run.key] = session.n_stepped

    def _close(self) -> None:
        self._record("evaluation", Session.stop_watching)  # had another callback's on_exception kept ours from being
        self._hook = self._session = self.run_ = None
        self._is_of_fit = False

    def _record(self, part: str, record: Callable[..., T], *arguments: Any) -> T | None:
        """Have ``record(session, *arguments)`` record, if there is a session, and keep its failures from training."""
        session = self._session
        if session is None:
            return None
        try:
            return record(session, *arguments)
        except Exception as error:  # noqa: BLE001 - said in the run; raised under on_error="raise"
            session.parts.failed(part, error)
            return None

    # -- training ------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Describe what steps, and begin to count."""
        self._record("description", Session.describe_optimizers, trainer, pl_module)
        self._record("training", Session.train_start, trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self._record("epoch metrics", Session.train_epoch_start, trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a batch."""
        self._record("step metrics", Session.train_batch_start, trainer, pl_module, batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure the gradients."""
        self._record("gradient norm", Session.before_optimizer_step, trainer, optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record a step."""
        self._record("step metrics", Session.train_batch_end, trainer, pl_module, batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure an epoch."""
        self._record("epoch metrics", Session.train_epoch_end, trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the last epoch, and the report of the last validation from all ranks."""
        if self._session is None:
            return
        self._record("epoch metrics", Session.close_epoch, trainer)
        self._record("evaluation", Session.report_validation, self._gathered(trainer))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint tells of the run that it was made in: plain values, so that it loads with weights only."""
        state = self._record("checkpoint", Session.to_state)
        return {} if state is None or self._hook is None else state | {"is_own": self._hook.owned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what a checkpoint tells, for the run that is opened next."""
        self._loaded = state_dict

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """What was recorded up to a checkpoint is on the disk when the checkpoint is."""
        self._record("checkpoint", Session.save_so_far, trainer)

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a validation."""
        self._evaluation_start(trainer, pl_module, alone="validate")

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a batch of a validation."""
        if not trainer.sanity_checking:
            place = ("validate", dataloader_idx)
            self._record("evaluation", Session.evaluation_batch_start, trainer, batch, batch_idx, *place)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record a batch of a validation."""
        if not trainer.sanity_checking:
            place = ("validate", dataloader_idx)
            self._record("validation metrics", Session.evaluation_batch_end, trainer, outputs, *place)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record a validation; one that is no part of a fit is reported at once."""
        if self._session is None or trainer.sanity_checking:
            return
        self._record("validation metrics", Session.validation_end, trainer)
        if trainer.state.fn == "validate":
            self._record("evaluation", Session.report_validation, self._gathered(trainer))

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a test."""
        self._evaluation_start(trainer, pl_module, alone="test")

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a batch of a test."""
        self._record("evaluation", Session.evaluation_batch_start, trainer, batch, batch_idx, "test", dataloader_idx)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record a batch of a test."""
        self._record("test metrics", Session.evaluation_batch_end, trainer, outputs, "test", dataloader_idx)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Record a test and its report."""
        if self._session is None:
            return
        self._record("test metrics", Session.test_end, trainer)
        self._record("evaluation", Session.report_test, trainer, self._gathered(trainer))

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to predict."""
        self._evaluation_start(trainer, pl_module, alone="predict")
        self._began, self._n_predicted = time.perf_counter(), 0

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count a batch."""
        self._n_predicted += count_samples(batch) or 0

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Record how much was predicted."""
        n_samples = self._n_predicted * trainer.world_size
        self._record("prediction", Session.log_prediction, n_samples, time.perf_counter() - self._began)

    def _gathered(self, trainer: Any) -> dict[int, ReadPredictions]:
        """The predictions of all ranks. Each rank comes to ``gather``, whatever has failed on it before."""
        found = self._record("predictions", Session.read_predictions, trainer) or {}
        return self._record("predictions of all ranks", lambda session: gather(trainer, found)) or {}

    def _evaluation_start(self, trainer: Any, module: Any, *, alone: str) -> None:
        """Begin a pass over data that nothing is learnt from; where it follows no fit, in a run of its own."""
        if trainer.sanity_checking:
            return
        if _is_rehearsal(trainer):
            self._close()
        elif trainer.state.fn == alone and not self._is_of_fit:
            self._close()
            self._open(trainer, module)
            self._record("description", Session.describe_evaluation, trainer, module)
        self._record("evaluation", Session.evaluation_start, trainer)


def _check(argument: str, given: object, kind: Any) -> None:
    if not isinstance(given, kind):
        raise ConfigurationError(f"`{argument}` must be a {getattr(kind, '__name__', kind)} (got {given!r}).")


def _is_rehearsal(trainer: Any) -> bool:
    """Whether this is no training, but a ``fast_dev_run``. What a Tuner tries out never comes here: it takes us out."""
    return bool(trainer.fast_dev_run)


def _end_what_was_left(reference: weakref.ref[TrackingHooks]) -> None:
    callback = reference()
    if callback is not None:
        callback.end_what_was_left()


def _is_in_teardown(error: BaseException) -> bool:
    """Whether Lightning was tearing down what has ended, and may have ended our run, when this was raised."""
    return any(frame.f_code.co_name == "_call_teardown_hook" for frame, _ in walk_tb(error.__traceback__))


def _status_of(error: BaseException) -> EndStatus:
    """KILLED for Ctrl-C and for SIGTERM, which Lightning raises as a SystemExit of its own."""
    if any(parent.__name__ == "SIGTERMException" for parent in type(error).__mro__):
        return "KILLED"
    return status_of(error)
