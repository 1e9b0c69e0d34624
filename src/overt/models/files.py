"""A fitted model as bytes and the words that a store needs around them: made in milliseconds, opened by nobody."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What ``run.log_model`` records.

    Attributes
    ----------
    flavor : str
        MLflow flavor that loads it, such as ``"sklearn"``.
    files : mapping
        Path within the model's folder, to content.
    flavor_fields, pyfunc_fields : mapping
        Fields of the flavor and of ``python_function`` in the MLmodel file. ``loader_module`` belongs to the latter,
        which a model that does not predict has no fields of.
    signature : mapping or None
        In MLflow's form, see :func:`overt.capture.signature.signature`.
    example : mapping or None
        ``saved_input_example_info`` of the MLmodel file, the example itself being among ``files``.
    requirements : tuple of str
        Lines such as ``scikit-learn==1.9.1``.
    notes : tuple of str
        One sentence for each thing that could not be had, such as a signature.
    """

    flavor: str
    files: Mapping[str, bytes]
    flavor_fields: Mapping[str, Any]
    pyfunc_fields: Mapping[str, Any]
    signature: Mapping[str, Any] | None = None
    example: Mapping[str, Any] | None = None
    requirements: tuple[str, ...] = ()
    python_version: str = field(default_factory=platform.python_version)
    model_type: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
