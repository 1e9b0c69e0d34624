"""Which function turns a model into files is told from the model: who records by hand has a model, and no kind of it.

No framework is imported: a model brings its own along.
"""

from __future__ import annotations

import sys
from typing import Any

from overt.errors import RecordError
from overt.models.files import ModelFiles
from overt.models.sklearn import sklearn_model
from overt.models.torch import torch_model


def to_files(model: Any) -> ModelFiles:
    """``model`` as files: as it is where it is that already, else a torch module's or a scikit-learn estimator's.

    Raises
    ------
    RecordError
        When it is none of these, or cannot be pickled.
    """
    if isinstance(model, ModelFiles):
        return model
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(model, torch.jit.ScriptModule):
            raise TypeError("torch.jit has compiled it: say torch.jit.save(model, path) and run.log_artifact(path)")
        if torch is not None and isinstance(model, torch.nn.Module):
            return torch_model(model)
        if hasattr(model, "fit") and hasattr(model, "get_params") and not isinstance(model, type):
            return sklearn_model(model)
    except Exception as error:
        raise RecordError(f"log_model: the {type(model).__name__} cannot be saved: {error}") from error
    raise RecordError(
        "log_model: expected a fitted scikit-learn estimator, a torch module or ModelFiles (got "
        f"{type(model).__name__}). For any other: save it to a file, and record that with log_artifact"
    )
