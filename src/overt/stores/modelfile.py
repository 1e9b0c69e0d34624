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


def _described(model: Model, run_id: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "artifact_path": model.name,
        "flavors": {
            "python_function": {**model.pyfunc_fields, "python_version": model.python_version},
            model.flavor: dict(model.flavor_fields),
        },
        "model_size_bytes": sum(file.blob.size for file in model.files),
        "run_id": run_id,
        "utc_time_created": datetime.fromtimestamp(model.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    if model.signature:
        fields["signature"] = dict(model.signature)
    if model.example:
        fields["saved_input_example_info"] = dict(model.example)
    return fields
