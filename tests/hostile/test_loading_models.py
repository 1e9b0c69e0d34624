"""A model that was tampered with, or made to harm, is refused before anything of it runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import yaml
from mlflow import MlflowClient
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MultiLabelBinarizer, OneHotEncoder
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import overt
from overt.errors import ModelRefused, StoreError
from overt.models.loading import check_files, describe, load_skops
from overt.stores.mlflow.models import DIGESTS_TAG

skops = pytest.importorskip("skops.io")
X, y = load_iris(return_X_y=True)
CANARY = "canary"
EVIL = f"open({CANARY!r}, 'w').close()\ndef _load_pyfunc(path): return None\n"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


@pytest.fixture
def run(sqlite_uri: str, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> overt.Run:
    """A run with a tree that was recorded as skops."""
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    overt.configure(store=sqlite_uri, delivery="inline")
    model = overt.TrackedEstimator(DecisionTreeClassifier(), model_format="skops").fit(X, y)
    overt.wait()
    recorded: overt.Run = model.run_
    return recorded


@pytest.fixture
def folder(run: overt.Run, sqlite_uri: str) -> Path:
    """Where the model's files lie, and whoever may write there may change them."""
    logged = MlflowClient(sqlite_uri).get_logged_model(run.model_uri.removeprefix("models:/"))
    return Path(logged.artifact_location)


def _flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.skops").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.skops").write_bytes(content)


def _trust_everything(folder: Path) -> None:
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["sklearn"]["skops_trusted_types"] = ["posix.system", "os.system"]
    (folder / "MLmodel").write_text(yaml.safe_dump(described))


def _make_it_python(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text(EVIL)
    flavor = {"loader_module": "evil", "code": "code", "env": None}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavor}}))


def _make_it_a_pickle(folder: Path) -> None:
    (folder / "model.skops").write_bytes(pickle.dumps(Bomb()))


def _take_away(folder: Path) -> None:
    (folder / "requirements.txt").unlink()


def _add_code(folder: Path) -> None:
    (folder / "evil.py").write_text(EVIL)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_flip_a_byte, r"changed since the model was recorded \('model.skops'\)"),
        (_make_it_a_pickle, r"changed since .*\('model.skops'\)"),
        (_trust_everything, r"changed since .*\('MLmodel'\)"),
        (_make_it_python, r"changed since .*\('MLmodel'\)"),
        (_take_away, r"missing now \('requirements.txt'\)"),
        (_add_code, r"were not recorded with it \('evil.py'\)"),
    ],
)
def test_what_was_changed_is_not_opened_whatever_the_user_allows(
    run: overt.Run, folder: Path, tamper: Callable[[Path], None], said: str
) -> None:
    tamper(folder)
    with pytest.raises(ModelRefused, match=said):
        overt.load_model(run, allow_pickle=True, trusted_types=("posix.system",))
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "MLmodel", "..", "nowhere"])
def test_a_link_among_the_files_is_not_followed(run: overt.Run, folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises((ModelRefused, StoreError)):  # MLflow's own client refuses what leads outside, or nowhere
        overt.load_model(run)


@pytest.mark.filterwarnings("ignore:no SHA-256 was recorded")
@pytest.mark.parametrize("tamper", [_make_it_a_pickle, _make_it_python])
def test_without_digests_nothing_is_run_either(
    run: overt.Run, folder: Path, sqlite_uri: str, tamper: Callable[[Path], None]
) -> None:
    client, model_id = MlflowClient(sqlite_uri), run.model_uri.removeprefix("models:/")
    for tag in client.get_logged_model(model_id).tags:
        if tag.startswith(DIGESTS_TAG):
            client.delete_logged_model_tag(model_id, tag)
    tamper(folder)
    with pytest.raises(ModelRefused):
        overt.load_model(run)
    assert not Path(CANARY).exists()


def test_only_plain_files_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    with pytest.raises(ModelRefused, match="link"):
        check_files(tmp_path / "model", None)


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump({"flavors": {"sklearn": {"serialization_format": "skops", "pickled_model": "../../x.skops"}}}),
        yaml.safe_dump({"flavors": {"sklearn": {"serialization_format": "skops", "pickled_model": "/etc/hostname"}}}),
        yaml.safe_dump({"flavors": {"sklearn": {"serialization_format": "skops"}}}),
        yaml.safe_dump({"flavors": ["sklearn"]}),
        yaml.safe_dump({"flavors": {"sklearn": 3}}),
        "!!python/object/apply:os.system ['touch canary']",
        "[",
        "",
        "[" * 2_000,
        "{" * 100_000,
        *(
            yaml.safe_dump({"flavors": {"sklearn": {"serialization_format": kind, "pickled_model": name}}})
            for kind in ("skops", "cloudpickle")
            for name in ("nofile", ".", "a\0b")
        ),
    ],
)
def test_a_description_that_leads_elsewhere_or_nowhere_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelRefused, match="MLmodel"):
        describe(tmp_path)
    assert not Path(CANARY).exists()


# -- skops files -------------------------------------------------------------------------------------------------------


def node(loader: str, name: str, **fields: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind} | fields


def text(value: Any) -> dict[str, Any]:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def sequence(loader: str, name: str, *content: Any) -> dict[str, Any]:
    return node(loader, name, content=list(content))


def estimator(**attributes: Any) -> dict[str, Any]:
    """A trusted estimator with hostile attributes."""
    names = [node("TypeNode", "builtins.str") for _ in attributes]
    state = node(
        "DictNode", "builtins.dict", content=attributes, key_types=sequence("ListNode", "builtins.list", *names)
    )
    return node("ObjectNode", "sklearn.linear_model._logistic.LogisticRegression", content=state)


TOUCH = text(f"touch {CANARY}")
ARGUMENTS = sequence("TupleNode", "builtins.tuple", TOUCH)
NUMBERED = node(
    "DictNode",
    "builtins.dict",
    content={"bit_generator": text("seed")},
    key_types=sequence("ListNode", "builtins.list", node("TypeNode", "builtins.str")),
)
HOSTILE = {
    "a function": (estimator(a=node("FunctionNode", "posix.system")), "posix.system"),
    "a function as a type": (estimator(a=node("TypeNode", "os.system")), "os.system"),
    "a function as an object": (estimator(a=node("ObjectNode", "builtins.eval")), "builtins.eval"),
    "a function of ours": (estimator(a=node("FunctionNode", "sklearn.datasets._base.load_files")), "load_files"),
    "a function by way of numpy": (estimator(a=node("FunctionNode", "numpy.load")), "numpy.load"),
    "a call": (node("ConstructorFromReduceNode", "posix.system", content=ARGUMENTS), "posix.system"),
    "a call of a class of ours": (
        node("ConstructorFromReduceNode", "sklearn.linear_model._logistic.LogisticRegression", content=ARGUMENTS),
        "LogisticRegression",
    ),
    "a list that is a call": (sequence("ListNode", "posix.system", TOUCH), "posix.system"),
    "a list that is a dict": (sequence("ListNode", "builtins.dict"), "builtins.dict"),
    "a dict that is a call": (node("DictNode", "os.system", content={}, key_types=text(0)), "os.system"),
    "a partial call": (
        node("PartialNode", "functools.partial", content={"func": node("FunctionNode", "posix.system")}),
        "functools.partial",
    ),
    "a bound method": (
        node(
            "MethodNode",
            "sklearn.linear_model._logistic.LogisticRegression",
            content={"func": "fit", "obj": estimator()},
        ),
        "LogisticRegression.fit",
    ),
    "a method caller": (node("OperatorFuncNode", "operator.methodcaller", attrs=ARGUMENTS), "operator.methodcaller"),
    "a foreign class": (node("ObjectNode", "subprocess.Popen", content=TOUCH), "subprocess.Popen"),
    "a loader that nobody knows": (node("NewNode", "builtins.str", content="x"), "builtins.str"),
    "a loader that is no text": (node([], "builtins.str"), "builtins.str"),  # type: ignore[arg-type]
    "a random number generator of another name": (
        node("RandomGeneratorNode", "numpy.random._generator.Generator", content={"bit_generator": NUMBERED}),
        "builtins.dict",
    ),
    "a dict in a text": (estimator(a=text({"bit_generator": "seed"})), "builtins.str"),
    "what no part of the file seems to use": (
        estimator() | {"aside": node("FunctionNode", "posix.system")},
        "posix.system",
    ),
}


def skops_file(tmp_path: Path, schema: Any) -> Path:
    file = tmp_path / "model.skops"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema | {"protocol": 2, "_skops_version": "0.16.0"}))
    return file


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_skops_file_may_not_name_is_refused_by_name(tmp_path: Path, what: str) -> None:
    schema, name = HOSTILE[what]
    with pytest.raises(ModelRefused, match=rf"does not load by itself: .*{name}'"):
        load_skops(skops_file(tmp_path, schema), is_recorded=True)
    assert not Path(CANARY).exists()


def test_the_harmless_shape_of_the_hostile_files_loads(tmp_path: Path) -> None:
    """Else the tests above could be refused for another reason than the one that they name."""
    harmless = estimator(a=node("FunctionNode", "numpy.log1p"), _sklearn_version=text(sklearn.__version__))
    loaded = load_skops(skops_file(tmp_path, harmless), is_recorded=True)
    assert loaded.a is np.log1p


def test_distributions_are_refused_because_they_execute_a_text_of_theirs(tmp_path: Path) -> None:
    search = RandomizedSearchCV(LogisticRegression(max_iter=1_000), {"C": stats.loguniform(0.1, 1)}, n_iter=1).fit(X, y)
    content = skops.dumps(search)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = archive.read("schema.json").decode()
    assert "_parse_arg_template" in schema or "reciprocal_gen" in schema
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(ModelRefused, match="reciprocal_gen"):
        load_skops(tmp_path / "model.skops", is_recorded=True)


def test_a_real_bit_generator_is_admitted(tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, y)
    (tmp_path / "model.skops").write_bytes(skops.dumps(model))
    loaded = load_skops(tmp_path / "model.skops", is_recorded=True)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def _forged_machine() -> Any:
    machine = SVC().fit(X, y)
    machine._n_support = np.array([2**30, -(2**30), len(machine.support_)], dtype=np.int32)  # whose sum is looked at
    return machine


def _forged_coefficients() -> Any:
    linear = SGDClassifier(random_state=0).fit(X, y).sparsify()
    linear.coef_.indices[:] = 2**30
    return linear


def _forged(kind: Any, fitted_on: Any, **attributes: Any) -> Any:
    model = kind().fit(fitted_on)
    vars(model).update(attributes)
    return model


FORGED: dict[str, Callable[[], Any]] = {
    "SVC": _forged_machine,
    "csr_": _forged_coefficients,
    "CountVectorizer": lambda: _forged(CountVectorizer, ["ab cd"], vocabulary_={"ab": 2**30, "cd": 2**30 + 5}),
    "DictVectorizer": lambda: _forged(DictVectorizer, [{"a": 1}], vocabulary_={"a": 2**30}),
    "FeatureHasher": lambda: _forged(FeatureHasher, [], n_features=0),
    "HashingVectorizer": lambda: _forged(HashingVectorizer, [], n_features=0),
    "MultiLabelBinarizer": lambda: _forged(MultiLabelBinarizer, [["a"]], _cached_dict={"a": 2**30}),
    "OneHotEncoder": lambda: _forged(OneHotEncoder, X, _n_features_outs=[1] * 4),
    "KMeans": lambda: _forged(KMeans, X, cluster_centers_=np.zeros((8, 1))),
    "NearestNeighbors": lambda: _forged(NearestNeighbors, X, n_features_in_=3_000_000, _tree=None, _fit_method="brute"),
}
"""Each crashes the process once it is used, or reads and writes beyond its arrays (scikit-learn 1.9)."""


@pytest.mark.parametrize("name", FORGED)
def test_what_compiled_code_follows_unchecked_is_opened_only_if_it_was_recorded(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.skops").write_bytes(skops.dumps(FORGED[name]()))
    with pytest.raises(ModelRefused, match=rf"{name}.*would be read into memory unchecked"):
        load_skops(tmp_path / "model.skops", is_recorded=False)
    load_skops(tmp_path / "model.skops", is_recorded=True)


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps(3)])
def test_what_is_no_skops_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(ModelRefused, match="is no skops file"):
        load_skops(tmp_path / "model.skops", is_recorded=True)


def test_a_deeply_nested_file_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", "[" * 200_000 + "]" * 200_000)
    with pytest.raises(ModelRefused):
        load_skops(tmp_path / "model.skops", is_recorded=True)
