"""Runs in memory for every test here that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overt.stores.memory import MemoryRun
from overt.testing import captured_runs


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as captured:
        yield captured
