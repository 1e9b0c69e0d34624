"""The house as CONTRIBUTING draws it is the house that import-linter holds us to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_floors_are_drawn_as_they_are_enforced() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    floor_of = {room: number for number, floor in enumerate(layers) for room in re.findall(r"\w+", floor)}
    drawing = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("```\ncli ")[2].partition("```")[0]
    # what a floor is for is explained from column 29 on, behind its rooms or in a line of its own
    rooms = [line[:29] if line[27:29].isspace() else line for line in f"cli {drawing}".splitlines()]
    drawn = [room for line in rooms for room in line.split()]
    assert sorted(drawn) == sorted(floor_of.keys() - {"__main__"})
    assert drawn == sorted(drawn, key=floor_of.__getitem__), "from the roof down"
