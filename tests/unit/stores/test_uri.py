from __future__ import annotations

from pathlib import Path

import pytest

import overt
from overt.errors import ConfigurationError
from overt.stores.csv import CsvStore
from overt.stores.jsonl import JsonlStore
from overt.stores.uri import check_writable, is_mlflow, open_store, public_name, resolve

HERE = Path("/home/me/project")


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("sqlite:///mlflow.db", "sqlite:////home/me/project/mlflow.db"),
        ("sqlite:///../other/mlflow.db", "sqlite:////home/me/other/mlflow.db"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
        ("sqlite:///a.db?timeout=5", "sqlite:////home/me/project/a.db?timeout=5"),
        ("jsonl:./experiments", "jsonl:/home/me/project/experiments"),
        ("jsonl:../other runs", "jsonl:/home/me/other runs"),
        ("jsonl:///abs/runs", "jsonl:/abs/runs"),
        ("JSONL:/abs/runs?#", "jsonl:/abs/runs?#"),
        ("csv:experiments.csv", "csv:/home/me/project/experiments.csv"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("postgresql+psycopg://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
        ("databricks", None),
    ],
)
def test_a_relative_database_becomes_absolute_and_the_rest_stays(given: str, resolved: str | None) -> None:
    if resolved is None:
        pytest.skip("a bare word is no URI here")
    assert resolve(given, directory=HERE) == resolved


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "file:./mlruns", "./mlruns", "/tmp/mlruns", "mlruns"])
def test_mlflows_retired_file_store_raises_with_both_ways_out(uri: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        resolve(uri, directory=HERE)
    assert "sqlite:///mlflow.db" in str(raised.value)
    assert "http://localhost:5000" in str(raised.value)
    assert uri in str(raised.value)


def test_a_table_without_a_scheme_is_told_of_the_one_that_it_lacks() -> None:
    with pytest.raises(ConfigurationError, match=r"store='csv:results/experiments\.csv'"):
        resolve("results/experiments.csv", directory=HERE)


@pytest.mark.parametrize(
    "uri",
    ["sqlite:mlflow.db", "sqlite:/mlflow.db", "sqlite://mlflow.db", "sqlite://", "sqlite:///", "sqlite:///:memory:"],
)
def test_a_database_without_a_file_is_refused(uri: str) -> None:
    """What is in memory would be delivered there, and be gone with the courier."""
    with pytest.raises(ConfigurationError, match=f"database file behind sqlite:///, such as .* \\(got '{uri}'\\)"):
        resolve(uri, directory=HERE)


@pytest.mark.parametrize("uri", ["http://", "http:/localhost:5000", "https:localhost"])
def test_a_server_without_an_address_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a server's address, such as 'http://localhost:5000'"):
        resolve(uri, directory=HERE)


def test_an_unknown_scheme_raises_and_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"http, https, sqlite.*got 'ftp://x'"):
        resolve("ftp://x", directory=HERE)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@host:5000/path", "http://host:5000/path"),
        ("https://host/path?token=secret#secret", "https://host/path"),
        ("postgresql://user:secret@host/db", "postgresql://host/db"),
        ("postgresql://user:sec@ret@host/db", "postgresql://host/db"),
        ("postgresql://user:sec/ret@host/db", "postgresql://host/db"),
        ("postgresql://user:sec#ret@host/db", "postgresql://host/db"),
        ("postgresql://user:sec?ret@host/db?sslmode=require", "postgresql://host/db"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_the_public_name_has_no_credentials(uri: str, shown: str) -> None:
    assert public_name(uri) == shown
    assert "sec" not in public_name(uri)
    assert public_name(public_name(uri)) == shown


def test_what_mlflow_takes_is_told_by_the_scheme() -> None:
    assert all(
        map(is_mlflow, ["http://h", "HTTPS://h", "sqlite:///a.db", "mysql+pymysql://h/db", "databricks://profile"])
    )
    assert not any(map(is_mlflow, ["jsonl:runs", "ftp://h", "memory:"]))


@pytest.mark.parametrize(
    "uri", ["jsonl:", "jsonl://host/runs", "jsonl:runs.jsonl", "csv:experiments", "csv:", "csv:file"]
)
def test_a_light_store_that_names_no_place_of_its_kind_says_what_one_looks_like(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"'(jsonl:experiments|csv:experiments\.csv)'"):
        resolve(uri, directory=tmp_path)


def test_a_file_where_the_folder_of_a_light_store_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "runs.csv").mkdir()
    for uri in ("jsonl:file", "csv:runs.csv"):
        with pytest.raises(ConfigurationError, match="`store` must name"):
            resolve(uri, directory=tmp_path)


@pytest.mark.parametrize("uri", ["jsonl:file/runs", "csv:file/runs.csv"])
def test_a_place_that_cannot_be_written_to_raises_when_a_run_starts(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    resolved = resolve(uri, directory=tmp_path)
    with pytest.raises(ConfigurationError, match=r"can be written to, and .*file is not"):
        check_writable(resolved)
    with pytest.raises(ConfigurationError, match=r"can be written to"):
        overt.start_run("r", tracker=overt.Tracker(store=uri))


def test_the_path_of_a_light_store_is_no_url(tmp_path: Path) -> None:
    uri = resolve("jsonl:a?b#c@d", directory=tmp_path)
    assert public_name(uri) == uri
    store = open_store(uri)
    assert isinstance(store, JsonlStore)
    assert store.folder == tmp_path / "a?b#c@d"
    assert isinstance(open_store(resolve("csv:a.csv", directory=tmp_path)), CsvStore)
