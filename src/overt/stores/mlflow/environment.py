"""How long MLflow's client tries before a store counts as away, and how quiet it is: once, for courier and commands.

Importing this imports no MLflow, so that a training process can hand it on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

CLIENT_ENVIRONMENT: Mapping[str, str] = {
    # MLflow's own retries add up to minutes in which nothing else is delivered; delivery has its own
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # there, messages or JSON stand alone
}
"""Defaults: what the user has set wins."""
BRIEF = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
QUIET = ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",)


@contextmanager
def client_is(*names: str) -> Iterator[None]:
    """Have MLflow's client, which asks the environment at each call, heed some of the defaults during the block."""
    unset = [name for name in names if name not in os.environ]
    os.environ.update({name: CLIENT_ENVIRONMENT[name] for name in unset})
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
