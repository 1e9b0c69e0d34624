"""An estimator fitted twice, alone and wrapped, and everything in which the two could differ."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone

from overt import TrackedEstimator
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

OUTPUTS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")
TIME = re.compile(r".*_time_?|dur")
"""What tells how long something took; no two fits take equally long."""


@dataclass(frozen=True)
class Subject:
    """An estimator and the data that it is for."""

    estimator: Any
    X: Any
    y: Any = None
    fit_params: Mapping[str, Any] = field(default_factory=dict)
    seed: Callable[[int], Any] = np.random.seed  # what the fit draws from, where it takes no random_state


def complaints(subject: Subject) -> list[str]:
    """What a wrapped fit does otherwise than the bare one, or leaves out of its run: nothing, if all is well."""
    bare, bare_outputs, bare_warnings = _fitted(lambda estimator: estimator, subject)
    with captured_runs() as runs:
        wrapped, outputs, own_warnings = _fitted(TrackedEstimator, subject)
    return [
        *(f"fitted otherwise: {place}" for place in differences(bare, wrapped.estimator_)),
        *(f"other output: {place}" for place in differences(bare_outputs, outputs)),
        *(f"warned: {said}" for said in sorted(own_warnings - bare_warnings)),
        *_gaps(runs[0], bare_outputs, subject),
    ]


def _fitted(wrap: Callable[[Any], Any], subject: Subject) -> tuple[Any, dict[str, Any], set[str]]:
    """A copy of the estimator fitted, what it then says of its data, and the warnings of all that."""
    subject.seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = wrap(clone(subject.estimator))
        data = (subject.X,) if subject.y is None else (subject.X, subject.y)  # some take no y at all
        estimator.fit(*data, **subject.fit_params)
        outputs = _outputs(estimator, subject.X)
    return estimator, outputs, {_said(warning) for warning in caught}


def _said(warning: warnings.WarningMessage) -> str:
    """What was warned of, without numbers: five rows are warned of in other numbers than sixty."""
    sentence = re.sub(r"\d[-+.e\d]*", "#", str(warning.message))
    return f"{warning.category.__name__}: {sentence}"


def _outputs(estimator: Any, X: Any) -> dict[str, Any]:
    """What the estimator says of rows like these: of the very rows that it holds, some compute by a shorter way."""
    return {name: getattr(estimator, name)(deepcopy(X)) for name in OUTPUTS if hasattr(estimator, name)}


def _gaps(run: MemoryRun, outputs: dict[str, Any], subject: Subject) -> Iterator[str]:
    """What is not in the run, or not as the fit left it."""
    if run.status != "FINISHED":
        yield f"status {run.status}"
    for name in sorted({*subject.estimator.get_params(deep=True)} - {*run.params}):
        yield f"no param {name}"
    for name, reason in run.tags.items():
        if name.startswith("overt.not_recorded."):
            yield f"{name}: {reason}"
    if "model/model.pkl" not in run.artifacts:
        yield "no model"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bare estimator's own, counted above
        loaded = pickle.loads(run.artifacts["model/model.pkl"])
        for place in differences(outputs, _outputs(loaded, subject.X)):
            yield f"loaded, other output: {place}"


def differences(one: Any, other: Any, *, at: str = "", seen: dict[Any, Any] | None = None) -> Iterator[str]:
    """Yield the places where two fitted things differ, down to the last bit of every number; times are no difference.

    What has no contents of its own to look into is compared by what it is pickled as.
    """
    seen = {} if seen is None else seen
    if one is other or (id(one), id(other)) in seen:
        return
    seen[id(one), id(other)] = one, other  # kept, or another thing could come to have their ids
    if type(one) is not type(other):
        yield f"{at} {type(one).__name__} is not {type(other).__name__}"
    elif isinstance(one, np.ndarray | np.generic) and one.dtype != object:
        if one.dtype != other.dtype or one.shape != other.shape or not _are_equal_arrays(one, other):
            yield at
    elif isinstance(one, np.ndarray):
        yield from differences([one.shape, *one.flat], [other.shape, *other.flat], at=at, seen=seen)
    elif issparse(one):
        yield from differences(one.toarray(), other.toarray(), at=at, seen=seen)
    elif isinstance(one, Mapping):
        if [*one] != [*other]:
            yield f"{at} has {[*one]} or {[*other]}"
            return
        for key in one:
            if not (isinstance(key, str) and TIME.fullmatch(key)):
                yield from differences(one[key], other[key], at=f"{at}.{key}", seen=seen)
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{at} is of length {len(one)} or {len(other)}"
            return
        for index, (mine, others) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, others, at=f"{at}[{index}]", seen=seen)
    elif isinstance(one, set | frozenset):  # equal ones may be in another order
        yield from differences(sorted(map(repr, one)), sorted(map(repr, other)), at=at, seen=seen)
    elif isinstance(one, float | str | bytes | bytearray | int | bool | type):
        if repr(one) != repr(other):  # NaN is like NaN, and 0.0 is not -0.0
            yield at
    elif hasattr(one, "detach"):  # a tensor
        yield from differences(one.detach().numpy(), other.detach().numpy(), at=at, seen=seen)
    elif hasattr(one, "get_arrays"):  # a tree of neighbours, which also counts what it was asked
        yield from differences([*map(np.asarray, one.get_arrays())], [*map(np.asarray, other.get_arrays())], at=at)
    else:
        contents = vars if hasattr(one, "get_params") else _reduced
        yield from differences(contents(one), contents(other), at=f"{at}:{type(one).__name__}", seen=seen)


def _are_equal_arrays(one: Any, other: Any) -> bool:
    if one.dtype.names is not None:  # between fields there may be bytes that mean nothing
        return all(_are_equal_arrays(one[name], other[name]) for name in one.dtype.names)
    return bool(one.tobytes() == other.tobytes())


def _reduced(value: Any) -> Any:
    """What ``value`` is pickled as; the value itself where that is its name, such as of a function."""
    try:
        reduced = value.__reduce_ex__(4)
    except TypeError:  # cannot be pickled, and so is no fitted state
        return None
    if isinstance(reduced, str):
        return reduced
    return [list(part) if hasattr(part, "__next__") else part for part in reduced]
