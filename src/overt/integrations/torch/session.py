"""What is seen of the trainings of one run, and what of it is recorded when.

Losses stay where they are, as tensors, until an epoch ends; then they are read together. Nothing here raises into
training: what fails is said once, and what is observed goes on without it. Two things do raise, since the user asked
for them: ``stop_on_nan`` and ``on_error="raise"``.
"""

from __future__ import annotations

import itertools
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

from overt.capture.functional import has_fast_paths, is_compiled
from overt.capture.training import (
    count_samples,
    first_samples,
    gradient_norm,
    learning_rates,
    optimizer_params,
)
from overt.deferred import Shelf, is_tensor, kept_on_device, read_together
from overt.errors import OvertError
from overt.guard import Parts
from overt.integrations.torch.epochs import Earlier, Epoch, Epochs, Loss, Pass, Step
from overt.integrations.torch.evaluating import Evaluations
from overt.integrations.torch.functional import FunctionalLosses
from overt.integrations.torch.options import Options
from overt.run import Run

_SAMPLED_EVERY = 10
_MOST_EARLIER = 100
_LONGEST_S = 10.0
"""How many evaluations within an epoch, and how long, wait to be read together."""
_is_transformed: Callable[[torch.Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor

_found_in: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""Name of the run that first saw an optimizer step that was no argument; none once it is said that others did."""
_innermost: ContextVar[Session | None] = ContextVar("overt_innermost_session", default=None)
"""Whose code runs here: a loss module may be that of several trainings, in other threads or in calls within."""


class LossNotFinite(OvertError, ArithmeticError):
    """The loss became NaN or infinite, and ``stop_on_nan=True`` asked for an end."""


class Session:
    """Watches all calls that record into one run.

    Attributes
    ----------
    written : dict
        Value of each series that was recorded at an epoch's end, by epoch and name.
    generators : dict
        The random numbers that loaders among the arguments have for themselves, by the loader's name.
    """

    def __init__(self, run: Run, options: Options) -> None:
        self.run = run
        self.options = options
        self.parts = Parts(run)
        self.epochs = Epochs(read_together, self._record_epoch, self._record_steps, time.perf_counter)
        self.evaluations = Evaluations(run, options.class_names) if options.evaluate else None
        self.written: dict[tuple[int, str], float] = {}
        self.generators: dict[str, list[torch.Generator]] = {}
        self.functional: FunctionalLosses | None = None
        self.batches: dict[str, Any] = {}
        self._is_watching = False
        self._models: list[torch.nn.Module] = []
        self._has_fast_paths = False
        self._looks_at_each = False
        self._optimizers: dict[str, weakref.ref[Any]] = {}
        self._loaders: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._identities = itertools.count()
        self._seen_in_step: set[str] | None = None
        self._plain_loss: Any = None
        self._shelf = Shelf()
        self._rates: dict[str, float | dict[str, Any]] = {}
        self._norms: dict[tuple[str, int], tuple[str, Any]] = {}
        self._has_been_bad = False
        self._ours: dict[str, int | None] = {}
        self._taken: set[str] = set()
        self._held: list[tuple[Loss, Any, tuple[Any, ...], Any]] = []
        self._left_at = 0
        self._earlier_since = 0.0

    # -- a call --------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, models: Sequence[torch.nn.Module], *, without_loss: bool, has_loaders: bool) -> Iterator[None]:
        """Watch while the block runs.

        Parameters
        ----------
        models : sequence of modules
            Whose mode says whether they are trained.
        without_loss : bool
            Whether losses are to be looked for in ``torch.nn.functional``.
        has_loaders : bool
            Whether there are batches to choose among for that; else all are looked at.
        """
        before = self._is_watching, self._models, self.functional, self._has_fast_paths, self._looks_at_each
        self._is_watching, token = True, _innermost.set(self)
        self._plain_loss = None
        self._models = [*self._models, *(model for model in models if hasattr(model, "training"))]
        self._has_fast_paths = without_loss and any(map(has_fast_paths, self._models))
        # what is compiled would be compiled once with the hook and once without
        self._looks_at_each = self.options.stop_on_nan or any(map(is_compiled, self._models))
        if self._has_fast_paths and not has_loaders:
            self._say_not_looked_for("losses", "it is not seen where an evaluation begins")
        elif without_loss and self.functional is None:
            with self._part("losses"):
                self.epochs.tell_steps()  # which of them are recorded depends on whether the hook is there
                self.functional = FunctionalLosses(self, self.run)
                self.functional.resume()
                every = self.options.every_n_steps or _SAMPLED_EVERY
                if has_loaders and every > 1 and not self._looks_at_each:
                    self.run.set_tag(
                        "overt.losses_seen", f"those of every {every}th step of the training, and of its passes' first"
                    )
        try:
            yield
        finally:
            if self.functional is not before[2] and self.functional is not None:
                with self._part("steps"):
                    self.epochs.tell_steps()
                self.functional.suspend()
            _innermost.reset(token)
            self._plain_loss = None
            self._is_watching, self._models, self.functional, self._has_fast_paths, self._looks_at_each = before

    @property
    def is_watching(self) -> bool:
        """Whether a call goes on that it watches."""
        return self._is_watching

    def name_of_optimizer(self, name: str, optimizer: Any) -> str:
        """What an optimizer is called in this run, under whatever name a call has it.

        One that goes on with what another of its name has begun keeps the name.
        """
        for known, other in self._optimizers.items():
            if other() is optimizer:
                return known
        if name in self._optimizers and _goes_on_with(optimizer, self._optimizers[name]()):
            self._optimizers[name] = weakref.ref(optimizer)
            return name
        base, count = name, 1
        while name in self._optimizers:
            count += 1
            name = f"{base}_{count}"
        self._optimizers[name] = weakref.ref(optimizer)
        self._plain_loss = None
        self.epochs.optimizers.append(name)
        return name

    def found_optimizer(self, optimizer: Any) -> str:
        """What an optimizer is called that was not among the arguments; a new one's settings are recorded."""
        is_known = any(other() is optimizer for other in self._optimizers.values())
        name = self.name_of_optimizer("optimizer", optimizer)
        if not is_known:
            if (earlier := _found_in.setdefault(optimizer, self.run.name)) not in (self.run.name, ""):
                _found_in[optimizer] = ""  # it is said once
                self.run.warn(
                    f"run {self.run.name} goes on with the training of run {earlier}: its function is given no model "
                    "that would tell. To have one run, give it the model, or call it within `with overt.start_run():`"
                )
            with self._part("params"):
                for setting, value in optimizer_params([optimizer]).items():
                    if setting not in self.run.params:
                        self.run.log_param(setting, value)
        return name

    def report(self, points: Iterable[tuple[str, Any, int]]) -> None:
        """Record what the function itself says; another value than what was measured gets a name of its own."""
        for name, value, epoch in points:
            known = self.written.get((epoch, name))
            if known is None or float(value) != known:
                self.run.log_metric(name if known is None else f"reported_{name}", value, epoch=epoch)
        self.run.flush()

    def epoch_begins(self, epoch: int) -> None:
        """The run's own loop says which epoch comes."""
        self.close_epoch()
        self.epochs.begin(epoch)
        self.epochs.is_told = True

    def epoch_ends(self, epoch: int) -> None:
        """The run's own loop says that an epoch is over."""
        self.close_epoch()
        self.epochs.is_told = False

    def state_dict(self) -> dict[str, Any]:
        """How far it has counted, and its loaders' own random numbers, for a checkpoint."""
        random = {name: [each.get_state() for each in of_loader] for name, of_loader in self.generators.items()}
        return {**self.epochs.state_dict(), "generators": random}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self.epochs.load_state_dict(state)
        for name, states in state.get("generators", {}).items():
            for generator, random in zip(self.generators.get(name, ()), states, strict=False):
                generator.set_state(random)

    def abandon_epoch(self) -> None:
        """The epoch that is going on has failed and is to be gone through again from a checkpoint: its steps stand."""
        with self._part("epoch"):
            self._held.clear()
            self._record_earlier()
            self.epochs.abandon()

    def close_epoch(self, index: int | None = None) -> None:
        """An epoch ends here, if one is going on; ``index`` is its number, where that is known."""
        with self._part("epoch"):
            self._place_held()
            self.epochs.close(index)

    def leave_out_unfinished(self) -> None:
        """The training fails: an evaluation that it fails in is none to report."""
        if self.evaluations is not None:
            self.evaluations.forget(self.epochs.unfinished_evaluations())

    def is_ours(self, name: str) -> bool:
        """Whether a series is ours to record: not if the function records it itself, or has begun to."""
        if name not in self._ours and self.run.highest_step(name) is None:
            self._ours[name] = None
        return name in self._ours and name not in self._taken

    def _log(self, name: str, value: Any, step: int) -> str | None:
        """Record a point of a series of ours; the name that it has got."""
        recorded_as = self._name_of_ours(name)
        if recorded_as is not None:
            if isinstance(value, torch.Tensor):
                self.run.log_kept(recorded_as, value, step=step)
            else:
                self.run.log_metric(recorded_as, value, step=step)
            self._ours[recorded_as] = self.run.highest_step(recorded_as)
        return recorded_as

    def _name_of_ours(self, name: str) -> str | None:
        """What a series of ours is recorded as; None where the function records it itself.

        A series that the function goes on with is from there on its own, and ours gets another name.
        """
        if self._ours.get(name) not in (None, self.run.highest_step(name)):
            self._taken.add(name)
        if self.is_ours(name):
            return name
        return f"measured_{name}" if name in self._taken else None

    # -- what the observers tell ---------------------------------------------------------------------------------------

    def pass_begun(self, name: str, loader: Any, length: int) -> Pass | None:
        """A loader was started."""
        if not self._is_watching or self.run.is_told_by_callback:
            return None
        with self._part("passes"):
            self._seen_in_step = None
            self._place_held()
            return self.epochs.begin_pass(name, length, self._identity_of(loader))
        return None

    def batch_drawn(self, drawn_in: Pass, batch: Any) -> None:
        """A loader has given a batch."""
        if not self._is_watching or self.run.is_told_by_callback:
            return
        try:
            if self._held:
                self._place_held()
            self.epochs.draw(drawn_in, _rows(batch) or count_samples(batch) or 0)
            self._seen_in_step = None
            if self.functional is not None:
                self.functional.set(self._is_to_be_sampled(drawn_in))
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self.parts.failed("batches", error)

    def pass_ended(self, ended: Pass) -> None:
        """A loader is exhausted or has been left."""
        with self._part("passes"):
            self._place_held()
            self.epochs.end_pass(ended)

    def loss_computed(self, source: str, function: Any, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        """A loss was computed: to be minimised if there is a graph behind it, else for its value alone.

        That of nearly every step of a training takes a short way: the same as the other, less all that was settled by
        the last loss of its module. Beside a network nothing of ours is in the caches, so that each question costs half
        a microsecond, and there are thirty on the other way.
        """
        if self.run.is_told_by_callback or _innermost.get() not in (self, None):
            return
        try:
            if (
                function is self._plain_loss
                and self.epochs.is_settled
                and type(output) is torch.Tensor
                and output.requires_grad
                and not (output.ndim or kwargs or _is_transformed(output))
                and (self._models[0] if self._models else function).training
                and args
                and type(first := args[0]) is torch.Tensor
                and first.ndim
            ):
                is_sum = function.reduction == "sum"
                self.epochs.train_on(source, self._shelf.keep(output), first.size(0), is_sum=is_sum)
            elif self._is_watching:
                self._see_loss(source, function, args, kwargs, output)
        except LossNotFinite:
            raise
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self.parts.failed(f"loss {source}", error)

    def model_called(self, name: str, model: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        """A model is about to see its first batch: a few rows of it are kept."""
        with self._part("input example"):
            self.batches[name] = first_samples(dict(kwargs) if kwargs and not args else args, 5)

    def step_begins(self, name: str, optimizer: Any, has_closure: bool) -> None:
        """An optimizer is about to step."""
        if not self._is_watching or self.run.is_told_by_callback:
            return
        self._seen_in_step = set() if has_closure else None
        self._plain_loss = None if has_closure else self._plain_loss
        if self.options.gradient_norm and self._is_recorded(self.epochs.count_of(name)):
            with self._part("gradient norm"):
                self._see_gradients(name, optimizer)

    def stepped(self, name: str, optimizer: Any, *given: Any) -> None:
        """An optimizer has stepped: after a loss that took the short way, it takes it as well."""
        if not self._is_watching or self.run.is_told_by_callback:
            return
        try:
            if self._plain_loss is None or not self.epochs.step_on():
                self._seen_in_step = None
                self.epochs.step(name)
                if self._held:
                    self._place_held()
            groups = optimizer.param_groups
            rate = groups[0].get("lr") if len(groups) == 1 else None
            self._rates[name] = rate if type(rate) is float else _rates_of(optimizer)  # a float for nearly every one
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self.parts.failed("steps", error)

    def _identity_of(self, loader: Any) -> int | None:
        try:
            return self._loaders.setdefault(loader, next(self._identities))  # ids of objects come again, these do not
        except TypeError:  # a list of batches
            return None

    # -- losses and steps ----------------------------------------------------------------------------------------------

    def _see_loss(self, source: str, function: Any, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        if isinstance(function, partial):
            function, args, kwargs = function.func, (*function.args, *args), {**function.keywords, **kwargs}
        tensor = output if isinstance(output, torch.Tensor) else _tensor_of(output)
        if _is_transformed(tensor):
            return  # it stands for a value that torch.func has yet to compute, and is none once it has
        is_training = tensor.requires_grad
        if is_training and self._seen_in_step is not None:
            if source in self._seen_in_step:
                return  # a closure is asked again and again: the first answer is the loss of the step
            self._seen_in_step.add(source)
        value = tensor.detach()
        value = value.clone() if value.ndim == 0 else kept_on_device(value.double().mean())
        samples = _rows(args)
        if samples is None:
            samples = count_samples([*args, *kwargs.values()]) or 1
        reduction = kwargs["reduction"] if "reduction" in kwargs else getattr(function, "reduction", "mean")
        loss = Loss(source, value, samples, reduction == "sum", batch=self.epochs.batch)
        if is_training:
            loss.is_doubtful = self._is_in_evaluation_mode()
            if loss.is_doubtful or len(self.epochs.optimizers) != 1:
                _mark_when_backward(tensor, loss)
            self.epochs.train(loss)
            if self._held:
                self._place_held()
            self._plain_loss = function if self._is_plain(function, args, loss) else None
        if self.options.stop_on_nan:
            self._require_finite(loss)
        if is_training:
            return
        self._plain_loss = None
        self._held.append((loss, function, args, kwargs))
        if not self._is_to_wait():
            self._place_held()
        elif self.evaluations is not None:  # by then a loop may have written the next batch into the same buffers
            self._held[-1] = loss, function, tuple(map(_kept, args)), {name: _kept(kwargs[name]) for name in kwargs}

    def _is_plain(self, function: Any, args: tuple[Any, ...], loss: Loss) -> bool:
        """Whether the next loss of this module may take the short way, since nothing else can change unseen."""
        return (
            self._seen_in_step is None
            and not loss.is_doubtful
            and not self.options.stop_on_nan
            and len(self.epochs.optimizers) == 1
            and len(self._models) <= 1
            and isinstance(function, torch.nn.Module)
            and "reduction" in vars(function)
            and bool(args)
        )

    def _is_to_wait(self) -> bool:
        """Whether only what follows says what the last evaluations are of.

        At the first batch of a pass, whether that is one of a training. Within a training, whether a model in
        evaluation mode sees its batch, or more than that: then it is evaluated on data from elsewhere.
        """
        drawn = self.epochs.drawn
        if drawn is None:
            return False
        is_within = sum(loss.samples for loss, *_ in self._held) <= drawn.rows
        if drawn.has_trained:
            return is_within and self._may_have_left(drawn)
        return (is_within or len(self._held) == 1) and self.epochs.is_undecided(drawn)

    def _may_have_left(self, drawn: Pass) -> bool:
        return drawn.rows > 0 and drawn.drawn_at != self._left_at and self._is_in_evaluation_mode()

    def _place_held(self) -> None:
        """Give the evaluations that were held to the sets that they are of."""
        if not self._held:
            return
        held, self._held = self._held, []
        drawn = self.epochs.drawn
        is_elsewhere = False
        if drawn is not None and drawn.has_trained:
            if sum(loss.samples for loss, *_ in held) > drawn.rows and self._may_have_left(drawn):
                self._left_at = drawn.drawn_at
            is_elsewhere = drawn.drawn_at == self._left_at
        for loss, function, args, kwargs in held:
            self._evaluated(loss, function, args, kwargs, is_elsewhere=is_elsewhere)

    def _evaluated(self, loss: Loss, function: Any, args: tuple[Any, ...], kwargs: Any, *, is_elsewhere: bool) -> None:
        n_earlier = len(self.epochs.earlier)
        name, is_new = self.epochs.evaluate(loss, is_elsewhere=is_elsewhere)
        if len(self.epochs.earlier) > n_earlier:
            self._set_aside(self.epochs.earlier[-1])
        if self.evaluations is not None and loss.is_further:
            self.run.set_tag(
                f"overt.{name}_note", "several losses were seen in a batch: accuracy and report are of the first"
            )
        elif self.evaluations is not None:
            try:
                self.evaluations.add(name, function, args, kwargs, is_new=is_new)
            except Exception as error:  # noqa: BLE001 - the loss itself stands
                self.parts.failed("evaluation", error)

    def _set_aside(self, earlier: Earlier) -> None:
        """Another evaluation follows this one within the epoch: record it in a while, as of its step."""
        if earlier.is_replaced:
            self.epochs.earlier.pop()
            if (tag := f"overt.{earlier.name}_replaced") not in self.run.tags:
                self.run.set_tag(
                    tag, "evaluated again, of another model perhaps, before the next step: the last one is recorded"
                )
            return
        if self.evaluations is not None:
            earlier.right = self.evaluations.counted(earlier.name)
        now = time.perf_counter()
        if len(self.epochs.earlier) == 1:
            self._earlier_since = now
        elif now - self._earlier_since > _LONGEST_S or len(self.epochs.earlier) >= _MOST_EARLIER:
            self._record_earlier()

    def _record_earlier(self) -> None:
        waiting, self.epochs.earlier = self.epochs.earlier, []
        for earlier in waiting:
            metrics = self.epochs.read_means(earlier.means)
            metrics |= Evaluations.read_accuracies({earlier.name: earlier.right}, read_together)
            for name, value in metrics.items():
                self._log(f"{name}_step", value, earlier.step)

    def _is_to_be_sampled(self, drawn_in: Pass) -> bool:
        """Whether the losses of the batch just drawn are to be seen: all of an evaluation, some of a training."""
        if not torch.is_grad_enabled() or self._is_in_evaluation_mode():
            if self._has_fast_paths:
                self._say_not_looked_for("losses of evaluations", "their last bits would differ")
            return not self._has_fast_paths
        if drawn_in.batches == 1 or self._looks_at_each:
            return True  # so each epoch has a loss, however few steps
        optimizers = self.epochs.optimizers
        number = sum(map(self.epochs.count_of, optimizers)) if optimizers else drawn_in.batches - 1
        return number % (self.options.every_n_steps or _SAMPLED_EVERY) == 0

    def _is_in_evaluation_mode(self) -> bool:
        for model in self._models:  # no generator: it is asked at each loss
            if model.training:
                return False
        return bool(self._models)

    def _is_recorded(self, step: int) -> bool:
        every = self.options.every_n_steps
        # where the scoped hook has seen only some losses all of those count
        return not every or step % every == 0 or (self.functional is not None and not self._looks_at_each)

    def _record_steps(self, steps: Sequence[Step]) -> None:
        names: dict[str, str | None] = {}  # nothing of the function's own comes between these
        for step in steps:
            norm = self._norms.pop((step.optimizer, step.number), None) if self._norms else None
            if not self._is_recorded(step.number):
                continue
            for series, losses in step.losses.items():
                if series not in names:
                    names[series] = self._name_of_ours(f"{series}_step")
                if (name := names[series]) is not None:
                    self.run.log_kept(name, _mean(losses), step=step.number)
            if norm is not None:
                self.run.log_metric(*norm, step=step.number)
        for name in filter(None, names.values()):
            self._ours[name] = self.run.highest_step(name)

    def _see_gradients(self, name: str, optimizer: Any) -> None:
        norm = gradient_norm(optimizer, scale=getattr(optimizer, "grad_scale", None))  # as a GradScaler leaves it
        if norm is not None:
            self._norms[name, self.epochs.count_of(name)] = f"grad_norm{self._suffix(name)}_step", norm

    def _suffix(self, optimizer: str) -> str:
        return f"_{optimizer}" if len(self.epochs.optimizers) > 1 else ""

    def _require_finite(self, loss: Loss) -> None:
        number = float(loss.value)
        if not math.isfinite(number):
            optimizers = self.epochs.optimizers
            loss.step = self.epochs.count_of(optimizers[0]) if len(optimizers) == 1 else None
            place = f"epoch {max(self.epochs.index, 0)}{loss.place}"
            raise LossNotFinite(
                f"the loss {loss.source!r} is {number} in {place}, and stop_on_nan=True ends the training"
            )

    def _say_not_finite(self, source: str, number: float, place: str) -> None:
        if not self._has_been_bad:
            self._has_been_bad = True
            self.run.set_tag("overt.loss_not_finite", f"{source} was first seen to be {number} in {place}")
            if not self.options.stop_on_nan:
                self.run.warn(
                    f"the loss {source!r} of run {self.run.name} was first seen to be {number} in {place}. "
                    "To stop there: @track_training(stop_on_nan=True)"
                )

    def _say_not_looked_for(self, what: str, why: str) -> None:
        self.run.warn(
            f"the {what} in run {self.run.name} are not looked for in its body: its model has PyTorch's fast path for "
            f"attention, which any scoped hook changes, and {why}. To have them, give the function the loss as an "
            "argument"
        )

    # -- epochs --------------------------------------------------------------------------------------------------------

    def _record_epoch(self, epoch: Epoch) -> None:
        self._record_earlier()
        metrics = dict(epoch.metrics)
        if self.run.epoch is not None:
            metrics.pop("epoch_seconds", None)  # the run's own loop measures it
        for name, rates in self._rates.items():
            for key, rate in rates.items() if isinstance(rates, dict) else [("lr", rates)]:
                metrics[key.replace("lr", f"lr{self._suffix(name)}", 1)] = rate
        self._rates = {}
        if self.evaluations is not None:
            self.evaluations.told(epoch.evaluated, epoch.index)
            metrics |= self.evaluations.accuracies(read_together)
        for name, value in metrics.items():
            recorded_as = self._log(name, value, epoch.index)
            if recorded_as and not is_tensor(value):
                self.written[epoch.index, recorded_as] = value
        if epoch.not_finite is not None:
            loss, value = epoch.not_finite
            self._say_not_finite(loss.source, value, f"epoch {epoch.index}{loss.place}")
        if self.epochs.n_left_out:
            self.run.warn(
                f"losses of a model in evaluation mode were computed with gradients in run {self.run.name} and never "
                "went back: they are in neither train_loss nor val_loss. Evaluate under torch.no_grad()"
            )
        self.run.flush()

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        try:
            yield
        except LossNotFinite:
            raise
        except Exception as error:  # noqa: BLE001 - training goes on whatever happens here
            self.parts.failed(part, error)


def _rows(given: Any) -> int | None:
    """Samples in the tensor that comes first, as it does in nearly every batch; None where none does."""
    first = given[0] if type(given) in (list, tuple) and given else given
    return first.size(0) if isinstance(first, torch.Tensor) and first.ndim else None


def generators_of(loader: Any) -> list[torch.Generator]:
    """The random numbers that a loader has for itself, where it was given ``generator=``."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    return list(dict.fromkeys(generator for generator in found if isinstance(generator, torch.Generator)))


def _rates_of(optimizer: Any) -> dict[str, Any]:
    """The learning rates of this moment; one that is a tensor may be changed in place."""
    rates = learning_rates([optimizer])
    return {key: kept_on_device(rate) if isinstance(rate, torch.Tensor) else rate for key, rate in rates.items()}


def _goes_on_with(optimizer: Any, former: Any) -> bool:
    """Whether an optimizer has taken the place of one that is gone, or that changes the same parameters."""
    if former is None:
        return True
    changed, before = ({id(p) for group in each.param_groups for p in group["params"]} for each in (optimizer, former))
    return not changed.isdisjoint(before)


def _kept(argument: Any) -> Any:
    return argument.detach().clone() if isinstance(argument, torch.Tensor) else argument


def _tensor_of(output: Any) -> torch.Tensor:
    """The loss in what a loss returned: itself, the item ``loss`` of a mapping, or the first of several."""
    if isinstance(output, Mapping):
        output = output["loss"] if "loss" in output else next(iter(output.values()))
    elif isinstance(output, list | tuple):
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"it returned a {type(output).__name__} and no tensor")
    return output


def _mean(losses: Sequence[Loss]) -> Any:
    """Mean over the samples of a step's losses, on their device; of one loss, itself."""
    if len(losses) == 1:
        loss = losses[0]
        return loss.value / loss.samples if loss.is_sum else loss.value
    samples = sum(loss.samples for loss in losses)
    values = [loss.value.to(torch.promote_types(loss.value.dtype, torch.float32)) for loss in losses]
    parts = [value if loss.is_sum else value * loss.samples for value, loss in zip(values, losses, strict=True)]
    return torch.stack([part.to(parts[0]) for part in parts]).sum() / samples


def _mark_when_backward(tensor: torch.Tensor, loss: Loss) -> None:
    def mark(gradient: Any) -> None:
        loss.went_back = True

    register: Any = tensor.register_hook  # torch does not type it
    register(mark)
