"""The arguments of a training as params: settings under their own names, what is no setting in a few words."""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from overt.capture.params import describe, flatten, is_data
from overt.capture.training import optimizer_params, scheduler_params, summarize_model
from overt.integrations.torch.arguments import Observed, is_loader
from overt.integrations.torch.observers import is_observer, real_of
from overt.run import Run
from overt.tracker import Tracker

_NO_PARAMS = ("self", "cls", "run", "epoch")
_FABRIC = ("lightning.fabric.", "lightning_fabric.")
_WRAPPERS = ("torch.", *_FABRIC)
_NOTHING = object()
_LOADER_SETTINGS = ("batch_size", "drop_last", "num_workers")


def params_of(given: Mapping[str, Any], observed: Observed) -> dict[str, object]:
    """All params of a call: an argument's fields under their own names, after the argument's where that is taken.

    A plain argument has its own name in any case, wherever it stands.
    """
    params: dict[str, object] = {}
    for origin, found in sorted(_parts(given, observed), key=lambda part: list(part[1]) != [part[0]]):
        for name, value in found.items():
            if name not in params or describe(params[name]) == describe(value):
                params[name] = value
            else:
                params[f"{origin}.{name}"] = value
    return params


def params_of_optimization(observed: Observed) -> dict[str, object]:
    """Settings of optimizers and schedulers."""
    return _optimizer_params(observed) | _scheduler_params(observed)


def inner_model(model: torch.nn.Module) -> torch.nn.Module:
    """The user's own model, within what compiles it or spreads it over devices."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, torch.nn.Module) and type(model).__module__.startswith(_WRAPPERS):
            return inner_model(inner)
    return model


def _inner_optimizer(optimizer: Any) -> Any:
    """The user's own optimizer, within that of Fabric, whose class has another name."""
    return optimizer.optimizer if type(optimizer).__module__.startswith(_FABRIC) else optimizer


def _parts(given: Mapping[str, Any], observed: Observed) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name, value in given.items():
        if name not in _NO_PARAMS and not _is_machinery(value):
            if _is_setting(value) or is_data(value):
                yield name, {name: value}
            elif (fields := without_machinery(value)) is not None:
                yield name, flatten(fields)
            elif not isinstance(value, list | tuple) or not any(map(_is_machinery, value)):
                yield name, {name: value}
    for name, model in observed.models.items():
        yield (
            name,
            _model_params(model)
            if len(observed.models) == 1
            else {f"{name}.{key}": value for key, value in _model_params(model).items()},
        )
    yield "optimizer", _optimizer_params(observed)
    yield "scheduler", _scheduler_params(observed)
    for name, loss in observed.losses.items():
        yield name, {name: _loss_name(loss), **{f"{name}.{key}": value for key, value in _loss_settings(loss).items()}}
    yield "loader", _loader_params(observed.loaders)


def _model_params(model: torch.nn.Module) -> dict[str, object]:
    kind = type(inner_model(model)).__name__
    return {"model_type": kind, "model_name": kind, **summarize_model(model).to_params()}


def _optimizer_params(observed: Observed) -> dict[str, object]:
    inner = {name: _inner_optimizer(optimizer) for name, optimizer in observed.optimizers.items()}
    return _several(optimizer_params, inner)


def _scheduler_params(observed: Observed) -> dict[str, object]:
    return _several(scheduler_params, observed.schedulers)


def _several(describe_all: Any, found: Mapping[str, Any]) -> dict[str, object]:
    """Params of one under their own names, of several under those of the arguments."""
    if len(found) == 1:
        return dict(describe_all(list(found.values())))
    params: dict[str, object] = {}
    for name, thing in found.items():
        for key, value in describe_all([thing]).items():
            params[name if key in ("optimizer", "scheduler") else f"{name}.{key.removeprefix('scheduler.')}"] = value
    return params


def _loader_params(loaders: Mapping[str, Any]) -> dict[str, object]:
    params: dict[str, object] = {}
    for name, loader in loaders.items():
        for setting in _LOADER_SETTINGS:
            if (value := getattr(loader, setting, None)) is not None:
                params[f"{name}.{setting}"] = value
        sampler = type(getattr(loader, "sampler", None)).__name__
        if sampler in ("RandomSampler", "SequentialSampler"):
            params[f"{name}.shuffle"] = sampler == "RandomSampler"
        elif sampler != "NoneType":
            params[f"{name}.sampler"] = sampler
        try:
            params[f"{name}.n_samples"] = len(loader.dataset)
        except (AttributeError, TypeError):  # a stream has no length
            continue
    sizes = {name: params[f"{name}.batch_size"] for name in loaders if f"{name}.batch_size" in params}
    if sizes:
        params["batch_size"] = next(
            (size for name, size in sizes.items() if "train" in name), next(iter(sizes.values()))
        )
    return params


def _loss_name(loss: Any) -> str:
    return type(loss).__name__ if isinstance(loss, torch.nn.Module) else describe(loss)


def _loss_settings(loss: Any) -> dict[str, object]:
    if not isinstance(loss, torch.nn.Module):
        return {}
    return {
        name: value
        for name, value in vars(loss).items()
        if not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str)
    }


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | complex | str)


def _is_machinery(value: Any) -> bool:
    """Whether ``value`` is described elsewhere, or is nothing that a run has as a setting."""
    kinds = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, Run, Tracker)
    return is_observer(value) or is_loader(value) or isinstance(value, kinds)


def without_machinery(value: Any) -> dict[str, Any] | None:
    """The fields of a configuration, without models and loaders in it; None for what is none."""
    value = real_of(value)
    if isinstance(value, Mapping):
        fields: Mapping[Any, Any] = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    elif isinstance(value, argparse.Namespace | types.SimpleNamespace):
        fields = vars(value)
    elif hasattr(type(value), "__attrs_attrs__"):
        fields = {part.name: getattr(value, part.name) for part in type(value).__attrs_attrs__}
    elif isinstance(getattr(type(value), "model_fields", None), Mapping):  # pydantic
        fields = {name: getattr(value, name) for name in type(value).model_fields}
    else:
        return None
    return {str(key): plain for key, item in fields.items() if (plain := _plain(item)) is not _NOTHING}


def _plain(value: Any) -> Any:
    """``value`` without the machinery within it; ``_NOTHING`` of what is nothing else."""
    if _is_machinery(value) or (isinstance(value, list | tuple) and any(map(_is_machinery, value))):
        return _NOTHING
    if is_data(value):
        return describe(value)
    if isinstance(value, Mapping):
        return without_machinery(value) or (_NOTHING if value else value)
    return value
