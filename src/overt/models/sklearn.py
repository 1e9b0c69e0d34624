"""A fitted scikit-learn estimator as model files: pickled here, in milliseconds, and opened by nobody on its way."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from overt.capture.requirements import dumps, requirements
from overt.capture.signature import input_example
from overt.errors import ConfigurationError
from overt.models.enforced import enforced_signature
from overt.models.files import ModelFiles
from overt.optional import is_installed, require

ModelFormat = Literal["cloudpickle", "skops"]
MODEL_FORMATS = ("cloudpickle", "skops")

_ALWAYS_NEEDED = ("cloudpickle", "sklearn")
_EXAMPLE_ROWS = 5


def sklearn_model(
    estimator: Any,
    X: Any = None,
    *,
    model_format: ModelFormat = "cloudpickle",
    params: Mapping[str, str] | None = None,
) -> ModelFiles:
    """Describe a fitted estimator as MLflow's ``sklearn`` flavor; if it predicts, for ``mlflow.pyfunc`` too.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : array, DataFrame or sparse matrix of shape (n_samples, n_features), optional
        Data like that it was fitted on: gives the signature, and the first rows as input example.
    model_format : {"cloudpickle", "skops"}
        ``skops`` writes a file that can be inspected before it is trusted, where skops knows the estimator's types.
    params : mapping, optional
        Shown on the model's page.

    Raises
    ------
    ConfigurationError
        For an unknown format.
    Exception
        Whatever the estimator raises when it is pickled.
    """
    check_model_format(model_format)
    if model_format == "skops":
        content, modules, fields = _dump_skops(estimator)
    else:
        content, modules = dumps(estimator)
        fields = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    needed = requirements({*_ALWAYS_NEEDED, *modules})
    notes = [f"module {name} is no installed package: have it at hand to load the model" for name in needed.unresolved]
    files = {fields["pickled_model"]: content}
    method = next((m for m in ("predict", "transform") if hasattr(estimator, m)), None)
    found_signature, example = None, None
    if X is not None:
        found_signature, example, note = _signature_and_example(estimator, X, method)
        notes += [note] if note else []
        if example is not None:
            files |= {"input_example.json": example.data, "serving_input_example.json": example.serving}
    return ModelFiles(
        flavor="sklearn",
        files=files,
        flavor_fields=fields | {"sklearn_version": sys.modules["sklearn"].__version__, "code": None},
        pyfunc_fields=_pyfunc_fields(fields["pickled_model"]) if method == "predict" else {},
        signature=found_signature,
        example=example.info if example is not None else None,
        requirements=needed.pinned,
        params=dict(params or {}),
        notes=tuple(notes),
    )


def _pyfunc_fields(model_path: str) -> dict[str, str]:
    return {"loader_module": "mlflow.sklearn", "model_path": model_path, "predict_fn": "predict"}


def check_model_format(model_format: str) -> None:
    """Refuse what could not be written later.

    Raises
    ------
    ConfigurationError
        For an unknown format.
    MissingExtra
        Where the library that writes it is not installed.
    """
    if model_format not in MODEL_FORMATS:
        raise ConfigurationError(f"`model_format` must be one of {', '.join(MODEL_FORMATS)} (got {model_format!r}).")
    if not is_installed(model_format):
        require(model_format, extra="sklearn")  # raises, and names the extra


def _dump_skops(estimator: Any) -> tuple[bytes, frozenset[str], dict[str, Any]]:
    skops = require("skops.io", extra="sklearn")
    content: bytes = skops.dumps(estimator)
    untrusted = sorted(skops.get_untrusted_types(data=content))
    fields = {
        "pickled_model": "model.skops",
        "serialization_format": "skops",
        "skops_trusted_types": untrusted,
    }
    return content, frozenset({"skops", *(name.partition(".")[0] for name in untrusted)}), fields


def _signature_and_example(estimator: Any, X: Any, method: str | None) -> tuple[dict[str, Any] | None, Any, str]:
    """Signature and example, and a sentence for what could not be had: an estimator may refuse five rows."""
    predict = getattr(estimator, method) if method else None
    try:
        head = X.iloc[:_EXAMPLE_ROWS] if hasattr(X, "iloc") else X[:_EXAMPLE_ROWS]
        found, reason = enforced_signature(X, predict(head) if predict else None, predict=predict)
    except Exception as error:  # noqa: BLE001 - a user's estimator may raise anything
        return None, None, f"no signature: the model could not be tried on its first rows ({error})"
    example = input_example(head)
    if found is None:
        return None, example, f"no signature{'' if example else ' and no input example'}: {reason}"
    return found, example, "" if example else "no input example: MLflow has no form for such data"
