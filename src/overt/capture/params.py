"""A parameter is one string that is equal whenever the setting is equal: in another process, on another day.

That is what makes runs comparable. So no memory address, no cut (scikit-learn's repr stops at 700 characters), no
salted order of a set, and large arrays by shape, dtype and content hash. Anything can be a parameter, including
objects that raise when asked for their repr. Secrets are hidden here, before a parameter is recorded anywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any

from overt.capture.digest import digest, is_sparse
from overt.capture.reprs import qualified_name, stable_repr
from overt.capture.secrets import redact_value

_MAX_DEPTH = 16
_MAX_ITEMS = 1000  # of a container spelled out; beyond it the first ten, the count and a hash
_MAX_SETTINGS = 200  # of one mapping: a configuration has fewer, a vocabulary more
_SMALL_ARRAY = 10
_HASH_DIGITS = 12


def describe(value: object) -> str:
    """One stable line (or, for text, the text itself) that stands for ``value``.

    A string describes as itself, as MLflow's own ``log_param`` has it; inside a container it is quoted.

    Examples
    --------
    >>> describe("gini"), describe(0.1), describe({"a": ["x", None]})
    ('gini', '0.1', "{'a': ['x', None]}")
    >>> describe(functools.partial(int, base=2))
    'functools.partial(int, base=2)'
    """
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str.__str__(value)
    if isinstance(value, PurePath):
        return str(value)
    return _render(value, ())


def estimator_params(estimator: object, *, name: str) -> dict[str, str]:
    """The parameters of a scikit-learn estimator, deep, described and without secrets.

    Parameters
    ----------
    estimator : object
        Anything with ``get_params``. If it raises, what it can say about itself is missing and the rest is here.
    name : str
        What the user calls this model; recorded as ``model_name``.

    Returns
    -------
    dict of str to str
        The estimator's own names. A Pipeline or a search also gives its final step's names bare, where they are free
        (``clf__max_depth`` also as ``max_depth``; of a fitted search, those of ``best_estimator_``), and ``model_type``
        is the class of that final step. ``model_class`` is that of ``estimator`` itself, with its module. An own
        parameter called like one of these is kept as ``estimator.model_type``.
    """
    estimator = unwrapped(estimator)
    raw = _get_params(estimator)
    final = final_estimator(estimator)
    if final is not estimator:
        raw = {**_get_params(final), **raw}
    params = {key: redact_value(key, describe(value)) for key, value in raw.items()}
    kind = f"{type(estimator).__module__}.{type(estimator).__name__}"
    for ours, text in (("model_type", type(final).__name__), ("model_name", name), ("model_class", kind)):
        if ours in params:
            params[f"estimator.{ours}"] = params[ours]
        params[ours] = redact_value(ours, text)
    return params


def secret_params(estimator: object) -> list[str]:
    """Names of the parameters, at any depth, whose texts or mappings hold a secret."""
    texts = {
        name: describe(value) for name, value in _get_params(estimator).items() if isinstance(value, str | Mapping)
    }
    return [name for name, text in texts.items() if redact_value(name, text) != text]


def final_estimator(estimator: object) -> object:
    """The estimator that predicts: a Pipeline's last step, a search's (best) estimator, what we wrap, at any depth."""
    return _innermost(estimator, _inner)


def unwrapped(estimator: object) -> object:
    """What our own wrapper, which only watches, is around; any other estimator itself."""
    return _innermost(estimator, _wrapped)


def flatten(config: object) -> dict[str, str]:
    """The leaves of a configuration as ``{"optimizer.lr": "0.1"}``, described and without secrets.

    Parameters
    ----------
    config : Mapping, dataclass, Namespace, attrs or pydantic object
        Nested ones flatten with dots; lists, and mappings that are empty, are leaves. Two leaves of one name are both
        kept, the second as ``name.2``. Anything else gives ``{"value": …}``.
    """
    params: dict[str, str] = {}
    fields = _fields(config)
    leaves = [("value", config)] if fields is None else _iter_leaves(fields, "", (id(config),))
    for name, value in leaves:
        unique, count = name, 1
        while unique in params:
            count += 1
            unique = f"{name}.{count}"
        params[unique] = redact_value(name, describe(value))
    return params


def is_data(value: object) -> bool:
    """Whether ``value`` is a mapping with more entries than a configuration has: a vocabulary, a table of labels."""
    return isinstance(value, Mapping) and len(value) > _MAX_SETTINGS


# --- configurations ---------------------------------------------------------------------------------------------------


def _iter_leaves(fields: Mapping[Any, Any], prefix: str, seen: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    for key, value in fields.items():
        name = prefix + (key if isinstance(key, str) else describe(key))
        inner = _fields(value) if id(value) not in seen and len(seen) < _MAX_DEPTH else None
        if inner:
            yield from _iter_leaves(inner, f"{name}.", (*seen, id(value)))
        else:
            yield name, value


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The fields of a configuration; None for what is a plain value."""
    if isinstance(value, type):
        return None
    try:
        if isinstance(value, Mapping):
            return dict(value)
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
            return vars(value)
        if hasattr(type(value), "__attrs_attrs__"):
            return {field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__}
        if isinstance(getattr(type(value), "model_fields", None), Mapping):  # pydantic
            return {name: getattr(value, name) for name in type(value).model_fields}
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return None
    return None


# --- estimators -------------------------------------------------------------------------------------------------------


def _get_params(estimator: Any, *, deep: bool = True) -> dict[str, Any]:
    for asked_deep in (deep, False):
        try:
            return dict(estimator.get_params(deep=asked_deep))
        except Exception:  # noqa: BLE001, S112 - a user's object may raise anything
            continue
    return {}


def _innermost(estimator: object, step: Callable[[Any], object | None]) -> object:
    for _ in range(_MAX_DEPTH):
        inner = step(estimator)
        if inner is None or isinstance(inner, (str, type)):
            break
        estimator = inner
    return estimator


def _wrapped(estimator: Any) -> object | None:
    """What a TrackedEstimator stands for: it lies above this module, so it is known by the method that only it has."""
    if not hasattr(type(estimator), "__overt_saved__"):
        return None
    saved: object = estimator.__overt_saved__()
    return saved


def _inner(estimator: Any) -> object | None:
    try:
        if (wrapped := _wrapped(estimator)) is not None:
            return wrapped
        steps = getattr(estimator, "steps", None)
        if isinstance(steps, Sequence) and steps and isinstance(steps[-1], (list, tuple)) and len(steps[-1]) == 2:
            return steps[-1][1]  # type: ignore[no-any-return]
        if any(hasattr(estimator, name) for name in ("param_grid", "param_distributions", "search_spaces")):
            best: object = getattr(estimator, "best_estimator_", None)
            return best if best is not None else getattr(estimator, "estimator", None)
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return None
    return None


def _is_estimator(value: Any) -> bool:
    return callable(getattr(value, "get_params", None)) and not isinstance(value, type)


def _render_estimator(estimator: Any, seen: tuple[int, ...]) -> str:
    """``Name(changed=value, …)``: what differs from the defaults of ``__init__``, as scikit-learn shows it, uncut."""
    defaults = _defaults(type(estimator).__init__)
    shown: list[str] = []
    for key, value in _get_params(estimator, deep=False).items():
        text = _render(value, seen)
        if key not in defaults or defaults[key] != text:
            shown.append(f"{key}={text}")
    return f"{type(estimator).__name__}({', '.join(shown)})"


@functools.lru_cache(maxsize=256)
def _defaults(init: Callable[..., None]) -> dict[str, str]:
    try:
        parameters = inspect.signature(init).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: _render(p.default, ()) for p in parameters if p.default is not p.empty}


# --- values -----------------------------------------------------------------------------------------------------------


def _render(value: Any, seen: tuple[int, ...]) -> str:
    kind = type(value)
    if kind in (str, int, float, bool, type(None), complex):
        return repr(value)
    if id(value) in seen:
        return "<cycle>"
    if len(seen) >= _MAX_DEPTH:
        return f"<{kind.__name__}: nested deeper than {_MAX_DEPTH}>"
    try:
        return _renderer(value)(value, (*seen, id(value)))
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return stable_repr(value)


_Renderer = Callable[[Any, tuple[int, ...]], str]


def _renderer(value: Any) -> _Renderer:
    for recognise in (_python_renderer, _scientific_renderer):
        renderer = recognise(value)
        if renderer is not None:
            return renderer
    if _is_estimator(value):
        return _render_estimator
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _render_dataclass
    return lambda value, seen: stable_repr(value)


def _python_renderer(value: Any) -> _Renderer | None:
    for kinds, renderer in _PYTHON_RENDERERS:
        if isinstance(value, kinds):
            return renderer
    return None


def _scientific_renderer(value: Any) -> _Renderer | None:
    numpy, pandas, torch = (sys.modules.get(name) for name in ("numpy", "pandas", "torch"))
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _render_array
        if isinstance(value, numpy.generic):
            return _render_numpy_scalar
        if isinstance(value, numpy.dtype):
            return lambda value, seen: str(value)
        if isinstance(value, numpy.ufunc):
            return lambda value, seen: f"numpy.{value.__name__}" if hasattr(numpy, value.__name__) else value.__name__
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index)):
        return lambda value, seen: f"<{type(value).__name__} shape={value.shape} sha256={_content(value)}>"
    if is_sparse(value):
        return _render_sparse
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _render_tensor
    if hasattr(value, "dist") and hasattr(value, "kwds") and hasattr(value, "args"):
        return _render_distribution
    return None


def _content(value: object) -> str:
    return digest(value)[:_HASH_DIGITS]


def _render_array(value: Any, seen: tuple[int, ...]) -> str:
    if value.size <= _SMALL_ARRAY:
        return f"array({_render(value.tolist(), seen)}, dtype={value.dtype})"
    return f"<array shape={value.shape} dtype={value.dtype} sha256={_content(value)}>"


def _render_numpy_scalar(value: Any, seen: tuple[int, ...]) -> str:
    item = value.item()
    if value.dtype.kind in "mM" or isinstance(item, type(value)):
        return str(value)
    return _render(item, seen)


def _render_sparse(value: Any, seen: tuple[int, ...]) -> str:
    head = f"{type(value).__name__} shape={value.shape} dtype={value.dtype} nnz={value.nnz}"
    return f"<{head} sha256={_content(value)}>"


def _render_tensor(value: Any, seen: tuple[int, ...]) -> str:
    # The values of a tensor on a device are not asked for: that would wait for the device.
    if value.device.type == "cpu" and value.numel() <= _SMALL_ARRAY:
        return f"tensor({_render(value.tolist(), seen)}, dtype={value.dtype})"
    return f"<tensor shape={tuple(value.shape)} dtype={value.dtype} device={value.device}>"


def _render_distribution(value: Any, seen: tuple[int, ...]) -> str:
    return f"{value.dist.name}({_arguments(value.args, value.kwds, seen)})"  # a frozen one of scipy.stats


def _render_dataclass(value: Any, seen: tuple[int, ...]) -> str:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    return f"{type(value).__qualname__}({_arguments((), fields, seen)})"


def _render_namespace(value: Any, seen: tuple[int, ...]) -> str:
    return f"{type(value).__name__}({_arguments((), vars(value), seen)})"


def _render_enum(value: enum.Enum, seen: tuple[int, ...]) -> str:
    return f"{type(value).__qualname__}.{value.name}" if value.name else str(value)


def _render_function(value: Any, seen: tuple[int, ...]) -> str:
    name = qualified_name(value)
    code = getattr(value, "__code__", None)
    if code is not None and value.__name__ == "<lambda>":
        return f"<lambda> {value.__module__}:{code.co_firstlineno}"
    return name if name is not None else stable_repr(value)


def _render_method(value: types.MethodType, seen: tuple[int, ...]) -> str:
    owner = value.__self__
    if isinstance(owner, type):
        return f"{qualified_name(owner)}.{value.__name__}"
    return f"{_render(owner, seen)}.{value.__name__}"


def _render_partial(value: functools.partial[Any], seen: tuple[int, ...]) -> str:
    arguments = _arguments(value.args, value.keywords, seen)
    return f"functools.partial({_render(value.func, seen)}{', ' if arguments else ''}{arguments})"


def _render_pattern(value: re.Pattern[Any], seen: tuple[int, ...]) -> str:
    default = re.UNICODE if isinstance(value.pattern, str) else 0
    flags = re.RegexFlag(value.flags & ~default)  # repr cuts a pattern at 200 characters
    return f"re.compile({value.pattern!r}{f', {flags!r}' if flags else ''})"


def _render_bytes(value: bytes, seen: tuple[int, ...]) -> str:
    if len(value) <= 64:
        return repr(value)
    return f"<{type(value).__name__} of {len(value)} sha256={_content(bytes(value))}>"


def _render_mapping(value: Mapping[Any, Any], seen: tuple[int, ...]) -> str:
    name = "" if type(value) is dict else type(value).__name__
    body = "{" + _joined((f"{_render(k, seen)}: {_render(v, seen)}" for k, v in value.items()), len(value)) + "}"
    return f"{name}({body})" if name else body


def _render_sequence(value: Sequence[Any], seen: tuple[int, ...]) -> str:
    kind = type(value)
    items = _joined((_render(item, seen) for item in value), len(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{kind.__name__}({_arguments((), dict(zip(value._fields, value, strict=True)), seen)})"
    comma = "," if len(value) == 1 else ""
    body = f"({items}{comma})" if isinstance(value, tuple) else f"[{items}]"
    return body if kind in (list, tuple) else f"{kind.__name__}({body})"


def _render_set(value: Set[Any], seen: tuple[int, ...]) -> str:
    items = _joined(iter(sorted(_render(item, seen) for item in value)), len(value))
    if type(value) is set:
        return f"{{{items}}}" if value else "set()"
    return f"{type(value).__name__}({{{items}}})" if value else f"{type(value).__name__}()"


def _joined(items: Iterator[str], count: int) -> str:
    if count <= _MAX_ITEMS:
        return ", ".join(items)
    texts = list(items)
    return f"{', '.join(texts[:10])}, … {count - 10} more, sha256={_content(texts)}"


def _arguments(args: Sequence[Any], keywords: Mapping[str, Any], seen: tuple[int, ...]) -> str:
    named = (f"{key}={_render(item, seen)}" for key, item in keywords.items())
    return ", ".join((*(_render(item, seen) for item in args), *named))


_PYTHON_RENDERERS: tuple[tuple[Any, _Renderer], ...] = (
    (enum.Enum, _render_enum),
    (type, _render_function),
    ((types.FunctionType, types.BuiltinFunctionType, types.MethodWrapperType), _render_function),
    (types.MethodType, _render_method),
    (types.ModuleType, lambda value, seen: str(value.__name__)),
    (functools.partial, _render_partial),
    (re.Pattern, _render_pattern),
    ((bytes, bytearray), _render_bytes),
    (PurePath, lambda value, seen: repr(str(value))),
    ((datetime.date, datetime.time), lambda value, seen: value.isoformat()),
    ((argparse.Namespace, types.SimpleNamespace), _render_namespace),
    (Mapping, _render_mapping),
    ((list, tuple), _render_sequence),
    ((set, frozenset), _render_set),
)
