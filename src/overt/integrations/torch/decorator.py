"""``track_training``: a decorator that records what a training function does and changes nothing of it.

The call gets the user's own objects, watched, and its result, its exceptions and its weights are those of the bare
function. Only the user's own mistakes raise, and those at the decorator's line or before the function has begun.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import wrapt

from overt.errors import ConfigurationError
from overt.integrations.torch.arguments import Arguments
from overt.integrations.torch.call import Call
from overt.integrations.torch.options import Options
from overt.resuming import Resume
from overt.run import Run
from overt.tracker import Tracker

if TYPE_CHECKING:
    _Wrapper = wrapt.FunctionWrapper[..., Any]
    _BoundWrapper = wrapt.BoundFunctionWrapper[..., Any]
else:  # wrapt's stubs make them generic, wrapt itself does not
    _Wrapper = wrapt.FunctionWrapper
    _BoundWrapper = wrapt.BoundFunctionWrapper

F = TypeVar("F", bound=Callable[..., Any])


@overload
def track_training(function: F, /) -> F: ...
@overload
def track_training(
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    notes: str | None = None,
    run: Run | None = None,
    parent: Run | str | None = None,
    tracker: Tracker | None = None,
    observe: Sequence[str] = (),
    every_n_steps: int | None = None,
    log_model: bool = True,
    evaluate: bool = True,
    class_names: Sequence[str] | None = None,
    gradient_norm: bool = False,
    stop_on_nan: bool = False,
    system_metrics: bool | None = None,
    resume: Resume = "auto",
) -> Callable[[F], F]: ...
def track_training(function: Any = None, /, **keywords: Any) -> Any:
    """Record what a PyTorch training function does, even one that knows nothing of it.

    Among the arguments (also in a list, a mapping or a dataclass) losses, optimizers and data loaders are observed for
    the length of the call. That gives ``train_loss`` and ``val_loss`` for each epoch, as means over samples,
    ``train_loss_step`` for each step, ``lr``, ``n_steps``, ``samples_per_second`` and ``epoch_seconds``; from the
    outputs and targets of the last evaluation an accuracy, a confusion matrix and a report; and the model. A loss
    counts as training where it has a graph, as evaluation where it has none.

    Parameters
    ----------
    function : callable, optional
        A function, method, static or class method, or a generator function, each ``yield`` of which is one epoch. If it
        has a parameter called ``run``, it is given the :class:`~overt.Run` there, unless the caller gives one.
    experiment : str, optional
        Where the run goes; as configured if absent.
    run_name : str, optional
        The run's name; the function's and four characters if absent.
    tags, params : mapping, optional
        Recorded besides what the arguments give.
    notes : str, optional
        Markdown for the run's page.
    run : Run, optional
        Record into this run and leave it open.
    parent : Run or str, optional
        Run, or key of one, to nest the run in.
    tracker : Tracker, optional
        Settings to use.
    observe : sequence of str
        Arguments that are losses or loaders and do not look like it: a function that computes a loss, a module that
        is one, an iterable of batches.
    every_n_steps : int, optional
        Record the series of steps at every n-th step only. Where the loss is no argument and is observed in
        ``torch.nn.functional``, look at the loss at every n-th step of the training only, by default at every tenth:
        at each one for ``stop_on_nan=True`` and for a model that is compiled.
    log_model : bool
        Whether to record the model among the arguments or in what is returned.
    evaluate : bool
        Whether to record how well outputs fit targets in evaluations.
    class_names : sequence of str, optional
        Display names of the classes 0, 1, ….
    gradient_norm : bool
        Whether to record the norm of the gradients at each step, as the optimizer sees them: behind ``clip_grad_norm_``
        it is at most what that allows. What ``clip_grad_norm_`` returns is the norm before.
    stop_on_nan : bool
        Whether to raise :class:`~overt.integrations.torch.session.LossNotFinite` when a loss is NaN or infinite, where
        it is computed. Each loss is looked at and read for that, so the loop waits for its device at each step.
        It rests on recording: with tracking off (``enabled=False``, ``OVERT_DISABLED=1``) nothing raises, and under
        ``torchrun`` the first rank alone looks at its losses.
    system_metrics : bool, optional
        Whether the processor, memory, disk, network and GPU are watched; as configured if absent.

    resume : {"auto", "never", "must"}
        Whether a function with ``run.epochs(checkpoint=…)`` goes on, in the same run, from the checkpoint that an
        earlier process has left: if that was called with the same settings and did not finish, never, or from the last
        one whatever its settings were, so that a call without any raises.

    Returns
    -------
    callable
        The function, recorded: signature, annotations and docstring are its own.

    Raises
    ------
    ConfigurationError
        For a keyword or a function that cannot work.

    Notes
    -----
    A call inside a run, with the model of an earlier call, records into that run: its ``epoch`` argument, else the
    number of the call, is the epoch. Outside any run, a call that is one epoch leaves its run open for the next one
    with the same model, until another training follows or the script ends.

    Examples
    --------
    >>> import torch, overt
    >>> from overt.integrations.torch.decorator import track_training
    >>> @track_training
    ... def train(model, data, criterion, optimizer, epochs):
    ...     for epoch in range(epochs):
    ...         for x, y in data:
    ...             optimizer.zero_grad()
    ...             criterion(model(x), y).backward()
    ...             optimizer.step()
    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), 4)
    >>> with overt.testing.captured_runs() as runs:
    ...     train(model, data, torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), epochs=3)
    >>> runs[0].status, runs[0].params["lr"], runs[0].metrics["n_steps"], "train_loss" in runs[0].metrics
    ('FINISHED', '0.1', 2.0, True)
    """
    try:
        options = Options(**keywords)
    except TypeError as error:
        raise TypeError(str(error).replace("Options.__init__", "track_training")) from None

    def decorate(function: Any) -> Any:
        plain = getattr(function, "__func__", function)
        _check(plain, options)
        return TrackedFunction(function, options)

    return decorate if function is None else decorate(function)


def _check(function: Any, options: Options) -> None:
    if not callable(function) or isinstance(function, type):
        raise ConfigurationError(f"track_training decorates functions and methods (got {function!r}).")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"track_training decorates functions that train while they are called; {function.__name__} is async: "
            "decorate the function that it awaits."
        )
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if options.resume == "must" and "run" not in parameters:
        raise ConfigurationError(
            f"resume='must' goes on from a checkpoint of run.epochs(checkpoint=…), and {function.__name__} has no "
            "parameter called `run`."
        )
    unknown = [name for name in options.observe if name not in parameters]
    if unknown and not takes_any:
        raise ConfigurationError(f"`observe` must name arguments of {function.__name__} (got {unknown[0]!r}).")


def _class_of(function: Any) -> type:
    """To cloudpickle, where ``function`` is to be written by value, what it is; to everybody else, a function."""
    # cloudpickle takes all that says it is a function for no more than one, and writes that without its decorator
    is_by_value = _is_asked_by_cloudpickle("reducer_override") and not _is_importable(function)
    return type(function) if is_by_value else function.__wrapped__.__class__


class _BoundTrackedFunction(_BoundWrapper):
    """A method of an object or of a class, or a function that lies in a class."""

    __class__ = property(_class_of)

    @property
    def run_(self) -> Run:
        """The run of the last call, of any object."""
        run: Run = self._self_parent.run_
        return run

    def __copy__(self) -> _BoundTrackedFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        instance = getattr(self.__wrapped__, "__self__", None)
        if instance is None or isinstance(instance, type):
            return self
        return self._self_parent.__get__(copy.deepcopy(instance, memo), self._self_owner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (getattr(self.__wrapped__, "__self__", self._self_owner), self.__wrapped__.__name__)


class TrackedFunction(_Wrapper):
    """A decorated function. Pickled by its name, as functions are; copied as itself, likewise.

    cloudpickle, and so joblib, writes by value what nobody could import, as it does with functions: what comes back
    records as this one does, and where overt is not installed it is the bare function.

    Attributes
    ----------
    run_ : Run
        Of the last call.
    """

    __class__ = property(_class_of)
    __bound_function_wrapper__ = _BoundTrackedFunction

    def __init__(self, function: Any, options: Options) -> None:
        _Wrapper.__init__(self, function, self._self_call)  # super() would look at __class__
        self._self_options = options
        self._self_run: Run | None = None

    @property
    def run_(self) -> Run:
        """The run of the last call."""
        if self._self_run is None:
            raise AttributeError(f"{self.__wrapped__.__name__} has not been called yet, so it has no run_")
        return self._self_run

    def __copy__(self) -> TrackedFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedFunction:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _is_asked_by_cloudpickle("dump") and not _is_importable(self):
            options = {item.name: getattr(self._self_options, item.name) for item in dataclasses.fields(Options)}
            return _decorate_again(), (self.__wrapped__, options)
        return self.__wrapped__.__qualname__

    def _self_call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            arguments = Arguments(inspect.signature(wrapped), args, kwargs)
        except TypeError:
            return wrapped(*args, **kwargs)  # which says what is wrong in its own words
        call = Call(wrapped, instance, arguments, self._self_options, self._self_remember)
        return call.generate() if inspect.isgeneratorfunction(wrapped) else call.make()

    def _self_remember(self, run: Run) -> None:
        self._self_run = run


def _is_asked_by_cloudpickle(method: str) -> bool:
    """Whether what is being asked for is asked for in a method, called so, of a pickler that overrides ``reduce``."""
    frame = sys._getframe(2)
    return frame.f_code.co_name == method and hasattr(type(frame.f_locals.get("self")), "reducer_override")


def _is_importable(function: Any) -> bool:
    """Whether another process finds it under its name; ``__main__`` is another one there."""
    found: Any = sys.modules.get(function.__module__) if function.__module__ != "__main__" else None
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _decorate_again() -> Callable[[Any, dict[str, Any]], Any]:
    """What is called where a pickle is read: written by value itself, as all that is made within a function."""

    def decorate(function: Any, options: dict[str, Any]) -> Any:
        try:
            from overt.integrations.torch.decorator import track_training
        except ImportError:
            return function
        return track_training(**options)(function)

    return decorate
