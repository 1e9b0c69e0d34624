from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = Path(__file__).with_name("api.py")

pytest.importorskip("mypy")


def check(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml"]
    return subprocess.run(
        [*command, "--cache-dir", str(ROOT / ".mypy_cache"), *map(str, paths)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.timeout(180)
def test_the_public_api_has_the_types_that_users_rely_on(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(API.read_text().replace("assert_type(overt.wait(), bool)", "assert_type(overt.wait(), str)"))
    checked = check(API, wrong)
    ours = [line for line in checked.stdout.splitlines() if line.startswith("tests/typing/api.py")]
    assert ours == [], checked.stdout
    assert "note" not in checked.stderr
    assert "wrong.py" in checked.stdout  # what reads the file above does see mistakes
