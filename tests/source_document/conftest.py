from __future__ import annotations

from collections.abc import Iterator

import pytest

import overt


@pytest.fixture(params=["mlflow", "jsonl", "csv"])
def store(request: pytest.FixtureRequest, sqlite_uri: str) -> Iterator[str]:
    """URI of an empty store of each kind, chosen for the whole process."""
    uri: str = {"mlflow": sqlite_uri, "jsonl": "jsonl:experiments", "csv": "csv:experiments.csv"}[request.param]
    overt.configure(store=uri)
    yield uri
    assert overt.wait()
