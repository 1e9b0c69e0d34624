"""What a training is, before its first step: a trainer and its module in, plain params out.

Every setting has its own name where that is free. Where two of different value would have one name, the first keeps
it, in the order hyper-parameters, optimizer, trainer; the second says where it comes from: ``trainer.max_epochs``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from overt.capture.params import describe, flatten, is_data
from overt.capture.training import count_samples, learning_rates, optimizer_params, scheduler_params

_TRAINER = (
    "max_epochs min_epochs max_steps min_steps precision accumulate_grad_batches gradient_clip_val "
    "gradient_clip_algorithm num_devices num_nodes val_check_interval check_val_every_n_epoch limit_train_batches "
    "limit_val_batches overfit_batches log_every_n_steps"
).split()
_CALLBACKS = {
    "EarlyStopping": (
        "early_stopping",
        "monitor mode patience min_delta stopping_threshold divergence_threshold check_finite".split(),
    ),
    "ModelCheckpoint": (
        "checkpoint",
        "monitor mode save_top_k save_last save_weights_only every_n_epochs every_n_train_steps filename".split(),
    ),
}


def describe_fit(trainer: Any, module: Any, *, with_optimizers: bool = True) -> dict[str, object]:
    """All params of a fit that are known before its data is."""
    optimizers = _optimizers(trainer) if with_optimizers else {}
    return _merged(
        ("model", {"model_type": type(module).__name__, "model_name": type(module).__name__}),
        ("hparams", hyperparameters(module)),
        ("datamodule", hyperparameters(trainer.datamodule)),
        ("optimizer", optimizers),
        ("scheduler", _schedulers(trainer) if with_optimizers else {}),
        ("trainer", _settings_of_trainer(trainer)),
        ("callbacks", _settings_of_callbacks(trainer)),
    )


def describe_evaluation(trainer: Any, module: Any) -> dict[str, object]:
    """All params of a validate, test or predict that follows no fit."""
    return _merged(
        ("model", {"model_type": type(module).__name__, "model_name": type(module).__name__}),
        ("hparams", hyperparameters(module)),
        ("datamodule", hyperparameters(trainer.datamodule)),
        ("trainer", {"precision": trainer.precision, "ckpt_path": trainer.ckpt_path}),
    )


def hyperparameters(owner: Any) -> dict[str, object]:
    """What ``save_hyperparameters()`` kept of a module or datamodule, unless it was told to keep it from loggers."""
    if owner is None or not getattr(owner, "_log_hyperparams", False):
        return {}
    given = owner.hparams_initial
    own = {name: value for name, value in given.items() if not str(name).startswith("_")}  # LightningCLI adds such
    return dict(flatten({name: describe(value) if is_data(value) else value for name, value in own.items()}))


def batch_size(trainer: Any, batch: Any, *, known: Mapping[str, object]) -> dict[str, object]:
    """The training loader's own batch size, else that of ``batch``, as a param where there is one.

    It is ``loader.batch_size`` where ``known`` params have another: before a BatchSizeFinder, or of all devices.
    """
    loaders = trainer.train_dataloader
    found = getattr(loaders, "batch_size", None)
    if found is None and isinstance(loaders, Mapping):
        found = {name: getattr(loader, "batch_size", None) for name, loader in loaders.items()}
    if found is None:
        found = count_samples(batch)
    if found is None:
        return {}
    is_free = describe(known.get("batch_size", found)) == describe(found)
    return {"batch_size" if is_free else "loader.batch_size": found}


def cli_config(trainer: Any) -> tuple[str, str] | None:
    """File name and text of the configuration that LightningCLI was given, if it started this training."""
    for callback in trainer.callbacks:
        if hasattr(callback, "config_filename") and hasattr(callback, "parser") and hasattr(callback, "config"):
            return callback.config_filename, callback.parser.dump(callback.config, skip_none=False)
    return None


def _merged(*parts: tuple[str, Mapping[str, object]]) -> dict[str, object]:
    merged: dict[str, object] = {}
    for origin, params in parts:
        for name, value in params.items():
            if name not in merged or describe(merged[name]) == describe(value):
                merged[name] = value
            else:
                merged[f"{origin}.{name}"] = value
    return merged


def _optimizers(trainer: Any) -> dict[str, object]:
    """What optimizers were made with; for a learning rate that no scheduler has brought there, what it is now."""
    params = optimizer_params(trainer.optimizers)
    for optimizer in trainer.optimizers:
        is_changed = any(
            group.get("initial_lr", group.get("lr")) != group.get("lr") for group in optimizer.param_groups
        )
        if is_changed and not any(_has_set(config.scheduler, optimizer) for config in trainer.lr_scheduler_configs):
            params |= learning_rates(trainer.optimizers)
    return params


def _has_set(scheduler: Any, optimizer: Any) -> bool:
    rates = [group["lr"] for group in optimizer.param_groups]  # a scheduler of the user's own may keep none
    return getattr(scheduler, "optimizer", optimizer) is optimizer and getattr(scheduler, "_last_lr", rates) == rates


def _schedulers(trainer: Any) -> dict[str, object]:
    configs = trainer.lr_scheduler_configs
    params = scheduler_params([config.scheduler for config in configs])
    for position, config in enumerate(configs):
        prefix = "scheduler" if len(configs) == 1 else f"scheduler_{position}"
        params |= {f"{prefix}.interval": config.interval, f"{prefix}.frequency": config.frequency}
        if config.reduce_on_plateau:
            params[f"{prefix}.monitor"] = config.monitor
    return params


def _settings_of_trainer(trainer: Any) -> dict[str, object]:
    params: dict[str, object] = {name: getattr(trainer, name) for name in _TRAINER if hasattr(trainer, name)}
    params |= {"strategy": type(trainer.strategy).__name__, "accelerator": type(trainer.accelerator).__name__}
    if seed := os.environ.get("PL_GLOBAL_SEED"):  # where seed_everything leaves it
        params["seed"] = seed
    return params


def _settings_of_callbacks(trainer: Any) -> dict[str, object]:
    params: dict[str, object] = {}
    for class_name, (word, settings) in _CALLBACKS.items():
        found = [callback for callback in trainer.callbacks if is_a(callback, class_name)]
        for position, callback in enumerate(found):
            prefix = word if len(found) == 1 else f"{word}_{position}"
            for name in settings:
                for spelling in (name, f"_{name}"):
                    if hasattr(callback, spelling):
                        params[f"{prefix}.{name}"] = getattr(callback, spelling)
                        break
    return params


def is_a(callback: Any, class_name: str) -> bool:
    """Whether ``callback`` is one of Lightning's, of either tree, or a subclass of it."""
    return any(parent.__name__ == class_name for parent in type(callback).__mro__)
