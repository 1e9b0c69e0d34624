"""Wrote ``v1/``: a journal of format 1 with every kind of record, kept so that no later version forgets how to read it.

Run once, when format 1 was new, and its rows once more before the first release. Do not run it again: what it wrote is
the format, whatever the code says today.
"""

from __future__ import annotations

import math
from pathlib import Path

from overt.journal.codec import encode, encode_metric
from overt.journal.folder import run_folder
from overt.journal.writer import JournalWriter
from overt.records import Artifact, Dataset, Figure, Lost, Metric, Model, Param, Row, RunEnd, RunSpec, Seal, Tag

KEY = "0123456789abcdef" * 2
STARTED_MS = 1_764_000_000_000
SPEC = RunSpec(
    key=KEY,
    name="실험 하나",
    experiment="formats",
    started_ms=STARTED_MS,
    store="sqlite:////tmp/mlflow.db",
    parent_key="f" * 32,
    tags={"mlflow.user": "mina", "overt.host": "node-1"},
)


def write(base: Path) -> Path:
    """Write the journal below ``base``; its folder."""
    folder = run_folder(base, KEY)
    main = JournalWriter(folder, SPEC)
    picture = main.store_bytes(b'{"matrix": [[3, 1], [0, 4]], "labels": ["a", "b"], "normalized": false}')
    pickled = main.store_bytes(b"not a pickle, and never opened")
    records = [
        Param("lr", "0.1"),
        Param("긴 값", "x" * 7_000),
        Tag("stage", "train"),
        Metric("loss", 0.5, 0, STARTED_MS + 1),
        Metric("loss", math.nan, 1, STARTED_MS + 2),
        Metric("loss", math.inf, 2, STARTED_MS + 3),
        Metric("loss", -math.inf, 3, STARTED_MS + 4),
        Metric("mAP@0.5", 1e-300, 2**40, STARTED_MS + 5),
        Dataset("train", "abc123", "train", "code", '{"tags": {}}', '{"mlflow_colspec": []}', '{"num_rows": 3}'),
        Artifact("notes/읽기.txt", main.store_bytes("내용".encode())),
        Figure("confusion_matrix.png", "confusion_matrix", picture),
        Model(
            name="model",
            flavor="sklearn",
            files=(Artifact("model.pkl", pickled),),
            flavor_fields={
                "pickled_model": "model.pkl",
                "sklearn_version": "1.9.1",
                "serialization_format": "cloudpickle",
            },
            pyfunc_fields={"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict"},
            signature=None,
            example=None,
            requirements=("scikit-learn==1.9.1", "cloudpickle==3.1.2"),
            python_version="3.11.7",
            created_ms=STARTED_MS + 6,
            model_type="classifier",
            params={"max_depth": "3"},
            register_as=None,
        ),
        Lost(2, "could not be written to the journal"),
        RunEnd("FAILED", STARTED_MS + 60_000),
        Seal(),
    ]
    for record in records:
        main.append(encode(record))
    main.close()
    worker = JournalWriter(folder, SPEC, segment="journal.4711-abcdef.jsonl")
    worker.append(encode_metric("f1_score", 0.75, 0, STARTED_MS + 7, "model", "train#abc123"))
    worker.append(encode(Row("fits.csv", {"단계": "a, b", "seconds": 0.5, "n": 3, "ok": True}, STARTED_MS + 9)))
    worker.append(encode(Row("fits.csv", {"단계": None, "seconds": math.inf, "more": "x"}, STARTED_MS + 8)))
    worker.close()
    return folder


if __name__ == "__main__":
    write(Path(__file__).parent / "v1")
