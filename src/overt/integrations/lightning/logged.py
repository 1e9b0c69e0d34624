"""What a module has logged, read from where Lightning keeps it, so that it works with any logger and with none.

Nothing here computes or reduces: values are taken as Lightning has computed them, still on their device. So overt adds
no collective operation and no wait, and changes no metric by looking at it too early. Each value is given once:
Lightning's own loggers get a value again at each step until there is another, though nothing was logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Value = tuple[str, Any]

BATCH_START, BATCH_END = "on_train_batch_start", "on_train_batch_end"


class StepValues:
    """Finds what has been logged for the current step since it was last asked."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def forget(self, results: Any) -> None:
        """Take all that is there as seen: what comes from here on belongs to the batch that begins now."""
        self._seen = {key: _of_step(item) for key, item in results.items() if _hook(item) != BATCH_START}

    def iter_fresh(self, results: Any, *, hook: str | None = None) -> Iterator[Value]:
        """Yield name and value of what was logged since, in ``hook`` if that is given."""
        for key, item in results.items():
            value = _of_step(item)
            if value is None or value is self._seen.get(key) or hook not in (None, _hook(item)):
                continue
            self._seen[key] = value
            yield _name(item, on_step=True), value.detach()


class TrainEpochValues:
    """Finds what Lightning has computed at the end of a training epoch, once that is behind it."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def iter_fresh(self, trainer: Any) -> Iterator[Value]:
        """Yield name and value of what the last epoch has added."""
        computed = trainer._logger_connector._logged_metrics
        for item in training_results(trainer).values():
            if not (item.meta.on_epoch and item.meta.logger):
                continue
            name = _name(item, on_step=False)
            value = computed.get(name)
            if value is not None and value is not self._seen.get(name):
                self._seen[name] = value
                yield name, value.detach()


def iter_evaluated(trainer: Any) -> Iterator[Value]:
    """Yield what the validation or test that just ended has computed over its data."""
    for item in trainer._results.values():
        if item.meta.on_epoch and item.meta.logger and not item.has_reset and item._computed is not None:
            yield _name(item, on_step=False), item._computed.detach()


def iter_names(results: Any) -> Iterator[str]:
    """Yield the names that have been logged under, for steps and for epochs."""
    for item in results.values():
        yield _name(item, on_step=True)
        yield _name(item, on_step=False)


def training_results(trainer: Any) -> Any:
    """Where Lightning keeps what is logged while training, whatever loop is running inside it."""
    return trainer.fit_loop.epoch_loop._results


def _of_step(item: Any) -> Any:
    if item.has_reset or not (item.meta.on_step and item.meta.logger):
        return None
    value = item._forward_cache
    return value if hasattr(value, "detach") else None


def _hook(item: Any) -> str:
    hook: str = item.meta.fx.partition(".")[0]
    return hook


def _name(item: Any, *, on_step: bool) -> str:
    meta = item.meta
    suffix = (
        f"/dataloader_idx_{meta.dataloader_idx}" if meta.add_dataloader_idx and meta.dataloader_idx is not None else ""
    )
    return f"{meta.forked_name(on_step)}{suffix}"
