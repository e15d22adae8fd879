from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainserve.errors import UserError
from trainserve.evaluate.evaluation import NOTHING, Evaluation
from trainserve.evaluate.measures import ConfusedPair, calibration, expected_calibration_error, measure, rank_of
from trainserve.evaluate.results import document
from trainserve.train.metrics import Sums


def evaluation(
    labels: list[int], probabilities: object, classes: tuple[str, ...] | None = None, skipped: tuple = ()
) -> Evaluation:
    table = np.asarray(probabilities, dtype=np.float32).reshape(len(labels), -1)
    names = classes or tuple(f"class {index}" for index in range(table.shape[1]))
    pictures = tuple(f"{index}.png" for index in range(len(labels)))
    return Evaluation("run", names, pictures, Path("data"), np.asarray(labels, np.int64), table, skipped)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    count, classes = draw(st.integers(1, 30)), draw(st.integers(1, 7))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = numbers.normal(size=(count, classes)) * draw(st.sampled_from([0.0, 1.0, 30.0]))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    table = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    # Often not all classes have pictures.
    return evaluation(numbers.integers(0, draw(st.integers(1, classes)), size=count).tolist(), table)


def test_four_pictures_by_hand() -> None:
    """Three classes, the last without pictures; one `cat` taken for a `dog` with 0.8."""
    found = measure(
        evaluation([0, 0, 1, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.6, 0.1], [0, 1, 0]], ("cat", "dog", "owl"))
    )
    assert found.pictures == 4
    assert found.top1 == 0.75
    assert found.top5 == 1
    assert found.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    cat, dog, owl = found.classes
    assert (cat.precision, cat.recall, cat.f1, cat.support, cat.predicted) == (1, 0.5, pytest.approx(2 / 3), 2, 1)
    assert (dog.precision, dog.recall, dog.support, dog.predicted) == (pytest.approx(2 / 3), 1, 2, 3)
    assert dog.f1 == pytest.approx(0.8)
    assert (owl.precision, owl.recall, owl.f1, owl.support, owl.predicted) == (0, 0, 0, 0, 0)
    assert found.macro.f1 == found.weighted.f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.loss == pytest.approx(-np.log([0.9, 0.2, 0.6, 1.0]).mean())
    assert found.confused == (ConfusedPair("cat", "dog", 1, 0.5),)
    assert found.worst == (1,)
    # 0.9, 0.8, 0.6 and 1.0 lie in four bins of one picture each: three right, one wrong.
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.4 + 0) / 4)
    assert [item.count for item in found.bins if item.count] == [1, 1, 1, 1]


def test_pairs_and_worst_mistakes_are_in_order() -> None:
    rows = {0: [0.9, 0.1, 0], 1: [0.2, 0.7, 0.1], 2: [0.1, 0.3, 0.6]}
    answers = [(0, 1), (0, 1), (1, 0), (2, 2), (1, 2), (2, 1), (2, 1)]
    found = measure(
        evaluation([right for right, _ in answers], [rows[given_] for _, given_ in answers], ("a", "b", "c"))
    )
    assert [(pair.actual, pair.predicted, pair.count) for pair in found.confused] == [
        ("a", "b", 2),
        ("c", "b", 2),
        ("b", "a", 1),
        ("b", "c", 1),
    ]
    assert found.worst == (2, 0, 1, 5, 6, 4)


def test_equal_probabilities_go_by_the_order_of_the_classes() -> None:
    same = evaluation([0, 1, 6, 5], np.full((4, 7), 1 / 7))
    assert same.predicted.tolist() == [0, 0, 0, 0]
    assert rank_of(same.probabilities, same.labels).tolist() == [0, 1, 6, 5]
    found = measure(same)
    assert (found.top1, found.top5) == (0.25, 0.5)


def test_a_probability_of_zero_has_a_loss() -> None:
    assert measure(evaluation([1], [[1.0, 0.0]])).loss == pytest.approx(87.3365, abs=1e-3)


NAN = float("nan")


def test_an_answer_that_is_no_number_is_wrong_and_counted() -> None:
    """Also where NaN stands in the place of the right class, and in every column."""
    answers = evaluation([0, 0, 1, 1], [[1, 0], [NAN, 0], [NAN, NAN], [0.75, 0.25]], ("cat", "dog"))
    assert answers.predicted.tolist() == [0, NOTHING, NOTHING, 0]
    assert [answers.predicted_name(index) for index in (1, 3)] == [None, "cat"]
    said = answers.unanswered()
    assert said is not None
    assert said.startswith("2 of 4 answers are no number (NaN), such as that to 1.png, and count as wrong")
    found = measure(answers)
    assert (found.unanswered, found.top1, found.top5) == (2, 0.25, 0.5)
    assert found.confusion.tolist() == [[1, 0], [1, 0]]
    assert [(item.recall, item.support, item.predicted) for item in found.classes] == [(0.5, 2, 2), (0, 2, 0)]
    assert found.confused == (ConfusedPair("dog", "cat", 1, 0.5),)  # of its two pictures
    assert found.worst == (3,)
    assert found.loss == pytest.approx((0 + 2 * 87.3365 - np.log(0.25)) / 4, abs=1e-3)
    assert found.ece == pytest.approx(0.75 / 2)  # of the two answers, one is right with 1 and one wrong with 0.75
    json.dumps(document(answers, found, whole=True), allow_nan=False)


def test_a_network_that_answers_nothing_but_nan_has_measures() -> None:
    answers = evaluation([0, 1, 2], np.full((3, 3), NAN))
    found = measure(answers)
    assert (found.unanswered, found.top1, found.top5, found.ece, found.worst) == (3, 0, 0, 1, ())
    assert found.confusion.tolist() == [[0, 0, 0]] * 3
    json.dumps(document(answers, found, whole=True), allow_nan=False)
    assert measure(evaluation([0], [[NAN]])).confusion.tolist() == [[0]]
    assert measure(evaluation([0], [[1.0]])).unanswered == 0
    assert evaluation([0], [[1.0]]).unanswered() is None


def test_without_a_picture_there_is_nothing_to_measure() -> None:
    nothing = Evaluation(
        "run", ("a", "b"), (), Path("data"), np.zeros(0, np.int64), np.zeros((0, 2), np.float32), (("x.png", "empty"),)
    )
    with pytest.raises(UserError, match=r"data: not one picture could be evaluated; x\.png: empty"):
        measure(nothing)


def test_bins_hold_their_upper_edge() -> None:
    bins = calibration(np.array([0.0, 0.5, 0.5000001, 1.0]), np.array([True, True, False, True]), bins=2)
    assert [item.count for item in bins] == [2, 2]
    assert (bins[0].confidence, bins[0].accuracy) == (0.25, 1.0)
    assert bins[1].accuracy == 0.5
    assert calibration(np.zeros(0), np.zeros(0, bool), bins=1)[0].confidence is None
    assert expected_calibration_error(calibration(np.zeros(0), np.zeros(0, bool))) == 0


@given(evaluations())
@settings(max_examples=30, deadline=None)
def test_what_always_holds(given_: Evaluation) -> None:
    found = measure(given_)
    support = [item.support for item in found.classes]
    assert found.confusion.sum(axis=1).tolist() == support
    assert found.confusion.sum(axis=0).tolist() == [item.predicted for item in found.classes]
    assert found.confusion.sum() == sum(item.count for item in found.bins) == found.pictures
    assert found.confusion.trace() / found.pictures == pytest.approx(found.top1)
    assert found.weighted.recall == pytest.approx(found.top1)
    assert 0 <= found.ece <= 1
    assert 0 <= found.top1 <= found.top5 <= 1
    assert sum(pair.count for pair in found.confused) == len(found.worst) == found.pictures - found.confusion.trace()
    sure = [given_.confidence[index] for index in found.worst]
    assert sure == sorted(sure, reverse=True)


@given(evaluations(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_classes_changes_nothing(given_: Evaluation, random: object) -> None:
    order = list(range(len(given_.classes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    place = np.argsort(order)
    turned = Evaluation(
        given_.source, tuple(given_.classes[k] for k in order), given_.pictures, given_.root, place[given_.labels],
        given_.probabilities[:, order], (),
    )  # fmt: skip
    ties = any(len(set(row.tolist())) < len(row) for row in given_.probabilities)
    before, after = measure(given_), measure(turned)
    assert after.loss == pytest.approx(before.loss)
    assert [item.count for item in after.bins] == [item.count for item in before.bins]
    if not ties:  # these go by the order
        assert after.top1 == before.top1
        assert after.top5 == before.top5
        assert after.ece == pytest.approx(before.ece)
        assert after.macro.f1 == pytest.approx(before.macro.f1)
        assert after.confusion.tolist() == before.confusion[np.ix_(order, order)].tolist()


@given(evaluations())
@settings(max_examples=30, deadline=None)
def test_torch_and_training_count_the_same(given_: Evaluation) -> None:
    logits = torch.from_numpy(given_.probabilities).clamp(min=torch.finfo(torch.float32).tiny).log().double()
    labels = torch.from_numpy(given_.labels)
    sums = Sums()
    sums.add(logits, labels, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    loss, top1, top5 = sums.means()
    found = measure(given_)
    assert found.loss == pytest.approx(loss, abs=1e-5)
    if all(len(set(row)) == len(row) for row in logits.tolist()):  # torch leaves ties open
        assert (found.top1, found.top5) == (pytest.approx(top1), pytest.approx(top5))
