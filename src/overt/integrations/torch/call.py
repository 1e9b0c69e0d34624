"""One call of a decorated function: what is put in place before it, recorded of it, and taken away after it.

Whatever happens to recording, the function is called once, with its own arguments, and its result or its error is
what comes out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from overt.capture.params import describe, is_data
from overt.capture.secrets import redact_value
from overt.capture.training import summarize_model
from overt.guard import recorded_part
from overt.integrations.torch.arguments import Arguments, Observed
from overt.integrations.torch.describing import params_of, params_of_optimization, without_machinery
from overt.integrations.torch.observers import (
    can_be_hooked,
    hook_every_optimizer,
    hook_loss,
    hook_model,
    hook_optimizer,
    is_observer,
    real_of,
)
from overt.integrations.torch.options import Options
from overt.integrations.torch.outcome import fields_of, has_numbers, module_in, own_epoch, points_of, points_of_epoch
from overt.integrations.torch.session import Session, generators_of
from overt.integrations.torch.trainings import Training, is_one_epoch, training_for
from overt.run import Run, current_run, status_of


class Call:
    """One call.

    Parameters
    ----------
    function : callable
        Bound, if it is a method, to ``instance``.
    remember : callable
        Is told the run.
    """

    def __init__(
        self,
        function: Any,
        instance: object,
        arguments: Arguments,
        options: Options,
        remember: Callable[[Run], None],
    ) -> None:
        self._function = function
        self._name: str = getattr(function, "__name__", "training")
        self._instance = instance
        self._arguments = arguments
        self._options = options
        self._remember = remember
        self._observed = Observed()
        self._training: Training
        self._cleanup = ExitStack()
        self._count = self._n_epochs = 0
        self._is_waiting = False

    def make(self) -> Any:
        """Call a function."""
        self._begin()
        try:
            with self._active():
                result = self._function(*self._arguments.args, **self._arguments.kwargs)
        except BaseException as error:
            self._fail(error)
            raise
        result = _unwrapped(result)
        self._succeed(result)
        return result

    def generate(self) -> Generator[Any, Any, Any]:
        """Call a generator function: each item that it yields is an epoch, and goes on as it is."""
        self._begin()
        inner = self._function(*self._arguments.args, **self._arguments.kwargs)
        resume: Callable[[], Any] = partial(next, inner)
        abandon = weakref.WeakMethod(self._abandon)  # alive while the generator is
        self._run.call_at_end(lambda run: (known := abandon()) and known())
        while True:
            try:
                with self._active():
                    item = resume()
            except StopIteration as stop:
                result = _unwrapped(stop.value)
                self._succeed(result)
                return result
            except BaseException as error:
                self._fail(error)
                raise
            self._yielded(item)
            self._is_waiting = True
            try:
                resume = partial(inner.send, (yield _unwrapped(item)))
            except GeneratorExit:
                self._close(inner)
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the caller throws in, the function gets
                resume = partial(inner.throw, error)
            finally:
                self._is_waiting = False

    # -- before and after ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Decide on the run, describe the arguments in it, and put the observers in place."""
        trouble: Exception | None = None
        params: Mapping[str, object] = {}
        asked = tuple(self._options.observe)
        try:
            self._observed = self._arguments.observed(self._instance, asked)
            params = params_of(self._arguments.given, self._observed)
        except Exception as error:  # noqa: BLE001 - a user's object may raise anything
            trouble = error
        may_checkpoint = "run" in self._arguments.names
        given = self._arguments.run
        self._training = training_for(
            self._name,
            self._observed,
            self._options,
            given,
            params if may_checkpoint else None,
            self._arguments.epoch,
        )
        run = self._run
        self._remember(run)
        self._arguments.give_run(run)
        self._training.depth += 1
        self._count = self._training.joined_by(self._name, self._observed, self._arguments.epoch)
        if run.is_null:
            return
        if self._observed.is_observed:
            with recorded_part(run, "arguments"):
                self._observed = self._arguments.observed(self._instance, asked, self._training.session)
                params = params_of(self._arguments.given, self._observed)
        self._n_epochs = -self._training.session.epochs.n_epochs
        if trouble is not None:
            self._training.session.parts.failed("arguments", trouble)
        if self._count == 0:
            with recorded_part(run, "params"):
                self._record_params(params)
        with recorded_part(run, "observers"):
            self._observe()

    def _record_params(self, params: Mapping[str, object]) -> None:
        """Record settings; of a second function in the run those that differ say which they are of."""
        known = self._run.params
        for name, value in params.items():
            text = redact_value(name, describe(value))
            if known.setdefault(name, text) == text:
                self._run.log_param(name, value)
            else:
                self._run.log_param(f"{self._name}.{name}", value)
        models = self._observed.models
        for name, model in models.items():
            path = "model_summary.txt" if len(models) == 1 else f"model_summary_{name}.txt"
            if self._training.is_new_file(path):
                self._run.log_text(summarize_model(model).table, path)

    def _record_what_was_made(self) -> None:
        """Record settings that came with the function's own schedulers: they lie in optimizers, some in its object."""
        made = params_of_optimization(self._arguments.observed(self._instance, ()))
        known = self._run.params
        self._run.log_params({name: value for name, value in made.items() if name not in known})

    def _observe(self) -> None:
        session, found, stack = self._training.session, self._observed, self._cleanup
        session.epochs.begin(self._arguments.epoch)
        session.generators |= {name: generators_of(loader) for name, loader in found.loaders.items()}
        for name, loss in found.losses.items():
            if can_be_hooked(loss) and stack.enter_context(self._training.hooking(loss)):
                self._put(name, partial(hook_loss, loss, name, session))
        for name, optimizer in found.optimizers.items():
            known = session.name_of_optimizer(name, optimizer)
            if stack.enter_context(self._training.hooking(optimizer)):
                is_watched_before = self._options.gradient_norm
                hook = partial(hook_optimizer, optimizer, known, session, is_watched_before=is_watched_before)
                self._put(name, hook)
        if not found.optimizers and stack.enter_context(self._training.hooking(torch.optim.Optimizer)):
            session.epochs.awaits_optimizer = not session.epochs.optimizers
            stack.callback(hook_every_optimizer(self._name_of_optimizer, session))
        if self._options.log_model:
            for name, model in found.models.items():
                if name not in session.batches and can_be_hooked(model):
                    self._put(name, partial(hook_model, model, name, session))
        stack.callback(self._arguments.replace(found, session))

    def _put(self, name: str, hook: Callable[[], Callable[[], None]]) -> None:
        """Observe one object until the call returns; one that cannot be keeps no other from it."""
        with recorded_part(self._run, f"observer {name}"):
            self._cleanup.callback(hook())

    def _name_of_optimizer(self, optimizer: torch.optim.Optimizer) -> str | None:
        """What an optimizer that the function has made is called; None for those of others, and of calls within."""
        is_ours = current_run() is self._run and not self._run.is_told_by_callback
        is_new = is_ours and not self._training.has_hooked(optimizer)
        return self._training.session.found_optimizer(optimizer) if is_new else None

    @contextmanager
    def _active(self) -> Iterator[None]:
        """The function's own code runs: in the run, watched."""
        with self._run.as_current():
            if self._run.is_null:
                yield
                return
            found = self._observed
            with (
                self._hidden_mode(),
                self._training.session.watching(
                    list(found.models.values()), without_loss=not found.losses, has_loaders=bool(found.loaders)
                ),
            ):
                yield

    @contextmanager
    def _hidden_mode(self) -> Iterator[None]:
        """The scoped hook of a call around this one is off where this one's own losses are observed."""
        session = self._training.session
        outer = session.functional if self._observed.losses else None
        if outer is None:
            yield
            return
        with recorded_part(self._run, "steps"):
            session.epochs.tell_steps()  # which of them are recorded depends on whether the hook is there
        outer.suspend()
        session.functional = None
        try:
            yield
        finally:
            with recorded_part(self._run, "steps"):
                session.epochs.tell_steps()
            session.functional = outer
            outer.resume()

    @property
    def _run(self) -> Run:
        return self._training.run

    @property
    def _is_outermost(self) -> bool:
        return self._training.depth == 0

    def _leave(self) -> None:
        """Take the observers off."""
        with recorded_part(self._run, "observers"):
            self._cleanup.close()
        self._training.depth -= 1
        self._training.session.close_epoch()
        if self._count == 0 and not self._run.is_null:
            with recorded_part(self._run, "params"):
                self._record_what_was_made()

    def _fail(self, error: BaseException) -> None:
        if self._run.loops.is_to_be_repeated:
            self._training.session.abandon_epoch()
        training = self._training
        training.session.leave_out_unfinished()
        self._leave()
        if not self._is_outermost:
            return
        if not training.is_left_open:
            training.to_save.clear()
        if training.is_owned:
            status = status_of(error)
            self._run.finish(status, error=error if status == "FAILED" else None)
        if not training.is_left_open:
            training.conclude()
        if training.is_owned:
            self._run.seal()

    def _succeed(self, result: Any) -> None:
        self._leave()
        training, run = self._training, self._run
        if training.checkpoint is not None:
            training.checkpoint.leave()
        if run.is_null:
            if training.is_owned and self._is_outermost and "epoch" not in self._arguments.names:
                run.finish()
            return
        self._n_epochs += training.session.epochs.n_epochs
        if self._n_epochs:
            training.trained[self._name] = training.last_call
        with recorded_part(run, "returned values"):
            self._report(points_of(result, epoch=self._epoch()))
        if self._options.log_model:
            training.save_later(self._observed, module_in(result))
        if not self._is_outermost:
            return
        is_found_again = bool(self._observed.models) or not training.is_owned
        with recorded_part(run, "advice"):
            self._say_what_was_not_seen()
        is_a_loop = run.loops.were_used
        if is_found_again and not is_a_loop and is_one_epoch(self._arguments.names, n_epochs=self._n_epochs):
            training.leave_open()
        if training.is_over or not training.is_left_open:
            training.end()

    def _say_what_was_not_seen(self) -> None:
        """Where a training left nothing to record of its loss, or nothing to tell its epochs by, say what would."""
        session = self._training.session
        has_stepped = any(map(session.epochs.count_of, session.epochs.optimizers))
        has_trained = has_stepped and session.epochs.n_epochs > 0  # no checkpoint of a training that was over
        is_our_fault = any(name.startswith("overt.not_recorded.") for name in self._run.tags)
        was_seen = any(name.startswith("train_loss") for name in self._measured)
        is_known = was_seen or is_our_fault or self._said_losses or self._run.tags.get("overt.not_observed") == "loss"
        if has_trained and not is_known:
            seen = " and ".join(self._observed.losses) or "torch.nn.functional's losses"
            self._run.set_tag("overt.not_observed", "loss")
            self._run.warn(
                f"no training loss was seen in {self._name}(), so run {self._run.name} has no train_loss: only calls "
                f"of {seen} are seen there, and none that torch.compile hides. Give {self._name}() the loss as an "
                "argument, name it with observe=, or take an argument called run and say run.log_metric(…)"
            )
        elif self._may_have_epochs_in_one():
            say = partial(_say_epochs_in_one, self._name, session)
            if _ask_for_many(self._arguments.given):
                say()
            elif _ask_for_many(getattr(self._instance, "__dict__", {})):  # each call may be one of them
                self._run.call_at_end(lambda run: say() if session.epochs.n_epochs == 1 else None)

    @property
    def _measured(self) -> set[str]:
        """Names of the series of epochs that were measured."""
        return {name for _, name in self._training.session.written}

    @property
    def _said_losses(self) -> list[str]:
        """Losses that the function has said itself: by yield, by what it returned, by its run."""
        said = self._run.metrics.keys() - self._measured
        return [name for name in said if "loss" in name and not name.startswith("reported_")]

    def _may_have_epochs_in_one(self) -> bool:
        """Whether one epoch was seen, with nothing that could have told of more."""
        training, measured = self._training, self._measured
        says_when = training.n_yielded or self._run.loops.were_used or self._observed.loaders
        is_told_within = set(training.functions) != {self._name}
        says_itself = any(not name.endswith("_step") for name in self._said_losses)
        has_evaluated = any("val_" in name for name in self._run.metrics)
        is_one = self._n_epochs == 1 and "train_loss" in measured and not has_evaluated
        is_one = is_one and "epoch" not in self._arguments.names
        return is_one and not (says_when or is_told_within or says_itself)

    def _epoch(self) -> int:
        """The epoch that what the call returns is of."""
        if self._arguments.epoch is not None:
            return self._arguments.epoch
        index = self._training.session.epochs.index
        return index if index >= 0 else self._count

    def _report(self, points: Iterator[tuple[str, Any, int]]) -> None:
        self._training.session.report(points)

    # -- generators ----------------------------------------------------------------------------------------------------

    def _yielded(self, item: Any) -> None:
        session = self._training.session
        if self._run.is_null:
            return
        fields = fields_of(item)
        session.close_epoch(own_epoch(fields) if fields is not None else None)
        with recorded_part(self._run, "yielded values"):
            session.epochs.index = max(session.epochs.index, self._training.n_yielded)
            self._training.n_yielded = session.epochs.index + 1
            if fields is not None:
                self._report(points_of_epoch(fields, epoch=session.epochs.index))
            elif has_numbers(item):
                self._run.warn(
                    f"{self._name}() yields numbers without names, which run {self._run.name} does not record: "
                    'yield {"train_loss": …} for each epoch'
                )
            session.epochs.begin()

    def _close(self, inner: Generator[Any, Any, Any]) -> None:
        """The caller wants no more."""
        self._is_waiting = False  # the run that ends here is not one that was abandoned
        try:
            with self._active():
                inner.close()
        except BaseException as error:
            self._fail(error)
            raise
        if self._run.status == "RUNNING":
            self._set_stopped_early()
            self._succeed(None)
        else:
            self._cleanup.close()

    def _abandon(self) -> None:
        """The run has ended: if the caller still holds the generator then, this is all that there was."""
        if not self._is_waiting or self._run.is_null:
            return
        if self._run.status == "FINISHED":
            self._set_stopped_early()
        if self._options.log_model:
            self._training.save_later(self._observed, None)
        self._training.conclude()

    def _set_stopped_early(self) -> None:
        with recorded_part(self._run, "tags"):
            self._run.set_tag("stopped_early", "true")


def _say_epochs_in_one(function: str, session: Session) -> None:
    run = session.run
    run.set_tag("overt.not_observed", "epochs")
    run.warn(
        f"no loader was seen in {function}(), so where its epochs end is not known, and run {run.name} has all of it "
        f"as epoch {session.epochs.index}. Give {function}() the loader as an argument (one that does not look like it "
        "with observe=), yield once for each epoch, or take an argument called run and say `for epoch in run.epochs(n)`"
    )


def _ask_for_many(settings: Mapping[str, Any]) -> bool:
    """Whether settings, or those of a configuration among them, ask for more than one epoch."""
    found = list(settings.items())
    for value in settings.values():
        if not is_data(value):
            found += (without_machinery(value) or {}).items()
    return any(isinstance(n, int) and n > 1 for name, n in found if not is_one_epoch((name,), n_epochs=1))


def _unwrapped(result: Any) -> Any:
    """``result`` with the real objects in the places of their observers."""
    if is_observer(result):
        return real_of(result)
    if isinstance(result, tuple) and any(map(is_observer, result)):
        items = [real_of(item) for item in result]
        return type(result)._make(items) if hasattr(result, "_make") else type(result)(items)
    if isinstance(result, list | dict):
        for key, item in list(enumerate(result) if isinstance(result, list) else result.items()):
            if is_observer(item):
                result[key] = real_of(item)
    return result
