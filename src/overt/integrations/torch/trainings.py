"""Which run a call records into, and when that run ends.

A call is a training of its own, and its run ends with it, unless it is one epoch of a longer one: it takes an
``epoch``, or it made one pass over its data with an optimizer that it was given and takes no number of epochs. Then its
run stays open for the calls that follow with the same model. It ends when the same function trains another model for
the second time in a row (models that take turns go on), at once where another training takes over its parameters, with
the run that it is nested in, and at the latest when the script ends.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from overt.checkpoints import CheckpointFile
from overt.guard import recorded_part
from overt.integrations.torch.arguments import Observed
from overt.integrations.torch.describing import inner_model
from overt.integrations.torch.options import Options
from overt.integrations.torch.session import Session
from overt.models.torch import torch_model
from overt.records import Status
from overt.resuming import run_key_of
from overt.run import Run, current_run, find_run
from overt.tracker import Tracker, run_around

_NUMBERS_OF_EPOCHS = frozenset("epochs n_epochs num_epochs max_epochs nb_epochs number_of_epochs total_epochs".split())


@dataclass(eq=False)
class Training:
    """All calls that record into one run.

    Attributes
    ----------
    is_over : bool
        Whether another training took its place: evaluations of its model are still recorded.
    trained : dict
        Functions that have trained, with the number of the last call in which they did.
    parameters : set of int
        Ids of what its optimizers change.
    """

    session: Session
    is_owned: bool
    is_left_open: bool = False
    is_over: bool = False
    depth: int = 0
    last_call: int = 0
    last_epoch: int | None = None
    thread: int = field(default_factory=threading.get_ident)
    trained: dict[str, int] = field(default_factory=dict)
    parameters: set[int] = field(default_factory=set)
    functions: dict[str, int] = field(default_factory=dict)
    models: weakref.WeakSet[torch.nn.Module] = field(default_factory=weakref.WeakSet)
    optimizers: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    to_save: dict[str, torch.nn.Module] = field(default_factory=dict)
    had_optimizer: bool = False
    n_yielded: int = 0
    checkpoint: CheckpointFile | None = None
    _hooked: set[int] = field(default_factory=set)
    _files: set[str] = field(default_factory=set)

    @property
    def run(self) -> Run:
        """The run."""
        return self.session.run

    def goes_on_in(self, function: str, observed: Observed, epoch: int | None) -> bool:
        """Whether a call is a part of this training: the same model, with an optimizer of what was trained."""
        if not any(inner_model(model) in self.models for model in observed.models.values()):
            return False
        optimizers = observed.optimizers.values()
        if self.is_over:
            return not optimizers and function not in self.trained
        if not optimizers or not self.had_optimizer or self.has_optimizer_of(observed):
            return True
        begins_again = epoch is not None and self.last_epoch is not None and epoch <= self.last_epoch
        return function in self.trained and not begins_again and self.trains_what(observed)

    def has_optimizer_of(self, observed: Observed) -> bool:
        """Whether a call has an optimizer that this training has had."""
        return any(known in self.optimizers for known in observed.optimizers.values())

    def trains_what(self, observed: Observed) -> bool:
        """Whether the optimizers of a call change what this training has changed."""
        return not self.parameters.isdisjoint(_parameters_of(observed))

    def joined_by(self, function: str, observed: Observed, epoch: int | None) -> int:
        """Remember what a call has; how many calls of the function there were before."""
        count = self.functions.get(function, 0)
        self.functions[function] = count + 1
        self.last_call, self.thread = next(_calls), threading.get_ident()
        self.last_epoch = self.last_epoch if epoch is None else epoch
        for model in observed.models.values():
            self.models.add(inner_model(model))
        for optimizer in observed.optimizers.values():
            self.had_optimizer = True
            self.optimizers.add(optimizer)
        self.parameters |= _parameters_of(observed)
        return count

    def gives_way_to(self, other: Training, function: str, observed: Observed) -> bool:
        """Whether a call that belongs to ``other`` says that no more calls of this training will come."""
        if self is other or self.is_over or self.depth or not self.is_left_open:
            return False
        if self.thread != threading.get_ident():
            return False
        is_second_in_a_row = function in self.trained and other.trained.get(function, -1) > self.last_call
        return is_second_in_a_row or self.trains_what(observed)

    def save_later(self, observed: Observed, returned: torch.nn.Module | None) -> None:
        """Keep the models of a call; one that it returned is what it is about."""
        if self.is_over:
            return
        models = observed.models
        if returned is not None:
            models = {next((name for name, known in models.items() if known is returned), "model"): returned}
        for name, model in models.items():
            if not any(inner_model(kept) is inner_model(model) for kept in self.to_save.values()):
                self.to_save[name] = model

    @contextmanager
    def hooking(self, thing: object) -> Iterator[bool]:
        """Whether ``thing`` has no hooks of this training yet; it has while the block lasts."""
        is_new = id(thing) not in self._hooked
        self._hooked.add(id(thing))
        try:
            yield is_new
        finally:
            if is_new:
                self._hooked.discard(id(thing))

    def has_hooked(self, thing: object) -> bool:
        """Whether ``thing`` has hooks of this training."""
        return id(thing) in self._hooked

    def is_new_file(self, path: str) -> bool:
        """Whether nothing was recorded as ``path`` yet; it will be now."""
        is_new = path not in self._files
        self._files.add(path)
        return is_new

    def leave_open(self) -> None:
        """Expect more calls: report and model are recorded when the run ends."""
        if not self.is_left_open:
            self.is_left_open = True
            self.run.call_at_end(lambda run: self.conclude())
            if self.is_owned and (parent := find_run(self.run.spec.parent_key or "")) is not None:
                parent.call_at_end(lambda ended: self.end(ended.status))

    def end(self, status: Status = "FINISHED") -> None:
        """Expect no more calls; a run that was started for it ends."""
        self.is_over = self.is_left_open and self.is_owned
        if status == "FINISHED":
            self.conclude()
            self._say_if_alone()
        if self.is_owned and status != "RUNNING":
            self.run.finish(status)
            self.run.seal()

    def conclude(self) -> None:
        """Record what the training has come to: the report of its last evaluation, and its model."""
        models, self.to_save = self.to_save, {}
        session = self.session
        session.close_epoch()
        if session.evaluations is not None:
            session.evaluations.record(
                lambda epoch, name: (epoch, name) in session.written or not session.is_ours(name)
            )
        if session.options.log_model and self.run.status in ("RUNNING", "FINISHED"):
            for name, model in models.items():
                self._save("model" if len(models) == 1 else name, name, model)
        session.batches.clear()

    def _say_if_alone(self) -> None:
        """Say of evaluations that are a run of their own, where the function evaluates a training as well, why so."""
        others = [other for other in list(_trainings.values()) if other.trained]
        known = next((name for other in others for name in self.functions if name in other.functions), None)
        if known is not None and self.is_owned and not self.trained:
            self.run.warn(
                f"{known}() evaluated a model that no call has trained: such a call is a run of its own. To have it in "
                "that of a training, load the weights into the model that was trained, or give the function an "
                "argument called run, and in it the training's run_"
            )

    def _save(self, saved_as: str, name: str, model: torch.nn.Module) -> None:
        run = self.run
        with recorded_part(run, saved_as if saved_as == "model" else f"model {saved_as}"):
            if isinstance(model, torch.jit.ScriptModule):
                raise TypeError("torch.jit has compiled it: say torch.jit.save(model, path) and run.log_artifact(path)")
            params = {key: value for key, value in run.params.items() if len(value) <= 250}
            files = torch_model(inner_model(model), self.session.batches.get(name), params=params)
            run.log_model(files, name=saved_as)
            if files.notes:
                run.set_tag("overt.model_note", "; ".join(files.notes))


def is_one_epoch(parameters: Iterable[str], *, n_epochs: int) -> bool:
    """Whether a call was one epoch of many: what it takes says so, else what it did."""
    names = set(parameters)
    return "epoch" in names or (n_epochs == 1 and not names & _NUMBERS_OF_EPOCHS)


def _parameters_of(observed: Observed) -> set[int]:
    groups = (group for optimizer in observed.optimizers.values() for group in optimizer.param_groups)
    return {id(parameter) for group in groups for parameter in group["params"]}


_lock = threading.Lock()
_calls = itertools.count(1)
_trainings: dict[str, Training] = {}


def training_for(
    function: str,
    observed: Observed,
    options: Options,
    given: Run | None,
    params: Mapping[str, object] | None,
    epoch: int | None,
) -> Training:
    """The training that a call belongs to: one that is going on, or a new one; those that it takes the place of end.

    Parameters
    ----------
    function : str
        Its name.
    given : Run or None
        The run that the caller gave.
    params : mapping or None
        Settings of a call that may keep a checkpoint, which tell it from its like; None of any other.
    epoch : int or None
        The number that the caller gives the epoch.
    """
    run = options.run or given
    around = run is None and options.parent is None
    current = run_around(options.tracker or Tracker()) if around else current_run()
    if run is None and current is not None and options.parent is None and options.run_name is None:
        run = current if current.status == "RUNNING" and not observed.models else None
    with _lock:
        _forget_the_ended()
        going = list(_trainings.values())
    training = None
    if run is None:
        reachable = (known for known in going if _is_reachable(known, current))
        going_on = [known for known in reachable if known.goes_on_in(function, observed, epoch)]
        going_on.sort(key=lambda known: known.has_optimizer_of(observed))  # else the last one
        training = going_on[-1] if going_on else None
    if training is None:
        training = _new_training(function, options, run, params)
    for known in going:
        if known.gives_way_to(training, function, observed):
            with recorded_part(known.run, "ending"):
                known.end()
    return training


def _forget_the_ended() -> None:
    for key, known in list(_trainings.items()):
        is_of_use = known.is_over and len(known.models) > 0  # they may still be evaluated
        if known.run.status != "RUNNING" and not is_of_use:
            del _trainings[key]


def _is_reachable(known: Training, current: Run | None) -> bool:
    """Whether a call within the run ``current``, or outside any, can be of a training."""
    if current is None:
        return known.is_owned
    return known.run is current or (known.is_owned and known.run.spec.parent_key == current.key)


def _new_training(function: str, options: Options, run: Run | None, params: Mapping[str, object] | None) -> Training:
    file = options.find_checkpoint(function, params) if params is not None else None
    saved = file.load() if file is not None else None
    goes_on = saved is not None and run is None and (saved["is_own"] or options.resume == "must")
    hook = options.open_run(function, run=run, checkpoint=saved["run"] if saved is not None and goes_on else None)
    if saved is not None and not goes_on:
        hook.run.set_tag("overt.checkpoint_of", run_key_of(saved["run"]))
    with _lock:
        if hook.run.key not in _trainings:
            session = Session(hook.run, options)
            hook.run.loops.listeners.append(session)
            _trainings[hook.run.key] = Training(session, hook.owned)
        training = _trainings[hook.run.key]
    if file is not None:
        _keep_checkpoint(training, file)
    return training


def _keep_checkpoint(training: Training, file: CheckpointFile) -> None:
    """Have the loop of the run save to ``file``, until the run has finished."""
    training.checkpoint = file
    training.run.loops.keep_checkpoint(file, counted=training.session, is_own=training.is_owned)
    training.run.call_at_end(lambda run: file.remove() if run.status == "FINISHED" else None)
    training.run.call_at_end(lambda run: file.release())
