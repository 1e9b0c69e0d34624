"""How long MLflow's client tries before a store counts as away, and how quiet it is: once, for courier and commands.

Importing this imports no MLflow, so that a training process can hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping

CLIENT_ENVIRONMENT: Mapping[str, str] = {
    # MLflow's own retries add up to minutes in which nothing else is delivered; delivery has its own
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # there, messages or JSON stand alone
}
"""Defaults: what the user has set wins."""
