"""What must be installed to load a model again, read from the modules that its pickle names while it is written.

MLflow finds this out by importing the model in a child process (2.5 to 5.5 s). The pickler sees every object anyway, so
it notes the top-level module of each, and the list costs nothing. What is written is cloudpickle's output to the byte.

Not guaranteed: a module that only a pickled function's body imports, when it is called, is not seen.
"""

from __future__ import annotations

import io
import pickle
import sys
import sysconfig
import types
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from operator import getitem
from typing import Any

from overt.optional import require

_DISTRIBUTIONS = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "catboost": "catboost",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "imblearn": "imbalanced-learn",
    "mlflow": "mlflow",
    "mpl_toolkits": "matplotlib",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "pytorch_lightning": "pytorch-lightning",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sklearnex": "scikit-learn-intelex",
    "skopt": "scikit-optimize",
    "umap": "umap-learn",
    "yaml": "PyYAML",
}


@dataclass(frozen=True, slots=True)
class Requirements:
    """Lines for ``requirements.txt``, and the modules that no installed distribution provides.

    Attributes
    ----------
    pinned : tuple of str
        ``name==version``, sorted, without local version parts (``+cpu``), which no index serves.
    unresolved : tuple of str
        Modules of the user's own, which must be at hand when the model is loaded.
    """

    pinned: tuple[str, ...]
    unresolved: tuple[str, ...]


def requirements(modules: Iterable[str]) -> Requirements:
    """Pin the distributions that provide ``modules``; the standard library and ``__main__`` need none.

    Parameters
    ----------
    modules : iterable of str
        Module names; of dotted ones the first part counts.
    """
    pinned, unresolved = set(), set()
    for module in {name.partition(".")[0] for name in modules}:
        if not module or module in sys.stdlib_module_names or module in ("__main__", "__mp_main__"):
            continue
        line = _pin(module)
        if line is not None:
            pinned.add(line)
        elif not module.startswith("_cython_"):  # Cython's shared runtime types: no module that one could import
            unresolved.add(module)
    return Requirements(tuple(sorted(pinned, key=str.lower)), tuple(sorted(unresolved)))


def dumps(obj: object) -> tuple[bytes, frozenset[str]]:
    """Pickle ``obj`` with cloudpickle, and name the top-level modules that loading it will import.

    Returns
    -------
    data : bytes
        Exactly ``cloudpickle.dumps(obj)``, but for wrappers of overt in it: what they wrap stands in their place.
    modules : frozenset of str
        For :func:`requirements`.

    Raises
    ------
    MissingExtra
        Without cloudpickle.
    Exception
        Whatever pickling raises, unchanged.
    """
    with io.BytesIO() as file:
        pickler = modules_pickler()(file)
        pickler.dump(obj)
        return file.getvalue(), pickler.modules


@lru_cache(maxsize=1)
def modules_pickler() -> Any:
    """The class behind :func:`dumps`: ``cloudpickle.Pickler`` with a property ``modules``, made on first use."""
    cloudpickle = require("cloudpickle", extra="sklearn")

    class ModulesPickler(cloudpickle.Pickler):  # type: ignore[misc,name-defined]  # untyped, and known only now
        """Writes what cloudpickle writes and remembers whose objects they were."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._names: set[object] = set()
            self._plain: set[type] = set()

        @property
        def modules(self) -> frozenset[str]:
            return frozenset(name.partition(".")[0] for name in self._names if isinstance(name, str) and name)

        def reducer_override(self, obj: Any) -> Any:
            # The kinds already known as neither class nor function go straight back to C: this makes the whole
            # no slower than cloudpickle's own. A proxy, whose __class__ is not its type, never counts as known.
            kind = type(obj)
            if kind in self._plain:
                return NotImplemented
            if hasattr(kind, "__overt_saved__"):  # our own wrapper, deep in a user's model: what it wraps is the model
                return getitem, ((obj.__overt_saved__(),), 0)
            self._names.add(_module_of(obj, kind))
            if obj.__class__ is kind and kind not in _NAMED and not issubclass(kind, type):
                self._plain.add(kind)
            return super().reducer_override(obj)

    return ModulesPickler


# Kinds whose objects each have a module of their own to note.
_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def _module_of(obj: Any, kind: type) -> object:
    if isinstance(obj, types.ModuleType):
        return obj.__name__
    if isinstance(obj, type) or kind in _NAMED:
        return getattr(obj, "__module__", None)
    if kind.__name__ == "ufunc":  # scipy.special's are numpy's by type
        return pickle.whichmodule(obj, obj.__name__)  # type: ignore[attr-defined]  # not in typeshed
    return getattr(kind, "__module__", None)


# --- from module to distribution --------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _pin(module: str) -> str | None:
    for name in _candidates(module):
        try:
            return f"{name}=={metadata.version(name).partition('+')[0]}"
        except Exception:  # noqa: BLE001, S112 - a broken installation stops no training
            continue
    return None


def _candidates(module: str) -> Iterable[str]:
    yield from [_DISTRIBUTIONS[module]] if module in _DISTRIBUTIONS else [module]
    if not _is_local(module):
        providers = _packages_distributions().get(module, [])
        if len(set(providers)) == 1:  # a namespace shared by many (google, azure) names none of them
            yield providers[0]


def _is_local(module: str) -> bool:
    """Whether an imported module lies outside every site-packages folder: then asking them all (0.3 s) is in vain."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(path, str):
        return False
    homes = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    return not path.startswith(tuple(homes)) and not any(part in path for part in ("site-packages", "dist-packages"))


@lru_cache(maxsize=1)
def _packages_distributions() -> dict[str, list[str]]:
    try:
        return {name: list(providers) for name, providers in metadata.packages_distributions().items()}
    except Exception:  # noqa: BLE001 - a broken installation stops no training
        return {}
