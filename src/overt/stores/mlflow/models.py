"""A recorded model becomes an MLflow model folder and a logged model, without its files ever being opened.

The MLmodel file is written with MLflow's own ``Model``; the model's bytes are carried, never unpickled, so neither the
user's classes nor the framework need to be installed where this runs.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature

from overt.errors import ModelRefused, StoreRejected
from overt.records import Model

FILES_TAG = "overt.files_sha256"
DIGESTS_TAG = "overt.sha256."
_DIGESTS_CHARACTERS = 4000  # of a tag's value; MLflow's database column takes 5,000

_UNDESCRIBABLE = (
    MlflowException, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError, yaml.YAMLError,
    FileExistsError, IsADirectoryError, NotADirectoryError,
)  # fmt: skip
"""What MLflow raises for fields and files that fit no MLmodel: this model's fault, whatever the store does."""


def log_model(client: MlflowClient, *, experiment_id: str, run_id: str, model: Model, folder: Path) -> LoggedModel:
    """Create, fill and finalize the logged model, or find the one that an earlier delivery made."""
    digest = _digest(model)
    logged = find_model(client, experiment_id=experiment_id, run_id=run_id, name=model.name, digest=digest)
    if logged is None:
        logged = client.create_logged_model(
            experiment_id,
            name=model.name,
            source_run_id=run_id,
            tags={FILES_TAG: digest},
            params={name: value[:250] for name, value in model.params.items()},
            model_type=model.model_type or None,
        )
    if logged.status != LoggedModelStatus.READY:
        try:
            write_model_folder(model, folder, run_id=run_id, model_id=logged.model_id)
        except _UNDESCRIBABLE as error:
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
            raise StoreRejected(f"it fits no MLmodel file: {type(error).__name__}: {error}") from error
        client.set_logged_model_tags(logged.model_id, _digest_tags(folder))
        client.log_model_artifacts(logged.model_id, str(folder))
        _log_output(client, run_id, logged.model_id)
        logged = client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if model.register_as:
        register_version(client, model.register_as, logged, run_id)
    return logged


def find_model(
    client: MlflowClient,
    *,
    experiment_id: str,
    run_id: str,
    name: str,
    digest: str | None = None,
    only_ready: bool = False,
) -> LoggedModel | None:
    """The newest logged model of the run with this name, and with these files if ``digest`` is given."""
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    for logged in found:
        is_fit = logged.status == LoggedModelStatus.READY or not only_ready
        if logged.name == name and digest in (None, logged.tags.get(FILES_TAG)) and is_fit:
            return logged
    return None


def recorded_digests(logged: LoggedModel) -> dict[str, str] | None:
    """SHA-256 of each file of a logged model, as its delivery noted them in tags; None if it did not.

    Raises
    ------
    ModelRefused
        When a tag holds something else: then nobody can say what was recorded.
    """
    parts = [(tag, text) for tag, text in logged.tags.items() if tag.startswith(DIGESTS_TAG)]
    return {path: digest for part in parts for path, digest in _noted(*part).items()} or None


def _noted(tag: str, text: str) -> dict[str, str]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not all(isinstance(digest, str) for digest in said.values()):
        raise ModelRefused(
            f"the model's tag {tag!r} must hold a JSON object from path to SHA-256 (got {text[:40]!r}), so nobody can "
            "say which files were recorded: record and register the model anew"
        )
    return said


def write_model_folder(model: Model, folder: Path, *, run_id: str, model_id: str) -> None:
    """Put the MLmodel and environment files beside the model's own, as ``mlflow.<flavor>.save_model`` does."""
    requirements = (f"mlflow=={mlflow.__version__}", *model.requirements)
    (folder / "requirements.txt").write_text("\n".join(requirements), "utf-8")
    _write_yaml(
        folder / "python_env.yaml",
        {"python": model.python_version, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
    )
    _write_yaml(
        folder / "conda.yaml",
        {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={model.python_version}", "pip", {"pip": list(requirements)}],
        },
    )
    described = MlflowModel(
        run_id=run_id,
        model_id=model_id,
        artifact_path=model.name,
        model_uuid=model_id.removeprefix("m-"),
        utc_time_created=datetime.fromtimestamp(model.created_ms / 1000, UTC).replace(tzinfo=None),
        signature=ModelSignature.from_dict(dict(model.signature)) if model.signature else None,
        saved_input_example_info=dict(model.example) if model.example else None,
        model_size_bytes=sum(file.blob.size for file in model.files),
    )
    if model.pyfunc_fields:
        described.add_flavor(
            "python_function",
            **model.pyfunc_fields,
            python_version=model.python_version,
            env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        )
    described.add_flavor(model.flavor, **model.flavor_fields)
    described.save(str(folder / "MLmodel"))


def _log_output(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Show the model as the run's output; a repeated call raises in MLflow, so it is looked for first."""
    outputs = client.get_run(run_id).outputs
    if not any(output.model_id == model_id for output in (outputs.model_outputs if outputs else ())):
        client.log_outputs(run_id, [LoggedModelOutput(model_id=model_id, step=0)])


def register_version(client: MlflowClient, name: str, logged: LoggedModel, run_id: str) -> ModelVersion:
    """Make the logged model a version of the registered model ``name``, or find the one that it is.

    The source is the place of its files: MLflow's database stores look up ``models:/…`` in whatever tracking server the
    process has set globally, which need not be this one.
    """
    source = logged.artifact_location
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = {quoted(name)} and run_id = '{run_id}'")
    for version in versions:  # one that mlflow.register_model made has the model's URI for a source
        if logged.model_id == version.model_id or version.source in (source, logged.model_uri):
            return version
    return client.create_model_version(name, source, run_id=run_id, model_id=logged.model_id)


def quoted(name: str) -> str:
    """A registered model's name for a filter: MLflow knows no escape for a quote (3.17), but two kinds of quotes."""
    quote = '"' if "'" in name else "'"
    return f"{quote}{name}{quote}"


def _digest_tags(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is about to be uploaded, as JSON in as many tags as it takes.

    They are kept apart from the files, so that whoever changes those does not change what they are compared with.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    parts: list[dict[str, str]] = [{}]
    for path in paths:
        with (folder / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if len(json.dumps({**parts[-1], path: digest})) > _DIGESTS_CHARACTERS:
            parts.append({})
        parts[-1][path] = digest
    return {f"{DIGESTS_TAG}{index}": json.dumps(part) for index, part in enumerate(parts)}


def _digest(model: Model) -> str:
    """What makes a model this model: its files."""
    files = sorted((file.path, file.blob.sha256) for file in model.files)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _write_yaml(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
