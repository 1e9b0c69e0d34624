"""A torch module as model files: written with cloudpickle inside ``torch.save``, so that a class of ``__main__`` loads.

Tensors are written from the CPU, so a model trained on an accelerator loads on a machine that has none.
"""

from __future__ import annotations

import copy
import inspect
import io
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from overt.capture.requirements import modules_pickler, requirements
from overt.capture.signature import input_example, signature
from overt.models.files import ModelFiles
from overt.optional import require

_FOLDER = "data"
_READER = "mlflow.pytorch.pickle_module"  # what mlflow.pytorch reads with: cloudpickle has no Unpickler of its own
_EXAMPLE_ROWS = 5


def torch_model(module: Any, *candidates: Any, params: Mapping[str, str] | None = None) -> ModelFiles:
    """Describe a module as MLflow's ``pytorch`` flavor, loadable by ``mlflow.pytorch`` and ``mlflow.pyfunc``.

    Parameters
    ----------
    module : torch.nn.Module
        In any mode and on any device. Its ``forward`` is tried: modes, buffers and the random numbers of Python, NumPy
        and torch are left as they are, plain attributes that a ``forward`` changes are not.
    *candidates : Tensor, or tuple, list or dict of them
        What ``module`` may take, likeliest first; first dimension samples. A tuple is several arguments, and so is a
        dict if the arguments have its names. The first that it takes gives the signature, and its first rows the input
        example.
    params : mapping, optional
        Shown on the model's page.

    Raises
    ------
    Exception
        Whatever the module raises when it is pickled.
    """
    module = _on_cpu(module)
    content, modules = _dump(module)
    needed = requirements({"torch", "cloudpickle", *modules})
    notes = [f"module {name} is no installed package: have it at hand to load the model" for name in needed.unresolved]
    files = {f"{_FOLDER}/model.pth": content, f"{_FOLDER}/pickle_module_info.txt": _READER.encode()}
    found_signature, example, note = _signature_and_example(module, candidates)
    if note:
        notes.append(note)
    if example is not None:
        files |= {"input_example.json": example.data, "serving_input_example.json": example.serving}
    return ModelFiles(
        flavor="pytorch",
        files=files,
        flavor_fields={
            "model_data": _FOLDER,
            "pytorch_version": str(sys.modules["torch"].__version__),
            "code": None,
        },
        pyfunc_fields={
            "loader_module": "mlflow.pytorch",
            "data": _FOLDER,
            "pickle_module_name": _READER,
            "model_config": {"device": None},
        },
        signature=found_signature,
        example=example.info if example is not None else None,
        requirements=needed.pinned,
        params=dict(params or {}),
        notes=tuple(notes),
    )


def _on_cpu(module: Any) -> Any:
    """``module``, or a copy on the CPU of one that is elsewhere."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return module
    return copied_to_cpu(module)


def copied_to_cpu(module: Any) -> Any:
    """A copy of a module, on the CPU."""
    try:
        copied = copy.deepcopy(module)
    except RuntimeError:  # torch copies no tensor with a graph, such as an output that is kept for an epoch's end
        content, _ = _dump(module)
        copied = sys.modules["torch"].load(io.BytesIO(content), map_location="cpu", weights_only=False)
    return copied.cpu()


def _dump(module: Any) -> tuple[bytes, frozenset[str]]:
    """The module's bytes, and the modules that loading them will import."""
    torch, cloudpickle = sys.modules["torch"], require("cloudpickle", extra="torch")
    picklers: list[Any] = []

    class Pickler(modules_pickler()):  # type: ignore[misc]  # made on first use
        """Remembered, so that it can be asked for the modules that it has seen."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            picklers.append(self)

    how = SimpleNamespace(__name__="cloudpickle", Pickler=Pickler, dumps=cloudpickle.dumps)
    with io.BytesIO() as file:
        torch.save(module, file, pickle_module=how)
        return file.getvalue(), frozenset().union(*(pickler.modules for pickler in picklers))


def _signature_and_example(module: Any, candidates: Iterable[Any]) -> tuple[dict[str, Any] | None, Any, str]:
    """Signature and example, and a sentence for what could not be had: a module may refuse five rows."""
    refusals = []
    for inputs in candidates:
        if inputs is None:
            continue
        try:
            head = first_rows(inputs, _EXAMPLE_ROWS)
            with sys.modules["torch"].no_grad(), _left_as_it_is(module):
                module.eval()
                outputs = _to_arrays(_call(module, head), "output")
            shown = _to_arrays(head, "input")
            found, example = signature(shown, outputs), input_example(shown)
            missing = [name for name, part in (("signature", found), ("input example", example)) if part is None]
            note = f"no {' and no '.join(missing)}: MLflow has no form for such data" if missing else ""
            return found, example, note
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything
            refusals.append(f"no signature: the model could not be tried on its first rows ({error})")
    return None, None, refusals[0] if refusals else "no signature: no batch was seen"


@contextmanager
def _left_as_it_is(module: Any) -> Iterator[None]:
    """Modes, buffers and random numbers are after the block what they were before it."""
    torch, numpy = sys.modules["torch"], sys.modules.get("numpy")
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(part._buffers, dict(part._buffers)) for part in module.modules()]
    values = [(buffer, buffer.clone()) for buffer in module.buffers()]
    pythons, numpys = random.getstate(), numpy.random.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(pythons)
        if numpy is not None:
            numpy.random.set_state(numpys)
        for part, mode in modes:
            part.training = mode
        for named, before in buffers:
            named.clear()
            named.update(before)
        for buffer, value in values:
            buffer.data.copy_(value)  # not the buffer itself: a graph that still needs it could not be backwarded


def first_rows(value: Any, rows: int) -> Any:
    """The first ``rows`` samples of a batch of tensors, copied to the CPU."""
    if hasattr(value, "detach"):
        return value[:rows].detach().cpu().clone() if value.ndim else value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {name: first_rows(item, rows) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(first_rows(item, rows) for item in value)
    return value


def _call(module: Any, inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return module(*inputs)
    if isinstance(inputs, Mapping) and _takes_by_name(module, inputs):
        return module(**inputs)
    return module(inputs)


def _takes_by_name(module: Any, inputs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(module.forward).bind(**inputs)
    except (TypeError, ValueError):
        return False
    return True


def _to_arrays(value: Any, word: str) -> Any:
    """Tensors as arrays; several under names such as ``input_0 input_1 …``, for a signature has named ones."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {str(name): _to_arrays(item, word) for name, item in value.items()}
    if isinstance(value, list | tuple):
        arrays = [_to_arrays(item, word) for item in value]
        return arrays[0] if len(arrays) == 1 else {f"{word}_{index}": array for index, array in enumerate(arrays)}
    return value
