"""What a skops file may name and still be opened without the user's word: a list of overt's own, asked before skops is.

A skops file is JSON that names classes and functions to be looked up and called, so all depends on which names are
admitted. The list that an MLmodel file brings along (``skops_trusted_types``) was written by whoever wrote the file,
and is never read. skops checks once more, with the names that were found here and no others.

*By kind of node.* A name is admitted only where scikit-learn's own models have it: a class in an ``ObjectNode``, a
score function in a ``FunctionNode``, a number type in a ``TypeNode``. So ``builtins.dict`` is a dict and no constructor
that is called with a list, and bound methods, ``functools.partial`` and ``operator.attrgetter`` are admitted nowhere.

*Classes.* scikit-learn's public estimators, and those of its classes that they consist of once fitted. Making one calls
its ``__new__`` and ``__setstate__``, which only store. From scipy only sparse matrices: ``scipy.stats`` distributions
pass a text of theirs to ``exec`` when they are restored, so a search over distributions needs the user's word.

*Functions.* NumPy's and SciPy's ufuncs, the functions behind scikit-learn's scorers and univariate selectors, and
``numpy.mean``: they compute numbers from arrays. Every other function is refused by name, scikit-learn's too: some of
them read files, or fetch and unpickle them (``sklearn.datasets``).

*Raw memory.* Trees, neighbour searches, k-means, libsvm's machines, sparse matrices, and the encoders and vectorizers
that make such matrices hold indices, counts or shapes that compiled code follows without a check, so forged ones crash
the process, or read and write beyond their arrays. They are admitted only in a file whose SHA-256 is the recorded one.
The list is of what was found to do so (scikit-learn 1.9), and no proof that nothing else does.

None of this bounds memory or time: a file may ask for more than there is.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

_SPARSE = frozenset(
    f"scipy.sparse._{kind}.{kind}_{form}"
    for kind in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for form in ("array", "matrix")
)
RAW_MEMORY = frozenset(
    {
        # split points and nodes by index
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
        # distances of as many columns as n_features_in_ says, to rows that may have fewer
        "sklearn.cluster._bisect_k_means.BisectingKMeans",
        "sklearn.cluster._kmeans.KMeans",
        "sklearn.cluster._kmeans.MiniBatchKMeans",
        "sklearn.neighbors._classification.KNeighborsClassifier",
        "sklearn.neighbors._classification.RadiusNeighborsClassifier",
        "sklearn.neighbors._graph.KNeighborsTransformer",
        "sklearn.neighbors._graph.RadiusNeighborsTransformer",
        "sklearn.neighbors._kde.KernelDensity",
        "sklearn.neighbors._lof.LocalOutlierFactor",
        "sklearn.neighbors._regression.KNeighborsRegressor",
        "sklearn.neighbors._regression.RadiusNeighborsRegressor",
        "sklearn.neighbors._unsupervised.NearestNeighbors",
        # libsvm: numbers of support vectors
        "sklearn.svm._classes.NuSVC",
        "sklearn.svm._classes.NuSVR",
        "sklearn.svm._classes.OneClassSVM",
        "sklearn.svm._classes.SVC",
        "sklearn.svm._classes.SVR",
        # columns of the sparse matrix that they make
        "sklearn.feature_extraction._dict_vectorizer.DictVectorizer",
        "sklearn.feature_extraction._hash.FeatureHasher",
        "sklearn.feature_extraction.text.CountVectorizer",
        "sklearn.feature_extraction.text.HashingVectorizer",
        "sklearn.feature_extraction.text.TfidfVectorizer",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.preprocessing._label.MultiLabelBinarizer",
        # scipy checks the length of their indices, and not where they point
        *_SPARSE,
    }
)

_PARTS_OF_ESTIMATORS = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.metrics._scorer._CurveScorer",
        "sklearn.metrics._scorer._MultimetricScorer",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.metrics._scorer._Scorer",
        "sklearn.multiclass._ConstantPredictor",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
    }
)
_MODULES_OF_PARTS = (
    "sklearn._loss.link",
    "sklearn._loss.loss",
    "sklearn.gaussian_process.kernels",
    "sklearn.metrics._dist_metrics",
    "sklearn.model_selection._split",
    "sklearn.neural_network._stochastic_optimizers",
)
_MODULES_OF_LOSSES = ("sklearn._loss._loss", "sklearn.linear_model._sgd_fast")
_SELECTORS = ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
_BUILTIN_TYPES = ("bool", "bytes", "complex", "float", "int", "str")
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def judged_names(schema: Any, *, trusted: Collection[str], is_recorded: bool) -> tuple[list[str], list[str]]:
    """Names in the ``schema.json`` of a skops file: those that are refused, and those that are admitted.

    Parameters
    ----------
    schema : JSON value
        As parsed.
    trusted : collection of str
        What the user admits besides.
    is_recorded : bool
        Whether the file's SHA-256 is the recorded one.
    """
    refused: set[str] = set()
    admitted: set[str] = set()
    for node in _iter_nodes(schema):
        name = _name(node)
        is_ours = _is_admitted(node, name) and (is_recorded or name not in RAW_MEMORY)
        (admitted if is_ours or name in trusted else refused).add(name)
    return sorted(refused), sorted(admitted)


def _iter_nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Whatever skops could take for a node, wherever it lies."""
    waiting = [value]  # not recursion: a file may be nested deeper than Python's stack
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "__loader__" in found:
                yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _name(node: Mapping[str, Any]) -> str:
    name = f"{node.get('__module__')}.{node.get('__class__')}"
    content = node.get("content")
    return f"{name}.{content.get('func')}" if node["__loader__"] == "MethodNode" and isinstance(content, dict) else name


def _is_admitted(node: Mapping[str, Any], name: str) -> bool:
    loader, content = node["__loader__"], node.get("content")
    if loader == "JsonNode":
        return _is_scalar(content)
    if loader == "DictNode" and isinstance(content, dict) and "bit_generator" in content:
        return name == "builtins.dict" and _names_bit_generator(content["bit_generator"])
    return isinstance(loader, str) and name in _admitted().get(loader, ())


def _is_scalar(content: Any) -> bool:
    """Whether a JsonNode is a text or a number: a dict in it would be one that nobody has looked at."""
    try:
        return not isinstance(json.loads(content), dict | list)
    except (TypeError, ValueError):
        return False


def _names_bit_generator(node: Any) -> bool:
    """Whether the node is one of NumPy's bit generators by name: older skops call whatever ``numpy.random`` has so."""
    return (
        isinstance(node, dict)
        and node.get("__loader__") == "JsonNode"
        and node.get("content") in [json.dumps(name) for name in _BIT_GENERATORS]
    )


@cache
def _admitted() -> Mapping[str, frozenset[str]]:
    """Admitted names for each kind of node."""
    estimators = frozenset(f"{kind.__module__}.{kind.__name__}" for kind in _estimators())
    numbers = frozenset(f"numpy.{kind.__name__}" for kind in importlib.import_module("numpy").sctypeDict.values())
    return {
        "BytearrayNode": frozenset({"builtins.bytearray"}),
        "BytesNode": frozenset({"builtins.bytes"}),
        "DTypeNode": frozenset({"numpy.dtype"}),
        "DefaultDictNode": frozenset({"collections.defaultdict"}),
        "DictNode": frozenset({"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}),
        "FunctionNode": _functions(),
        "ListNode": frozenset({"builtins.list"}),
        "LossNode": _classes_of(*_MODULES_OF_LOSSES),
        "MaskedArrayNode": frozenset({"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"}),
        "NdArrayNode": numbers | {"numpy.ndarray"},
        "ObjectNode": estimators
        | _PARTS_OF_ESTIMATORS
        | _classes_of(*_MODULES_OF_PARTS, *_MODULES_OF_LOSSES)  # a loss without a constant is one for skops 0.11
        | RAW_MEMORY,
        "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
        "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
        "SetNode": frozenset({"builtins.set"}),
        "SliceNode": frozenset({"builtins.slice"}),
        "SparseMatrixNode": _SPARSE,
        "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
        "TupleNode": frozenset({"builtins.tuple"}),
        "TypeNode": numbers | {f"builtins.{name}" for name in _BUILTIN_TYPES},
    }


def _estimators() -> list[type]:
    found = importlib.import_module("sklearn.utils").all_estimators()
    return [kind for _, kind in found if kind.__module__.startswith("sklearn.")]


def _classes_of(*modules: str) -> frozenset[str]:
    """The classes that are defined in these modules, of which older versions may lack some.

    Both by the module that they are in and by the one that they name: Cython's classes of scikit-learn 1.6 call theirs
    ``_loss``, and skops writes what they say.
    """
    names = set()
    for module in modules:
        try:
            content = vars(importlib.import_module(module))
        except ImportError:
            continue
        own = {name: kind for name, kind in content.items() if _is_defined_in(module, kind)}
        names |= {f"{place}.{name}" for name, kind in own.items() for place in (module, kind.__module__)}
    return frozenset(names)


def _is_defined_in(module: str, kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__ in (module, module.rpartition(".")[2])


def _functions() -> frozenset[str]:
    numpy = importlib.import_module("numpy")
    names = {"numpy.mean"}
    for module, homes in (
        ("numpy", ("numpy", "numpy._core._multiarray_umath", "numpy.core._multiarray_umath")),
        ("scipy.special", ("scipy.special._ufuncs",)),
    ):
        content = vars(importlib.import_module(module))
        ufuncs = [name for name, value in content.items() if isinstance(value, numpy.ufunc)]
        names |= {f"{home}.{name}" for home in homes for name in ufuncs}
    metrics = importlib.import_module("sklearn.metrics")
    scores = [metrics.get_scorer(name)._score_func for name in metrics.get_scorer_names()]
    selection = importlib.import_module("sklearn.feature_selection")
    selectors = [getattr(selection, name) for name in _SELECTORS]
    return frozenset(names | {f"{function.__module__}.{function.__name__}" for function in (*scores, *selectors)})
