"""Outputs and targets, batch by batch, become the report that all of them at once would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from overt.errors import ConfigurationError
from overt.evaluation.classification import classify
from overt.evaluation.predictions import Predictions, ReadPredictions, evaluate_predictions
from overt.evaluation.regression import regress

random = np.random.default_rng(0)
LOGITS = random.normal(size=(50, 3)).astype(np.float32)
CLASSES = random.integers(0, 3, 50)
BINARY_LOGITS = random.normal(size=50)
BINARY = (BINARY_LOGITS + random.normal(size=50) > 0).astype(np.int64)


def collected(outputs: Any, targets: Any, *, as_tensors: bool = False, batch: int = 7, **how: Any) -> Predictions:
    predictions = Predictions()
    if as_tensors:
        torch = pytest.importorskip("torch")
        outputs, targets = torch.as_tensor(outputs), torch.as_tensor(targets)
    for begin in range(0, len(outputs), batch):
        predictions.add(outputs[begin : begin + batch], targets[begin : begin + batch], **how)
    return predictions


def whole(scores: Any) -> Any:
    return classify(CLASSES, scores.argmax(1), scores=scores, classes=[0, 1, 2])


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize(
    ("outputs", "meaning", "note"),
    [
        (LOGITS, "logits", "they were called logits"),
        (LOGITS, "preds", "rows do not sum to one"),
        (log_softmax(LOGITS, axis=1), "preds", "rows do not sum to one"),
        (softmax(LOGITS, axis=1), "preds", None),
        (softmax(LOGITS, axis=1), "probs", None),
        (LOGITS, "probs", "were called probs and do not sum to one"),
    ],
)
def test_scores_of_classes_become_probabilities(outputs: Any, meaning: Any, note: str | None, as_tensors: bool) -> None:
    report = collected(outputs, CLASSES, as_tensors=as_tensors, meaning=meaning).report()
    expected = whole(softmax(LOGITS.astype(np.float64), axis=1))
    assert report.metrics == pytest.approx(dict(expected.metrics), rel=1e-6)
    assert report.tables["confusion_matrix"] == expected.tables["confusion_matrix"]
    softened = [each for each in report.notes if "softmax" in each]
    assert softened == [] if note is None else note in softened[0]


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_])
def test_one_score_per_sample_is_that_of_the_second_class(shape: Any, dtype: Any) -> None:
    targets = BINARY.astype(dtype).reshape(shape)
    report = collected(BINARY_LOGITS.reshape(shape), targets, meaning="logits").report(class_names=["no", "yes"])
    chances = expit(BINARY_LOGITS)
    expected = classify(BINARY, (chances >= 0.5).astype(int), scores=chances, class_names=["no", "yes"])
    assert report.kind == "binary"
    assert report.metrics == pytest.approx(dict(expected.metrics))
    assert "the sigmoid was taken of the outputs: they were called logits" in report.notes
    by_looks = collected(BINARY_LOGITS, BINARY).report()
    assert by_looks.metrics == pytest.approx(dict(expected.metrics))
    assert "lie outside 0 to 1" in by_looks.notes[0]
    assert not [note for note in collected(chances, BINARY).report().notes if "sigmoid" in note]


def test_two_columns_of_scores_are_two_classes() -> None:
    report = collected(LOGITS[:, :2], np.minimum(CLASSES, 1), meaning="logits").report()
    assert report.kind == "binary"
    assert "roc" in report.curves


def test_whole_numbers_are_labels() -> None:
    predicted = (CLASSES + (np.arange(50) % 5 == 0)) % 3
    report = collected(predicted, CLASSES).report(class_names=["a", "b", "c"])
    assert report["accuracy"] == 0.8
    assert report.tables["confusion_matrix"]["labels"] == ["a", "b", "c"]
    assert collected(predicted.astype(np.float32), CLASSES).report()["accuracy"] == 0.8


def test_columns_of_targets_are_labels_that_may_occur_together() -> None:
    targets = (LOGITS > 0.3).astype(np.int64)
    report = collected(LOGITS, targets, meaning="logits").report()
    assert report.kind == "multilabel"
    assert 0 < report["recall"] <= 1


@pytest.mark.parametrize("as_tensors", [False, True])
def test_numbers_are_a_regression(as_tensors: bool) -> None:
    true = random.normal(size=(50, 2))
    predicted = true + 0.1
    report = collected(predicted, true, as_tensors=as_tensors).report()
    assert dict(report.metrics) == dict(regress(true, predicted).metrics)
    column = collected(predicted[:, :1], true[:, 0], as_tensors=as_tensors).report()
    assert column["rmse"] == pytest.approx(0.1)


def test_targets_to_be_ignored_are_left_out_and_counted() -> None:
    targets = CLASSES.copy()
    targets[:4] = -100
    report = collected(LOGITS, targets, meaning="logits").report()
    assert report.n_samples == 46
    assert "4 samples with a negative target are left out" in report.notes


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [(np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 4), int)), (np.zeros((2, 3)), np.zeros((2, 2), int))],
)
def test_what_has_no_row_per_sample_is_refused(outputs: Any, targets: Any) -> None:
    with pytest.raises(ConfigurationError, match="flatten them before they are returned"):
        collected(outputs, targets).report()


def test_batches_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"same samples \(got 3 and 2\)"):
        Predictions().add(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ConfigurationError, match="no predictions"):
        Predictions().report()


def test_memory_is_bounded_and_a_report_on_a_part_says_so() -> None:
    predictions = Predictions(max_values=100)
    for begin in range(0, 50, 10):
        predictions.add(LOGITS[begin : begin + 10], CLASSES[begin : begin + 10], meaning="logits")
    predictions.add(LOGITS[:1], CLASSES[:1], meaning="logits")  # would fit again, and is left out all the same
    assert (len(predictions), predictions.is_cut) == (51, True)
    report = predictions.report()
    assert report.n_samples == 20
    assert report.notes[0].startswith("evaluated on the first 20 of 51 samples")


def test_a_view_does_not_keep_the_large_tensor_that_it_is_a_part_of() -> None:
    torch = pytest.importorskip("torch")
    sequence = torch.zeros(4, 1000, 3)
    predictions = Predictions()
    predictions.add(sequence[:, -1], torch.zeros(4, dtype=torch.long))
    assert predictions._outputs[0].untyped_storage().nbytes() == 4 * 3 * 4


def test_a_buffer_that_batch_after_batch_is_written_into_is_kept_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    for outputs, targets in ((np.zeros((2, 2)), np.zeros(2, int)), (torch.zeros(2, 2), torch.zeros(2, dtype=int))):
        predictions = Predictions()
        for right in (0, 1):
            outputs[:] = 0
            outputs[:, right] = 1
            targets[:] = right
            predictions.add(outputs, targets)
        assert predictions.report().tables["confusion_matrix"]["matrix"] == [[2, 0], [0, 2]]


def test_tensors_are_kept_as_they_are_without_history_and_unread() -> None:
    torch = pytest.importorskip("torch")
    outputs = torch.zeros(3, 2, device="meta", requires_grad=True)  # has no values: reading it would raise
    predictions = Predictions()
    predictions.add(outputs * 2, torch.zeros(3, device="meta", dtype=torch.long))
    assert not predictions._outputs[0].requires_grad


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_one_transfer_brings_over_every_type_unchanged(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from overt.evaluation.predictions import _in_one_transfer

    outputs = torch.randn(7, 3).to(getattr(torch, dtype))
    targets = torch.arange(7)
    read, labels = _in_one_transfer(torch, outputs, targets)
    assert np.array_equal(read.astype(np.float64), outputs.double().numpy())
    assert labels.tolist() == list(range(7))
    assert labels.dtype == np.int64


def test_parts_of_several_processes_are_one() -> None:
    halves = [collected(LOGITS[part], CLASSES[part], meaning="logits").read() for part in (slice(30), slice(30, 50))]
    joined = ReadPredictions.join([halves[0], None, halves[1]])
    assert joined is not None
    alone = collected(LOGITS, CLASSES, meaning="logits").report()
    assert dict(evaluate_predictions(joined).metrics) == dict(alone.metrics)
    assert ReadPredictions.join([None, None]) is None
