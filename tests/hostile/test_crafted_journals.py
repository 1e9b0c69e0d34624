"""A journal that a stranger crafted is delivered or refused, and nothing of it is ever run, followed or waited for."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Database, couriers_of, eventually, is_gone, kill, run_python, sync_once

DEADLINE_S = 80.0
CANARY = "canary"
OUTSIDE = "outside"

Line = dict[str, Any]


class Crafted:
    """A run's folder with whatever a stranger wants in it."""

    def __init__(self, base: Path, number: int) -> None:
        self.key = f"{number:032x}"
        self.folder = base / "runs" / self.key
        (self.folder / "files").mkdir(parents=True)
        self.head: Line = {
            "t": "segment",
            "format": 1,
            "owner": {"pid": 2**22 + number, "started": "1", "host": socket.gethostname(), "boot": "another"},
            "run": {
                "key": self.key,
                "name": f"crafted-{number}",
                "experiment": "hostile",
                "started_ms": 1_700_000_000_000,
                "store": "",
                "parent_key": None,
                "joined_run_id": None,
                "tags": {},
            },
        }
        self.lines: list[Line | bytes] = []
        self.segment = "journal.jsonl"

    def blob(self, content: bytes) -> Line:
        """Spool ``content``; the fields that name it."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / "files" / sha256).write_bytes(content)
        return {"sha256": sha256, "size": len(content)}

    def add(self, *lines: Line | bytes) -> None:
        self.lines += lines

    def model(self, **fields: Any) -> Line:
        """A model line whose file, once unpickled, leaves a canary."""
        return {
            "t": "model",
            "name": "model",
            "flavor": "sklearn",
            "files": [{"path": "model.pkl", **self.blob(pickle.dumps(Bomb()))}],
            "flavor_fields": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"},
            "pyfunc_fields": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
            "signature": None,
            "example": None,
            "requirements": [],
            "python_version": "3.11.7",
            "created_ms": 1_700_000_000_000,
            "model_type": "",
            "params": {},
            "register_as": None,
        } | fields

    def write(self) -> None:
        metric = {"t": "metric", "name": "honest", "value": 1.0, "step": 0, "ms": 1_700_000_000_001}
        end = {"t": "end", "status": "FINISHED", "ms": 1_700_000_000_002}
        lines = [self.head, *self.lines, metric, end, {"t": "seal"}]
        encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        with open(self.folder / self.segment, "ab") as file:
            file.write(b"\n".join(encoded) + b"\n")


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {Path.cwd() / CANARY}",)


ATTACKS: dict[str, Callable[[Crafted, Path], None]] = {}


def attack(function: Callable[[Crafted, Path], None]) -> Callable[[Crafted, Path], None]:
    ATTACKS[function.__name__] = function
    return function


def figure(run: Crafted, kind: str, data: bytes, path: str = "figure.png") -> Line:
    return {"t": "figure", "path": path, "kind": kind, **run.blob(data)}


def artifact(run: Crafted, path: str, content: bytes = b"x") -> Line:
    return {"t": "artifact", "path": path, **run.blob(content)}


@attack
def a_malicious_pickle(run: Crafted, outside: Path) -> None:
    run.add(run.model())


@attack
def a_malicious_pickle_to_be_registered(run: Crafted, outside: Path) -> None:
    run.add(run.model(register_as="crafted", params={"p" * 5000: "v" * 5000}, model_type="$(touch canary)"))


@attack
def an_mlmodel_that_names_code(run: Crafted, outside: Path) -> None:
    command = f"!!python/object/apply:os.system ['touch {outside.parent / CANARY}']"
    fields = {
        "loader_module": "os",
        "code": "../../..",
        "evil": command,
        "data": "/etc",
        "model_code_path": "/tmp/x.py",
    }
    run.add(
        run.model(flavor="evil", flavor_fields=fields, pyfunc_fields=fields, requirements=["-r /etc/passwd", "a\nb"])
    )


@attack
def mlmodel_fields_that_clash(run: Crafted, outside: Path) -> None:
    run.add(
        run.model(
            flavor_fields={"name": "x", "self": 1}, pyfunc_fields={"python_version": 3, "env": "/etc", "name": "n"}
        )
    )
    run.add(run.model(name="other", flavor="python_function", python_version="3\nevil: yes"))


@attack
def model_files_in_the_way(run: Crafted, outside: Path) -> None:
    files = [
        {"path": path, **run.blob(b"flavors: {}")}
        for path in ("MLmodel/x", "conda.yaml", "requirements.txt/y", "a", "a/b")
    ]
    run.add(run.model(files=files))
    run.add(
        run.model(
            name="mine", files=[{"path": "MLmodel", **run.blob(b"!!python/object/apply:os.system [touch canary]")}]
        )
    )


@attack
def garbage_signatures(run: Crafted, outside: Path) -> None:
    deep = "[" * 100_000
    for i, signature in enumerate(
        [
            {"inputs": "garbage", "outputs": 7},
            {"inputs": deep, "outputs": deep},
            {"inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "O", "shape": ["x"]}}]'},
            {"inputs": '[{"type": "object", "properties": {"a": {"type": "evil"}}}]', "params": "[[]]"},
            {"type_hint": "__import__('os').system('touch canary')", "inputs": "[]"},
            {"unknown": {"a": [1, 2, {}]}},
        ]
    ):
        run.add(run.model(name=f"model_{i}", signature=signature, example={"artifact_path": "../../x", "type": "evil"}))


@attack
def paths_that_climb(run: Crafted, outside: Path) -> None:
    for path in (
        "../../escaped", f"{outside}/escaped", "a/../../escaped", "..", ".", "", "/", "a//b",
        "a\\..\\b", "C:/x", "a\nb", "a\0b",
        "~/escaped", "%2e%2e/%2e%2e/escaped", "..%2fescaped", "a/" * 600 + "b", "n" * 300, "한" * 200,
    ):  # fmt: skip
        run.add(artifact(run, path))
        run.add(run.model(name=path), run.model(name="m", files=[{"path": path, **run.blob(b"x")}]))
        run.add(figure(run, "confusion_matrix", b"{}", path))


@attack
def files_where_folders_must_be(run: Crafted, outside: Path) -> None:
    run.add(artifact(run, "a", b"file"), artifact(run, "a/b", b"below it"), artifact(run, "a", b"again"))


@attack
def links_in_the_spool(run: Crafted, outside: Path) -> None:
    secret = outside / "secret.txt"
    blob = run.blob(secret.read_bytes())
    (run.folder / "files" / blob["sha256"]).unlink()
    (run.folder / "files" / blob["sha256"]).symlink_to(secret)
    run.add({"t": "artifact", "path": "stolen.txt", **blob})


@attack
def pipes_in_the_spool(run: Crafted, outside: Path) -> None:
    for name, line in (
        ("1" * 64, {"t": "artifact", "path": "p"}),
        ("2" * 64, {"t": "figure", "path": "q", "kind": "x"}),
    ):
        os.mkfifo(run.folder / "files" / name)
        run.add(line | {"sha256": name, "size": 0})


@attack
def bytes_that_are_not_those_recorded(run: Crafted, outside: Path) -> None:
    line = artifact(run, "wrong.txt", b"right")
    (run.folder / "files" / line["sha256"]).write_bytes(b"wrong")
    run.add(line, {"t": "artifact", "path": "absent.txt", "sha256": "3" * 64, "size": 1})
    run.add(artifact(run, "size.txt", b"sized") | {"size": 10**15}, artifact(run, "less.txt", b"less") | {"size": -1})
    run.add({"t": "artifact", "path": "x", "sha256": "../../../../etc/passwd", "size": 1})


@attack
def a_pipe_and_links_beside_the_journal(run: Crafted, outside: Path) -> None:
    os.mkfifo(run.folder / "journal.1-abcdef.jsonl")
    (run.folder / "journal.2-abcdef.jsonl").symlink_to("/dev/zero")
    (run.folder / "journal.3-abcdef.jsonl").symlink_to(outside / "secret.txt")
    (run.folder / "journal.4-abcdef.jsonl").mkdir()


@attack
def a_journal_that_is_a_pipe(run: Crafted, outside: Path) -> None:
    os.mkfifo(run.folder / "journal.jsonl")
    run.segment = "journal.5-abcdef.jsonl"


@attack
def links_where_overt_writes(run: Crafted, outside: Path) -> None:
    (run.folder / "rejected.jsonl").symlink_to(outside / "bashrc")
    (run.folder / "delivered.json").symlink_to(outside / "secret.txt")
    for pid in range(1, 33_000):
        (run.folder / f"delivered.json.{pid}").symlink_to(outside / "profile")
    run.add({"t": "artifact", "path": "$(touch canary)", "sha256": "4" * 64, "size": 1})


@attack
def a_lock_that_is_a_link(run: Crafted, outside: Path) -> None:
    (run.folder / "lock").symlink_to(outside / "created-by-lock")


@attack
def a_lock_that_is_a_pipe(run: Crafted, outside: Path) -> None:
    os.mkfifo(run.folder / "lock")


@attack
def a_pipe_for_progress(run: Crafted, outside: Path) -> None:
    os.mkfifo(run.folder / "delivered.json")


@attack
def progress_that_lies(run: Crafted, outside: Path) -> None:
    progress = {
        "run_id": "../../../x", "offsets": {"journal.jsonl": 7, "../../x": 10**30},
        "models": {"model": "models:/m-evil"},
        "bad_lines": 0, "rejected": 0, "held_params": False, "sealed": True,
        "attempt": 3, "ended_attempt": 10**9, "repeated": 0,
    }  # fmt: skip
    uri = os.environ["OVERT_STORE"].partition("?")[0]
    (run.folder / "delivered.json").write_text(json.dumps({uri: progress, "x": 5, "y": progress | {"offsets": [1]}}))


@attack
def lines_that_are_no_records(run: Crafted, outside: Path) -> None:
    run.add(
        b"", b"garbage", b"\xff\xfe", b"[]", b"7", b'"text"', b"{}", b'{"t": []}', b'{"t": {}}',
        b'{"t": "exec", "code": "1"}',
        b'{"t": "metric", "name": "a", "value": "__import__(1)", "step": 0, "ms": 0}', b'{"t": "seal"', b"{" * 5000,
        b"[" * 3_000_000, b'{"t": "tag", "name": "n", "value": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    )  # fmt: skip
    for value in (1e400, 10**400, True, None, [], {}, "1", "Infinity"):
        run.add({"t": "metric", "name": "odd", "value": value, "step": 0, "ms": 1})
    for step in (2**63, -(2**70), 1.5, "1", None):
        run.add({"t": "metric", "name": "odd", "value": 1.0, "step": step, "ms": 1})
    for ms in (-1, 2**63 - 1, 10**18):
        run.add({"t": "metric", "name": "odd", "value": 1.0, "step": 0, "ms": ms})
    run.add({"t": "end", "status": "RUNNING", "ms": 1}, {"t": "end", "status": "FINISHED", "ms": 10**17})


@attack
def a_line_of_80_megabytes(run: Crafted, outside: Path) -> None:
    run.add(b'{"t": "tag", "name": "n", "value": "' + b"x" * 80_000_000 + b'"}')


@attack
def names_of_a_million_letters(run: Crafted, outside: Path) -> None:
    long = "n" * 1_000_000
    run.add({"t": "param", "name": long, "value": long}, {"t": "tag", "name": long, "value": long})
    run.add({"t": "metric", "name": long, "value": 1.0, "step": 0, "ms": 1})
    run.add({"t": "param", "name": "@" * 100_000 + "/../..", "value": ""}, {"t": "tag", "name": "", "value": ""})


@attack
def datasets_of_nonsense(run: Crafted, outside: Path) -> None:
    for text in ("", "x" * 3_000_000, "\0", "' OR 1=1 --"):
        fields = ("name", "digest", "context", "source_type", "source", "schema", "profile")
        run.add({"t": "dataset"} | dict.fromkeys(fields, text))


@attack
def figures_that_are_bombs(run: Crafted, outside: Path) -> None:
    labels = ["$\\input{/etc/passwd}$", "\\write18{touch canary}", "$" + "\\frac{1}{" * 500 + "}" * 500 + "$"]
    good = {"labels": labels, "matrix": [[1, 2, 3]] * 3, "title": labels[0]}
    for i, (kind, data) in enumerate(
        [
            ("confusion_matrix", json.dumps(good).encode()),
            ("confusion_matrix", json.dumps({"matrix": [[0] * 3000] * 3000, "labels": ["x" * 1000] * 3000}).encode()),
            ("confusion_matrix", b"[" * 500_000),
            ("confusion_matrix", b'{"matrix": [[1e308, -1e308], [NaN, Infinity]], "labels": [1, 2]}'),
            ("confusion_matrix", b'{"matrix": [[' + b"0," * 30_000_000 + b"0]]}"),
            ("roc_curve", json.dumps({"curves": [{"fpr": [0, 1], "tpr": [0, 1], "label": labels[1]}] * 5000}).encode()),
            ("__import__('os').system('touch canary')", b"{}"),
            ("../../x", b"{}"),
            ("canvas", b"{}"),
            ("residuals", b"null"),
            ("residuals", b""),
            (
                "feature_importances",
                json.dumps({"names": labels, "values": [1e300, -1e300, 1], "importances": [1, 2, 3]}).encode(),
            ),
        ]
    ):
        run.add(figure(run, kind, data, f"figures/{i}.png"))


@attack
def a_head_of_nonsense(run: Crafted, outside: Path) -> None:
    run.head["run"] |= {"parent_key": "../..", "name": "' OR 1=1", "experiment": "x" * 5000}


@attack
def a_parent_that_is_elsewhere(run: Crafted, outside: Path) -> None:
    run.head["run"] |= {"parent_key": "f" * 32, "experiment": ""}


@attack
def a_guest_in_a_run_that_is_not_there(run: Crafted, outside: Path) -> None:
    run.head["run"]["joined_run_id"] = "../../x' OR 1=1"


@attack
def tags_that_pretend(run: Crafted, outside: Path) -> None:
    run.head["run"]["tags"] = {
        "mlflow.parentRunId": "../../x",
        "overt.key": "0" * 32,
        "mlflow.runName": "x" * 9000,
        "\0": "\0",
    }


@attack
def an_owner_that_is_not_one(run: Crafted, outside: Path) -> None:
    run.head["owner"] |= {"pid": -1, "started": "x" * 100_000, "host": socket.gethostname() + "\0"}


@attack
def a_folder_that_is_a_link(run: Crafted, outside: Path) -> None:
    (run.folder / "files").rmdir()
    run.folder.rmdir()
    run.folder.symlink_to(outside)
    (outside / "files").mkdir()  # it leads to a run that is not to be touched


def snapshot(folder: Path) -> dict[str, bytes]:
    """All that is below ``folder``."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / OUTSIDE
    folder.mkdir()
    for name in ("secret.txt", "bashrc", "profile"):
        (folder / name).write_text(f"this is {name}\n")
    return folder


@pytest.fixture
def crafted(base: Path, outside: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Crafted]:
    """One run for each attack, between two honest ones."""
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    runs = {}
    for number, (name, craft) in enumerate({"honest first": None, **ATTACKS, "honest last": None}.items()):
        runs[name] = Crafted(base, number)
        if craft is not None:
            craft(runs[name], outside)
        runs[name].write()
    return runs


def nothing_happened(outside: Path, before: dict[str, bytes], tmp_path: Path) -> None:
    assert not list(tmp_path.rglob(CANARY)), "something of a journal was run"
    assert not Path(CANARY).exists()
    assert snapshot(outside) == before, "something was written outside"
    assert not list(tmp_path.rglob("*escaped*")) or all(
        "mlruns" in path.parts for path in tmp_path.rglob("*escaped*")
    ), "a path climbed out of its run"
    refused = {"stolen.txt", "wrong.txt", "absent.txt", "size.txt", "less.txt"}
    for path in tmp_path.glob("mlruns/**/*"):
        assert path.name not in refused, f"{path} is not what was recorded"
        assert b"this is secret.txt" not in (path.read_bytes() if path.is_file() else b""), f"{path} was stolen"


@pytest.mark.timeout(240)
def test_sync_delivers_or_refuses_what_a_stranger_crafted(
    crafted: dict[str, Crafted], base: Path, outside: Path, sqlite_uri: str, tmp_path: Path
) -> None:
    before = snapshot(outside)
    outcomes = {outcome["folder"]: outcome for outcome in sync_once(base, sqlite_uri, deadline_s=DEADLINE_S)}
    nothing_happened(outside, before, tmp_path)
    database = Database(sqlite_uri)
    unclear = {}
    for name, run in crafted.items():
        outcome = outcomes.get(run.folder.name, PASSED_OVER)
        print(name, "->", outcome["delivered"], outcome["problem"][:200])
        if not (outcome["delivered"] or outcome["problem"]):
            unclear[name] = outcome
        if name.startswith("honest"):
            assert outcome["delivered"], outcome
            assert [point.name for point in database.points(run.key)] == ["honest"]
            assert not run.folder.exists()
    assert not unclear, "neither delivered nor refused"

    stuck = {name for name, run in crafted.items() if not outcomes.get(run.folder.name, PASSED_OVER)["delivered"]}
    assert stuck <= REFUSED_AS_A_WHOLE, {
        name: outcomes.get(crafted[name].folder.name) for name in stuck - REFUSED_AS_A_WHOLE
    }
    for name in crafted.keys() - stuck - NOT_ITS_OWN_METRIC:
        assert "honest" in {point.name for point in database.points(crafted[name].key)}, (
            f"{name}: the rest of it is lost"
        )


PASSED_OVER = {"delivered": False, "problem": "a link is no run's folder"}
REFUSED_AS_A_WHOLE = {
    "a_head_of_nonsense",
    "a_parent_that_is_elsewhere",
    "a_guest_in_a_run_that_is_not_there",
    "a_folder_that_is_a_link",
    "a_lock_that_is_a_link",
    "a_pipe_and_links_beside_the_journal",
}
NOT_ITS_OWN_METRIC = {"progress_that_lies"}


@pytest.mark.timeout(240)
def test_a_courier_survives_what_a_stranger_crafted(
    crafted: dict[str, Crafted], base: Path, outside: Path, sqlite_uri: str, tmp_path: Path
) -> None:
    before = snapshot(outside)
    told = [run.key for name, run in crafted.items() if name != "a_folder_that_is_a_link"]  # by who made the folders
    ended = run_python(
        """
        import sys, time
        from pathlib import Path
        import overt
        from overt.delivery.dispatch import Route, dispatch
        base, uri, *keys = sys.argv[1:]
        with overt.start_run("honest") as run:
            for key in keys:
                dispatch().watch(Route(Path(base, "runs", key), uri, "process", False, 60.0))
            run.log_metric("mine", 1.0)
        deadline = time.monotonic() + 60
        while dispatch().deliveries.undelivered([run.key, keys[0], keys[-1]]) and time.monotonic() < deadline:
            dispatch().deliveries.wait(0.1)
        print(run.key, dispatch().courier_pid is not None)
        overt.configure(drain_timeout_s=0)
        """,
        base,
        sqlite_uri,
        *told,
        deadline_s=DEADLINE_S + 60,
        env={"OVERT_WAIT": "0"},
    )
    assert ended.code == 0, ended.err
    assert "no courier process can be kept running" not in ended.err
    key = ended.out.split()[0]
    database = Database(sqlite_uri)
    for honest, name in (
        (key, "mine"),
        (crafted["honest first"].key, "honest"),
        (crafted["honest last"].key, "honest"),
    ):
        eventually(lambda honest=honest: database.points(honest), f"run {honest}")  # type: ignore[misc]
        assert [point.name for point in database.points(honest)] == [name]
    for courier in couriers_of(base):  # it has tried each of them by now; so that nothing changes while we look
        kill(courier)
        eventually(lambda courier=courier: is_gone(courier), "the courier's end")  # type: ignore[misc]
    nothing_happened(outside, before, tmp_path)
