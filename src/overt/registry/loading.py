"""A model is loaded only after each of its files was checked by what was recorded, and runs code only if allowed."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from overt.errors import ConfigurationError, ModelNotFound, RunNotFound
from overt.models.loading import check_files, check_needs_no_pickle, describe, load_skops
from overt.query.finding import find_run, open_configured, run_id_of
from overt.records import FetchedModel, RunSummary
from overt.registry.shelf import registry_of
from overt.run import Run
from overt.say import warn
from overt.stores.protocols import ModelSource, QueryStore, Store

_MODEL = "model"
_NUMBERED = re.compile(r"([^/:]+)/(\d+|latest)")
_ALIASED = re.compile(r"([^/:]+)@([^/:@]+)")


def load_model(
    model: Run | RunSummary | str,
    *,
    allow_pickle: bool = False,
    trusted_types: Sequence[str | type] = (),
    store: str | Store | None = None,
) -> Any:
    """Fetch a model, check each file against the SHA-256 that was recorded with it, and load it.

    Parameters
    ----------
    model : str, Run or RunSummary
        ``"name@alias"``, ``"name/3"``, ``"name/latest"``, a ``models:/`` or ``runs:/`` URI; or a run, whose
        model ``"model"`` it is. A run that is called like a version is found where there is no such version.
    allow_pickle : bool
        Load what runs code when it is loaded: pickles, torch modules, with MLflow any other flavor. Without
        it only models recorded with ``model_format="skops"`` are loaded, and nothing in them is run.
    trusted_types : sequence of str or type
        Types that a skops file may name besides scikit-learn's own; that the file brings a list along counts nothing.
    store : str or Store, optional
        Instead of the configured one.

    Raises
    ------
    ModelRefused
        When a file is changed, missing or added; when it takes ``allow_pickle`` or ``trusted_types``.
    ModelNotFound, RunNotFound
        When nothing answers to ``model``.
    ConfigurationError
        When the store gives no models back.
    StoreUnavailable
        When the store is away.

    Warns
    -----
    OvertWarning
        When no SHA-256 was recorded: nobody can say whether the files are those that were trained.
    """
    if isinstance(trusted_types, str | type):
        raise ConfigurationError(f"`trusted_types` must be a sequence of types or their names (got {trusted_types!r}).")
    reading = open_configured(store)
    uri = _model_uri(reading, model)
    if uri.startswith("models:/"):
        registry_of(reading)
    if not isinstance(reading, ModelSource):
        raise ConfigurationError(f"`store` must be one that gives models back ({type(reading).__name__} does not).")
    place = Path(tempfile.mkdtemp(prefix="overt-model-"))  # of mode 0700: nobody else changes what was checked
    is_kept = False
    try:
        fetched = reading.fetch_model(uri, place)
        check_files(fetched.folder, fetched.digests)
        _warn_if_unrecorded(fetched)
        described = describe(fetched.folder)
        if described.skops_file is not None:
            is_recorded = fetched.digests is not None
            return load_skops(described.skops_file, is_recorded=is_recorded, trusted_types=trusted_types)
        if not allow_pickle:
            check_needs_no_pickle(described, uri)
        is_kept = True  # a model of any flavor may read its files later on
        return reading.load_code(fetched, described.flavor)
    finally:
        if is_kept:
            atexit.register(shutil.rmtree, place, ignore_errors=True)
        else:
            shutil.rmtree(place, ignore_errors=True)


def _model_uri(reading: QueryStore, model: Run | RunSummary | str) -> str:
    if isinstance(model, str):
        if model.startswith(("models:/", "runs:/")):
            return model
        if named := _NUMBERED.fullmatch(model) or _ALIASED.fullmatch(model):
            return _version_uri(reading, model, *named.groups())
    return f"runs:/{run_id_of(reading, model)}/{_MODEL}"


def _version_uri(reading: QueryStore, given: str, name: str, which: str) -> str:
    """The version that ``given`` means; where there is none, the model of the run that is called so."""
    try:
        registry_of(reading).read_version(name, which)
        return f"models:/{given}"
    except (ModelNotFound, ConfigurationError):
        with suppress(RunNotFound):
            return f"runs:/{find_run(reading, given)}/{_MODEL}"
        raise


def _warn_if_unrecorded(fetched: FetchedModel) -> None:
    if fetched.digests is None:
        warn(
            f"no SHA-256 was recorded with {fetched.uri}, so nobody can say whether its files are those that were "
            "trained: it was recorded by another tool, or by an older overt. Record it anew to have them checked"
        )
