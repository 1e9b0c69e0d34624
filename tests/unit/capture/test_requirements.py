"""The pickle is cloudpickle's own, byte for byte, and names what loading it needs."""

from __future__ import annotations

import sys
import types
from importlib import metadata
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import scipy.special
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from overt.capture import requirements as room
from overt.capture.requirements import Requirements, dumps, requirements
from overt.errors import MissingExtra


def forest() -> Any:
    return make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(np.eye(8), [0, 1] * 4)


def by_value() -> Any:
    module = types.ModuleType("__main__")
    exec("import pandas\ndef f(x):\n    return pandas.DataFrame(x)\nclass C:\n    a = f", module.__dict__)
    return [module.f, module.C(), lambda x: np.log(x) + 1]


OBJECTS: dict[str, tuple[Any, set[str]]] = {
    "forest": (forest, {"sklearn", "numpy"}),
    "by_value": (by_value, {"cloudpickle", "pandas", "numpy"}),
    "frame": (lambda: pd.DataFrame({"a": ["x"], "b": [1]}), {"pandas", "numpy"}),
    "ufunc": (lambda: FunctionTransformer(scipy.special.expit), {"sklearn", "scipy"}),
    "class": (lambda: [RandomForestClassifier, np.float32(1)], {"sklearn", "numpy"}),
    "plain": (lambda: {"a": [1, 2.0, None]}, set()),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_pickle_is_cloudpickles_own_and_names_its_modules(name: str) -> None:
    make, expected = OBJECTS[name]
    value = make()
    data, modules = dumps(value)
    assert data == cloudpickle.dumps(value)
    assert expected <= modules


def test_requirements_are_pinned_sorted_and_without_the_standard_library() -> None:
    found = requirements(["sklearn.tree", "numpy", "yaml", "json", "os.path", "builtins", "__main__", "dateutil"])
    names = ("numpy", "python-dateutil", "PyYAML", "scikit-learn")
    assert found == Requirements(tuple(f"{name}=={metadata.version(name)}" for name in names), ())


def test_a_module_of_ones_own_is_unresolved_without_asking_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    own = types.ModuleType("my_features")
    own.__file__ = "/home/me/project/my_features.py"
    monkeypatch.setitem(sys.modules, "my_features", own)
    monkeypatch.setattr(room, "_packages_distributions", lambda: pytest.fail("asked"))
    assert requirements(["my_features"]) == Requirements((), ("my_features",))


def test_an_unknown_name_is_looked_up_among_all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_packages_distributions", lambda: {"odd_name": ["numpy"], "shared": ["numpy", "scipy"]})
    found = requirements(["odd_name", "shared"])
    assert found == Requirements((f"numpy=={np.__version__}",), ("shared",))
    room._pin.cache_clear()


def test_a_local_version_part_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.metadata, "version", lambda name: "2.13.0+cpu")
    room._pin.cache_clear()
    assert requirements(["torch"]).pinned == ("torch==2.13.0",)
    room._pin.cache_clear()


def test_without_cloudpickle_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    room.modules_pickler.cache_clear()
    with pytest.raises((MissingExtra, ModuleNotFoundError)):
        dumps(1)
    monkeypatch.undo()
    assert dumps(1)[0] == cloudpickle.dumps(1)
