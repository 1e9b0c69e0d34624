"""What is put on or around the user's objects for the length of a call, and taken off when it returns.

Loss modules, optimizers and models get PyTorch's own hooks; loaders and loss functions are passed in as proxies. All of
them let everything through unchanged, say nothing while ``torch.compile`` traces, and are no part of any copy or pickle
of what they observe: that is the real object.
"""

from __future__ import annotations

import copy
import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from operator import length_hint
from typing import TYPE_CHECKING, Any, Protocol

import torch
import wrapt
from torch.compiler import is_compiling
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from overt.integrations.torch.epochs import Pass

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:  # wrapt's stubs make it generic, wrapt itself does not
    _Proxy = wrapt.ObjectProxy

_MOVES = frozenset("to cpu cuda float double half bfloat16 type".split())


class Watcher(Protocol):
    """Is told what the observed objects do; none of its methods raises what is not meant for the user."""

    @property
    def is_watching(self) -> bool:
        """Whether a call goes on that it watches."""

    def loss_computed(self, source: str, function: Any, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        """A loss was computed."""

    def model_called(self, name: str, model: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        """A model is about to see a batch."""

    def step_begins(self, name: str, optimizer: Any, has_closure: bool) -> None:
        """An optimizer is about to step."""

    def stepped(self, name: str, optimizer: Any, *given: Any) -> None:
        """An optimizer has stepped."""

    def pass_begun(self, name: str, loader: Any, length: int) -> Pass | None:
        """A loader of so many batches was started."""

    def batch_drawn(self, drawn_in: Pass, batch: Any) -> None:
        """A loader has given a batch."""

    def pass_ended(self, ended: Pass) -> None:
        """A loader is exhausted or has been left."""


# -- hooks -------------------------------------------------------------------------------------------------------------


class Hook:
    """A hook that is not copied: in the copy or the pickle of a module there is one in its place that does nothing."""

    __slots__ = "_call", "_name"

    def __init__(self, name: str, call: Callable[..., None]) -> None:
        self._name = name
        self._call = call

    def __call__(self, *args: Any) -> None:
        """Tell what was seen, but not what ``torch.compile`` traces: there is nothing to be seen in it."""
        if not is_compiling():
            self._call(self._name, *args)

    def __reduce__(self) -> Any:
        return _nothing.__reduce__()


_nothing = nullcontext().__exit__  # takes anything and returns None, and its pickle can be read without overt


def can_be_hooked(value: Any) -> bool:
    """Whether ``value`` is a module that takes hooks: what ``torch.jit`` has compiled takes none."""
    return isinstance(value, torch.nn.Module) and not isinstance(value, torch.jit.ScriptModule)


def hook_loss(module: torch.nn.Module, name: str, watcher: Watcher) -> Callable[[], None]:
    """Observe a loss module; what is returned takes the hook off."""
    return module.register_forward_hook(Hook(name, watcher.loss_computed), with_kwargs=True).remove


def hook_model(model: torch.nn.Module, name: str, watcher: Watcher) -> Callable[[], None]:
    """Observe the first batch that a model sees; afterwards the hook is gone."""

    def call(name: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handle.remove()
        watcher.model_called(name, model, args, kwargs)

    handle = model.register_forward_pre_hook(Hook(name, call), with_kwargs=True)
    return handle.remove


def hook_optimizer(
    optimizer: torch.optim.Optimizer, name: str, watcher: Watcher, *, is_watched_before: bool
) -> Callable[[], None]:
    """Observe an optimizer's steps; what is returned takes the hooks off.

    What comes before a step is observed on request, and where an optimizer may ask its closure more than once.
    """

    def before(name: str, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watcher.step_begins(name, optimizer, _has_closure(args, kwargs))

    optimizer = _innermost(optimizer)
    handles = [optimizer.register_step_post_hook(Hook(name, watcher.stepped))]
    asks_once = type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, torch.optim.LBFGS)
    if is_watched_before or not asks_once:
        handles.append(optimizer.register_step_pre_hook(Hook(name, before)))
    return _removing(*handles)


def _innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The only optimizer within an optimizer: SAM and its like step with that one, by methods that take no hooks."""
    within = [each for each in vars(optimizer).values() if isinstance(each, torch.optim.Optimizer)]
    return _innermost(within[0]) if len(within) == 1 and within[0] is not optimizer else optimizer


def hook_every_optimizer(
    name_of: Callable[[torch.optim.Optimizer], str | None], watcher: Watcher
) -> Callable[[], None]:
    """Observe the optimizers that a function makes for itself, where none is given to it.

    Parameters
    ----------
    name_of : callable
        Is given an optimizer that steps, of whomever in this process; None if it is none of the function's.
    """

    def before(_: str, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (name := name_of(optimizer)) is not None:
            watcher.step_begins(name, optimizer, _has_closure(args, kwargs))

    def after(_: str, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (name := name_of(optimizer)) is not None:
            watcher.stepped(name, optimizer)

    hooks = register_optimizer_step_pre_hook(Hook("", before)), register_optimizer_step_post_hook(Hook("", after))
    return _removing(*hooks)


def _removing(*handles: Any) -> Callable[[], None]:
    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(argument is not None for argument in (*args[1:], kwargs.get("closure")))


# -- proxies -----------------------------------------------------------------------------------------------------------


class _CopyOfTheReal:
    """``__copy__`` for a class, and for its instances only where the real object has one: ``itertools.tee`` asks."""

    def __get__(self, proxy: Any, owner: type) -> Callable[..., Any]:
        method: Callable[..., Any] = _copied if proxy is None else proxy.__wrapped__.__copy__
        return method


def _copied(proxy: Any) -> Any:
    return copy.copy(proxy.__wrapped__)


class _Stand(_Proxy):
    """Stands in for the real object, and is copied, pickled and saved as it."""

    __copy__ = _CopyOfTheReal()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # What the real object says of itself would do for it alone. A pickle that has both would have two objects, and
        # of a function pickle wants to find this very object under its name. Who reads it needs no overt for this.
        return operator.getitem, ((self.__wrapped__,), 0)


class Observer(_Stand):
    """The real object, watched, and equal to it in everything."""

    def __init__(self, real: Any, name: str, watcher: Watcher) -> None:
        super().__init__(real)
        self._self_name = name
        self._self_watcher = watcher

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name in _MOVES and callable(value):
            return lambda *args, **kwargs: self._self_or(value(*args, **kwargs))
        return value

    def _self_or(self, result: Any) -> Any:
        """``result``, or this observer where that is the real object or one that took its place."""
        if result is self.__wrapped__:
            return self
        is_same_kind = type(result) is type(self.__wrapped__)
        return type(self)(result, self._self_name, self._self_watcher) if is_same_kind else result


class LossFunction(Observer):
    """A loss that is a function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        output = self.__wrapped__(*args, **kwargs)
        if not is_compiling():
            self._self_watcher.loss_computed(self._self_name, self.__wrapped__, args, kwargs, output)
        return output


class Loader(Observer):
    """A loader of batches."""

    def __iter__(self) -> Iterator[Any]:
        real: Iterator[Any] = iter(self.__wrapped__)  # at once: it draws from the random numbers of the loop
        if is_compiling():
            return real
        begun = self._self_watcher.pass_begun(self._self_name, self.__wrapped__, _length(self.__wrapped__))
        return real if begun is None else Batches(real, begun, self._self_watcher)


class Batches(_Stand):
    """One iteration over a loader; it ends when it is exhausted or when nobody holds it any more."""

    def __init__(self, real: Iterator[Any], begun: Pass, watcher: Watcher) -> None:
        super().__init__(real)
        self._self_pass = begun
        self._self_watcher = watcher
        self._self_left = weakref.finalize(self, watcher.pass_ended, begun)
        self._self_left.atexit = False

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self.__wrapped__)
        except StopIteration:
            self._self_pass.is_whole = True
            self._self_left()
            raise
        self._self_watcher.batch_drawn(self._self_pass, batch)
        return batch


def _length(loader: Any) -> int:
    """Number of batches, if it costs nothing to know: a DataLoader that was asked for that of a stream checks it."""
    is_stream = isinstance(getattr(loader, "dataset", None), torch.utils.data.IterableDataset)
    try:
        return 0 if is_stream else length_hint(loader)
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return 0


def real_of(value: Any) -> Any:
    """``value``, or what is observed through it."""
    return value.__wrapped__ if is_observer(value) else value


def is_observer(value: Any) -> bool:
    """Whether ``value`` is one of these proxies, whatever it says its class is."""
    return issubclass(type(value), Observer)
