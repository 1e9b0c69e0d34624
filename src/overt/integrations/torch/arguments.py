"""What a decorated function was given: what can be observed among it, and what of it is a param.

Objects with hooks of their own stay in their places. A loader or a loss function gives its place to an observer: in a
list, a mapping or an object for the length of the call, since the function may write into it, and in the call itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.nn.modules.loss import _Loss

from overt.integrations.torch.observers import Loader, LossFunction, Watcher, can_be_hooked, is_observer, real_of
from overt.run import Run

_LOSS_NAME = re.compile(
    r"(^|_)(loss(es)?|criterions?|criteria|objectives?)(_?(fn|fun|func|function)s?)?(_?\d+|_[a-z])?$", re.IGNORECASE
)
"""Of a loss: the last word is one of these, before a number or a single letter, so that ``loss_scaler`` is none."""
_LOSS_CLASS = re.compile(r"(Loss|Criterion)(V?\d+)?$")
_MANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_MAX_DEPTH = 3
_MAX_ITEMS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies, and how another is put there."""

    get: Callable[[], Any]
    put: Callable[[Any], None]


@dataclasses.dataclass(slots=True)
class Observed:
    """What can be observed, by name.

    Attributes
    ----------
    places : dict
        By id of a loader or loss function: where it lies.
    watcher : Watcher or None
        Who observes: what others observe, of calls around this one, is observed as well.
    is_observed : bool
        Whether something was left out because it is observed already.
    """

    losses: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = dataclasses.field(default_factory=dict)
    schedulers: dict[str, Any] = dataclasses.field(default_factory=dict)
    loaders: dict[str, Any] = dataclasses.field(default_factory=dict)
    models: dict[str, torch.nn.Module] = dataclasses.field(default_factory=dict)
    places: dict[int, list[Place]] = dataclasses.field(default_factory=dict)
    watcher: Watcher | None = None
    is_observed: bool = False

    def add(self, name: str, value: Any, place: Place | None, *, is_asked: bool = False) -> bool:
        """Take ``value`` in, if it is something to be observed."""
        kinds: dict[str, Any] | None = None
        if isinstance(value, torch.optim.Optimizer):
            kinds = self.optimizers
        elif isinstance(value, torch.nn.Module):
            kinds = self.losses if is_asked or _is_loss_module(name, value) else self.models
        elif isinstance(value, torch.optim.lr_scheduler.LRScheduler):
            kinds = self.schedulers
        elif place is not None and (is_loader(value) or (is_asked and hasattr(value, "__iter__"))):
            kinds = self.loaders
        elif place is not None and (_is_loss_function(name, value) or (is_asked and callable(value))):
            kinds = self.losses
        if kinds is None:
            return False
        if not any(known is value for known in kinds.values()):
            kinds[_free(name, kinds)] = value
        if place is not None:
            self.places.setdefault(id(value), []).append(place)
        return True

    def observers(self, watcher: Watcher) -> Iterator[tuple[Any, Any]]:
        """Pairs of a real object and the proxy that watches it."""
        for name, loader in self.loaders.items():
            yield loader, Loader(loader, name, watcher)
        for name, loss in self.losses.items():
            if not can_be_hooked(loss):
                yield loss, LossFunction(loss, name, watcher)


class Arguments:
    """The arguments of one call."""

    def __init__(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.names = tuple(signature.parameters)
        self._bound = _bind(signature, args, kwargs)
        self.given: dict[str, Any] = {}
        whole = inspect.BoundArguments(signature, dict(self._bound.arguments))
        whole.apply_defaults()
        for name, value in whole.arguments.items():
            kind = signature.parameters[name].kind
            self.given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}

    @property
    def args(self) -> tuple[Any, ...]:
        """By position."""
        return self._bound.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """By name."""
        return self._bound.kwargs

    @property
    def epoch(self) -> int | None:
        """The number that the caller gives the epoch, if that is what it does."""
        epoch = self.given.get("epoch")
        return epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None

    @property
    def run(self) -> Run | None:
        """The run that the caller gives, if there is one."""
        run = self.given.get("run")
        return run if isinstance(run, Run) else None

    def give_run(self, run: Run) -> None:
        """Fill a parameter called ``run`` that the caller has left open."""
        parameter = self._bound.signature.parameters.get("run")
        is_one = parameter is not None and parameter.kind not in _MANY
        if is_one and self._bound.arguments.get("run") is None:
            self._bound.arguments["run"] = run

    def observed(self, instance: object, asked: tuple[str, ...], watcher: Watcher | None = None) -> Observed:
        """What can be observed among them, and among the attributes of a method's object."""
        found = Observed(watcher=watcher)
        for name, parameter in self._bound.signature.parameters.items():
            if name not in self._bound.arguments:
                continue
            given = self._bound.arguments[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                for key in given:
                    _find(found, key, given[key], _item_place(given, key), asked)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self._bound.arguments[name] = items = list(given)
                _find_in_sequence(found, name, items, asked)
            else:
                _find(found, name, given, _item_place(self._bound.arguments, name), asked)
        if instance is not None and not isinstance(instance, type):
            _find_in_attributes(found, instance)
        return found

    @staticmethod
    def replace(found: Observed, watcher: Watcher) -> Callable[[], None]:
        """Put observers in the places of what they observe; what is returned puts all back."""
        replaced: list[tuple[Place, Any, Any]] = []
        for real, observer in found.observers(watcher):
            for place in found.places.get(id(real), ()):
                replaced.append((place, place.get(), observer))
                place.put(observer)

        def restore() -> None:
            for place, before, observer in replaced:
                if place.get() is observer:  # the function may have put something else there
                    is_in_use = is_observer(before) and before._self_watcher.is_watching
                    place.put(before if is_in_use else real_of(before))

        return restore


def _bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments by name; a parameter called ``run`` may be missing, also where others with defaults follow."""
    bound = None
    with suppress(TypeError):
        bound = signature.bind(*args, **kwargs)
    if bound is not None and not _is_machinery(bound.arguments.get("run")):
        return bound
    others = [parameter for name, parameter in signature.parameters.items() if name != "run"]
    try:
        without = signature.replace(parameters=others).bind(*args, **kwargs)
    except TypeError:
        if bound is None:
            raise
        return bound
    return inspect.BoundArguments(signature, without.arguments)


def _is_machinery(value: Any) -> bool:
    """Whether ``value`` is what a training is made of, and so no run of whomever."""
    return isinstance(value, torch.nn.Module | torch.optim.Optimizer | torch.Tensor) or is_loader(value)


# -- finding -----------------------------------------------------------------------------------------------------------


def _find(found: Observed, name: str, value: Any, place: Place | None, asked: tuple[str, ...], depth: int = 0) -> None:
    if is_observer(value):
        if found.watcher is None or value._self_watcher is found.watcher:
            found.is_observed = True
            return
        value = real_of(value)
    if depth > _MAX_DEPTH:
        return
    if found.add(name, value, place, is_asked=name in asked):
        return
    if isinstance(value, dict) and len(value) <= _MAX_ITEMS:
        for key in list(value):
            inner = f"{name}_{key}" if depth == 0 else str(key)
            are_losses = (inner,) if _is_loss_function(name, value[key]) else ()  # losses={"box": …}
            _find(found, inner, value[key], _item_place(value, key), (*asked, *are_losses), depth + 1)
    elif isinstance(value, list) and len(value) <= _MAX_ITEMS:
        _find_in_sequence(found, name, value, asked, depth + 1)
    elif isinstance(value, tuple) and len(value) <= _MAX_ITEMS and place is not None:
        items = list(value)
        for index, item in enumerate(items):
            at = _tuple_place(place, type(value), items, index)
            _find(found, name if len(items) == 1 else f"{name}_{index}", item, at, asked, depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            if hasattr(value, part.name):
                _find(found, part.name, getattr(value, part.name), _field_place(value, part.name), asked, depth + 1)
    elif isinstance(value, argparse.Namespace | types.SimpleNamespace):
        for key, item in list(vars(value).items()):
            _find(found, key, item, _field_place(value, key), asked, depth + 1)


def _find_in_sequence(found: Observed, name: str, items: list[Any], asked: tuple[str, ...], depth: int = 1) -> None:
    for index, item in enumerate(items):
        _find(found, name if len(items) == 1 else f"{name}_{index}", item, _item_place(items, index), asked, depth)


def _find_in_attributes(found: Observed, instance: object) -> None:
    """Hooks need no place to be put in; loaders and functions would, and the object is not ours to change."""
    kinds = torch.nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler
    attributes = dict(getattr(instance, "__dict__", {}))
    if isinstance(instance, torch.nn.Module):  # which trains itself
        found.add("model", instance, None)
        attributes |= {name: part for name, part in instance.named_children() if _is_loss_module(name, part)}
    for name, value in attributes.items():
        if isinstance(value, kinds):
            found.add(name.lstrip("_"), value, None)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free


def _item_place(container: Any, key: Any) -> Place:
    def get() -> Any:
        try:
            return container[key]
        except LookupError:  # the function has taken it out
            return None

    return Place(get, lambda value: container.__setitem__(key, value))


def _field_place(owner: Any, name: str) -> Place:
    # object's own setter: a frozen dataclass gets its own value back
    return Place(lambda: getattr(owner, name, None), lambda value: object.__setattr__(owner, name, value))


def _tuple_place(outer: Place, kind: type, items: list[Any], index: int) -> Place:
    """An item of a tuple: another tuple has to take its place."""

    def put(value: Any) -> None:
        items[index] = value
        outer.put(kind._make(items) if hasattr(kind, "_make") else kind(items))

    return Place(lambda: items[index], put)


def is_loader(value: Any) -> bool:
    """A DataLoader, or what is called one (Fabric's and others' are none by inheritance)."""
    kind = type(value)
    return isinstance(value, torch.utils.data.DataLoader) or ("Loader" in kind.__name__ and hasattr(kind, "__iter__"))


def _is_loss_module(name: str, module: torch.nn.Module) -> bool:
    is_one = isinstance(module, _Loss) or _LOSS_CLASS.search(type(module).__name__) or _LOSS_NAME.search(name)
    return bool(is_one)


def _is_loss_function(name: str, value: Any) -> bool:
    if not callable(value) or isinstance(value, type):
        return False
    is_function = isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType)
    own = getattr(value, "__name__", "") if is_function else ""
    return bool(_LOSS_NAME.search(name) or (own and own.endswith(("_loss", "cross_entropy"))))
