"""Which arguments of a loss are outputs and targets, and what the outputs are."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 - torch may be absent
from torch.nn import functional  # noqa: E402

from overt.evaluation.losses import given_to  # noqa: E402

LOGITS, CLASSES = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])


class OwnCrossEntropy(nn.CrossEntropyLoss):
    """A loss of the user's."""


def margin(scores: Any, classes: Any) -> Any:
    return scores.sum()


@pytest.mark.parametrize(
    ("loss", "meaning"),
    [
        (functional.cross_entropy, "logits"),
        (nn.CrossEntropyLoss(), "logits"),
        (OwnCrossEntropy(), "logits"),
        (functional.binary_cross_entropy, "probs"),
        (nn.MSELoss(), "preds"),
        (margin, "logits"),
    ],
)
def test_a_loss_is_known_by_its_name_and_its_class(loss: Any, meaning: str) -> None:
    for args, kwargs in (((LOGITS, CLASSES), {}), ((LOGITS,), {"target": CLASSES})):
        given = given_to(loss, args, kwargs)
        assert given is not None
        assert (given.outputs is LOGITS, given.targets is CLASSES, given.meaning) == (True, True, meaning)
        assert given.are_rows


@pytest.mark.parametrize(
    ("loss", "args"),
    [
        (functional.kl_div, (LOGITS, LOGITS)),
        (functional.cross_entropy, (LOGITS,)),
        (functional.cross_entropy, (LOGITS, [0, 1, 2, 0])),
    ],
    ids=["an unknown loss", "no target", "no tensor"],
)
def test_nothing_is_guessed(loss: Any, args: tuple[Any, ...]) -> None:
    assert given_to(loss, args, {}) is None


def test_of_probabilities_as_targets_of_a_cross_entropy_the_most_probable_class_is_true() -> None:
    given = given_to(nn.CrossEntropyLoss(), (LOGITS, functional.one_hot(CLASSES, 3).float() * 0.9), {})
    assert given is not None
    assert given.targets.tolist() == CLASSES.tolist()


@pytest.mark.parametrize("shapes", [((4, 3, 5, 5), (4, 5, 5)), ((), ()), ((4,), (3,))], ids=str)
def test_pixels_and_single_values_are_no_rows(shapes: Any) -> None:
    given = given_to(functional.mse_loss, tuple(torch.zeros(shape) for shape in shapes), {})
    assert given is not None
    assert not given.are_rows


@pytest.mark.parametrize(
    ("loss", "args", "kwargs"),
    [
        (nn.CrossEntropyLoss(ignore_index=0), (), {}),
        (nn.NLLLoss(ignore_index=0), (), {}),
        (functional.cross_entropy, (), {"ignore_index": 0}),
        (functional.cross_entropy, (None, None, 0), {}),
    ],
)
def test_a_target_that_a_loss_ignores_is_a_negative_one(loss: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    given = given_to(loss, (LOGITS, CLASSES, *args), kwargs)
    assert given is not None
    assert given.targets.tolist() == [-1 if target == 0 else target for target in CLASSES.tolist()]
