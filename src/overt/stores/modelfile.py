"""What stands beside a model's files in a light store, so that MLflow loads the folder where it is installed.

The ``MLmodel`` file is YAML to MLflow; it is written as JSON, which YAML includes, and needs neither library. Both
files follow from the recorded model alone, so their digests are as good as those that were recorded.
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from overt.records import Model


def files_beside(model: Model, *, run_id: str) -> dict[str, bytes]:
    """Content by name."""
    return {
        "MLmodel": orjson.dumps(_described(model, run_id), option=orjson.OPT_INDENT_2),
        "requirements.txt": "\n".join(model.requirements).encode(),
    }


def flavors_of(model: Model) -> dict[str, dict[str, object]]:
    """The ways to load a model, with what each of them needs to know."""
    flavors: dict[str, dict[str, object]] = {model.flavor: dict(model.flavor_fields)}
    if model.pyfunc_fields:
        flavors["python_function"] = {**model.pyfunc_fields, "python_version": model.python_version}
    return flavors


def _described(model: Model, run_id: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "artifact_path": model.name,
        "flavors": flavors_of(model),
        "model_size_bytes": sum(file.blob.size for file in model.files),
        "run_id": run_id,
        "utc_time_created": datetime.fromtimestamp(model.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    if model.signature:
        fields["signature"] = dict(model.signature)
    if model.example:
        fields["saved_input_example_info"] = dict(model.example)
    return fields
