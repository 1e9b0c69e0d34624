"""The machine described as JSON, on a good day and when nothing answers."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from overt.capture import environment as room
from overt.capture.environment import environment, host, packages, user


def test_the_environment_is_json_and_names_this_python() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cwd"] == os.getcwd()
    assert found["memory_bytes"] > 1 << 20


def test_only_listed_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("PYTHONPATH", "src:https://mina:hunter2@host/x")
    found = environment()
    assert found["variables"]["SLURM_JOB_ID"] == "42"
    assert found["variables"]["PYTHONPATH"] == "src:https://mina:[redacted]@host/x"
    assert "hunter2" not in json.dumps(found)


def test_a_machine_that_answers_nothing_is_still_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no")

    for name in ("open", "os.sysconf", "os.sched_getaffinity", "os.getuid", "os.getcwd"):
        monkeypatch.setattr(f"builtins.{name}" if name == "open" else name, refuse)
    for name in ("getpass.getuser", "socket.gethostname", "platform.node", "platform.platform"):
        monkeypatch.setattr(name, refuse)
    assert (user(), host()) == ("unknown", "unknown")
    assert environment()["cwd"] is None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'Card A, 81559 MiB, 550.1'; echo 'Card B, 1 MiB, 550.1'", ["Card A", "Card B"]),
        ("exit 9", []),
        ("sleep 30", []),
        ("echo nonsense", []),
    ],
)
def test_gpus_are_what_nvidia_smi_says(
    script: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(room, "_GPU_TIMEOUT_S", 0.5)
    assert [gpu["name"] for gpu in environment()["gpus"]] == expected


def test_packages_are_those_that_importlib_finds() -> None:
    expected = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        expected.setdefault(name, distribution.version)
    assert packages() == dict(sorted(expected.items()))


def test_of_two_versions_the_one_that_is_imported_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("first", "2.0+cpu"), ("second", "1.0")):
        (tmp_path / folder / f"Some_Thing-{version}.dist-info").mkdir(parents=True)
    egg = tmp_path / "second" / "egg.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: egg\nVersion: 3.0\n")
    absent, archive = tmp_path / "absent", tmp_path / "x.zip"
    archive.write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(p) for p in (absent, archive, tmp_path / "first", tmp_path / "second")])
    assert packages() == {"egg": "3.0", "some-thing": "2.0+cpu"}
