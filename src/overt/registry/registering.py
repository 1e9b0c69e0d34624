"""A run's model becomes a version of a registered model, once, however often that is asked for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from overt.errors import ConfigurationError
from overt.naming import check_alias, check_model_name, check_name
from overt.query.finding import run_id_of
from overt.records import ModelVersion, RunSummary
from overt.registry.shelf import open_shelf
from overt.run import Run
from overt.stores.protocols import Store

# What MLflow takes (3.17), also in the databases that count: a text that is refused later leaves a version without it.
_TAG = re.compile(r"[/\w.\- :]{1,250}")
_MOST_TAG_VALUE = 100_000
_MOST_DESCRIPTION = 5_000
_RESERVED = ("overt.", "mlflow.")  # records of promotions are tags as well


def register(
    run: Run | RunSummary | str,
    name: str,
    *,
    model: str = "model",
    alias: str | None = None,
    description: str | None = None,
    tags: Mapping[str, object] | None = None,
    store: str | Store | None = None,
) -> ModelVersion:
    """Make a run's model a version of a registered model. What this process recorded has arrived before.

    The same model is registered once: a second call finds its version, and adds what it is given to it.

    Parameters
    ----------
    run : Run, RunSummary or str
        A run, or what ``overt show`` takes: an id or its beginning, a name, ``last``.
    name : str
        Of the registered model, which is made if there is none.
    model : str
        Which of the run's models.
    alias : str, optional
        Moved to this version, without any comparison; :func:`promote` compares, and keeps a record.
    description : str, optional
        Replaces the version's.
    tags : mapping, optional
        Set on the version; its other tags stay.
    store : str or Store, optional
        Instead of the configured one.

    Raises
    ------
    RunNotFound
        When no run answers to ``run``, or more than one.
    ModelNotFound
        When the run has no such model, or its files have not arrived whole.
    ConfigurationError
        When the store has no registry, or an argument is none that MLflow takes: then nothing was made.
    StoreError
        When the store is away, or refuses the name.
    """
    check_name("model", model)
    check_model_name(name)
    if alias is not None:
        check_alias(alias)
    _check_description(description)
    labels = _labels(tags)
    shelf = open_shelf(store)
    registry = shelf.registry
    version = registry.register_model(run_id_of(shelf.runs, run), model, name)
    if description is not None or labels:
        registry.describe_version(version, description=description, tags=labels)
    if alias is not None:
        registry.set_alias(name, alias, version.version)
    return registry.read_version(name, version.version)


def _check_description(description: object) -> None:
    if description is None:
        return
    if not isinstance(description, str):
        raise ConfigurationError(f"`description` must be text (got {description!r}).")
    if len(description) > _MOST_DESCRIPTION or "\0" in description:
        raise ConfigurationError(
            f"`description` must be up to {_MOST_DESCRIPTION:,} characters without NUL (got {len(description):,} "
            "characters): record a longer text with run.log_text."
        )


def _labels(tags: object) -> Mapping[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ConfigurationError(f"`tags` must be a mapping from name to value (got {type(tags).__name__}).")
    for tag in tags:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag) or not _is_normal_path(tag):
            raise ConfigurationError(
                f"a name in `tags` must be up to 250 letters, digits, spaces and _ - . : / (got {tag!r})."
            )
        if tag.startswith(_RESERVED) or not tag.strip():
            raise ConfigurationError(
                f"a name in `tags` must not begin with overt. or mlflow., nor be blank (got {tag!r})."
            )
    labels = {tag: str(value) for tag, value in tags.items()}
    for tag, text in labels.items():
        if len(text) > _MOST_TAG_VALUE or "\0" in text:
            raise ConfigurationError(
                f"a value in `tags` must be up to {_MOST_TAG_VALUE:,} characters without NUL (got {len(text):,} "
                f"characters for {tag!r}): record a longer text with run.log_text."
            )
    return labels


def _is_normal_path(tag: str) -> bool:
    return posixpath.normpath(tag) == tag and tag != "." and not tag.startswith(("..", "/"))
