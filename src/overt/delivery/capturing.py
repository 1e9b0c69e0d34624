"""What surrounded a run when it started (code, environment, packages), as records in a segment of whoever looked.

Looking costs up to a tenth of a second, so the courier does it beside the training; where there is none, the training
process does it itself. What differs between the two (folder, variables) is what the training process says of itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from overt.capture.environment import environment, packages
from overt.capture.secrets import redact
from overt.capture.source import Source, source
from overt.journal.codec import encode
from overt.journal.folder import new_segment_name
from overt.journal.reader import newest_head
from overt.journal.writer import JournalWriter, Writer
from overt.records import Artifact, Record, Tag

SOURCE_SECONDS = 10
"""How long a look at the git repository is good for: a search starts many runs, an edit takes longer than this."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How the training process was started."""

    cwd: str
    argv: tuple[str, ...]
    script: str
    variables: Mapping[str, str] = field(compare=False)  # the code is the same under any

    @classmethod
    def from_message(cls, fields: Mapping[str, Any]) -> Launch:
        """As :func:`overt.process.launch` tells it, in a message or not."""
        return cls(**{**fields, "argv": tuple(fields["argv"])})


def capture_beside(folder: Path, launch: Launch) -> None:
    """Write what surrounds this moment into a segment of our own, beside those of the run in ``folder``."""
    head = newest_head(folder)
    if head is not None:
        writer = JournalWriter(folder, head.spec, segment=new_segment_name(), attempt=head.attempt)
        capture_into(writer, launch, attempt=head.attempt.number)
        writer.close()


def capture_into(writer: Writer, launch: Launch, *, attempt: int = 1) -> None:
    """Write what surrounds this moment through ``writer``; of a later attempt beside what surrounded the first."""
    tag_prefix, folder = ("", "overt") if attempt == 1 else (f"overt.attempt_{attempt}.", f"overt/attempt-{attempt}")
    found = _source(launch, int(time.monotonic()) // SOURCE_SECONDS)
    records: list[Record] = [Tag(tag_prefix + name, value) for name, value in _source_tags(found).items()]
    files = {
        "environment.json": json.dumps(_environment(launch), indent=2, ensure_ascii=False, default=str).encode(),
        "packages.json": _packages(),
    }
    if found.diff:
        files["uncommitted.diff"] = found.diff
    records += [Artifact(f"{folder}/{name}", writer.store_bytes(content)) for name, content in files.items()]
    for record in records:
        writer.append(encode(record))


def _environment(launch: Launch) -> dict[str, Any]:
    return environment() | {"cwd": redact(launch.cwd), "variables": dict(launch.variables)}


def _source_tags(found: Source) -> dict[str, str]:
    tags = {
        "mlflow.source.git.commit": found.commit,
        "mlflow.source.git.branch": found.branch,
        "mlflow.source.git.repoURL": found.remote,
        "overt.git.commit": found.commit,
        "overt.git.branch": found.branch,
        "overt.git.folder": found.folder,
        "overt.git.file": found.file,
        "overt.git.dirty": None if found.dirty is None else str(found.dirty).lower(),
        "overt.argv": json.dumps(list(found.argv), ensure_ascii=False),
    }
    return {name: value for name, value in tags.items() if value}


@lru_cache(maxsize=4)
def _source(launch: Launch, period: int) -> Source:
    return source(Path(launch.cwd), launch.argv, launch.script)


@lru_cache(maxsize=1)
def _packages() -> bytes:
    return json.dumps(packages(), indent=2, sort_keys=True).encode()
