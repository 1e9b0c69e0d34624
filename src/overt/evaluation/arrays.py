"""What a user may pass as data becomes an array of known shape here, or one error that names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overt.errors import ConfigurationError

FloatArray = NDArray[np.float64]


def to_array(values: Any, *, name: str) -> NDArray[Any]:
    """Return ``values`` as an array, with a single column flattened.

    Raises
    ------
    ConfigurationError
        When they are ragged, empty or a scalar.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ConfigurationError(f"`{name}` must be an array with rows of one length ({error})") from error
    if array.ndim == 0:
        raise ConfigurationError(f"`{name}` must be an array with one entry for each sample (got {values!r})")
    if array.shape[0] == 0:
        raise ConfigurationError(f"`{name}` is empty: there is nothing to evaluate; pass at least one sample")
    return array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array


def to_numbers(values: Any, *, name: str) -> FloatArray:
    """Return ``values`` as float64, one- or two-dimensional, as :func:`to_array` does."""
    array = to_array(values, name=name)
    try:
        numbers: FloatArray = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"`{name}` must hold numbers ({error})") from error
    if numbers.ndim > 2:
        raise ConfigurationError(f"`{name}` must have one or two dimensions (got shape {numbers.shape})")
    return numbers


def to_weight(sample_weight: Any, *, n_samples: int) -> FloatArray | None:
    """Return one finite weight for each sample, or None for none."""
    if sample_weight is None:
        return None
    weight = to_numbers(sample_weight, name="sample_weight")
    if weight.shape != (n_samples,):
        raise ConfigurationError(
            f"`sample_weight` must hold one weight for each of {n_samples} samples (got shape {weight.shape})"
        )
    if not (np.isfinite(weight).all() and weight.sum() > 0):
        raise ConfigurationError("`sample_weight` must be finite with a positive sum; drop rows of unknown weight")
    return weight


def check_same_length(**arrays: Any) -> None:
    """Refuse arrays that do not speak of the same samples."""
    lengths = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"`{name}` has {length}" for name, length in lengths.items())
        raise ConfigurationError(f"all arrays must hold the same samples ({got})")


def check_names(names: Any, *, argument: str, expected: int, of: str) -> tuple[str, ...]:
    """Return ``names`` as strings: as many as there are things to name, and no two alike."""
    found = tuple(str(name) for name in names)
    if len(found) != expected:
        raise ConfigurationError(
            f"`{argument}` must name each of the {expected} {of} in order (got {len(found)} names); "
            f"pass {expected} names or leave it out"
        )
    if len(set(found)) < len(found):
        raise ConfigurationError(f"`{argument}` must not hold the same name twice (got {list(found)})")
    return found
