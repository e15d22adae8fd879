from __future__ import annotations

from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainserve.evaluate.paired import Answered, ClassDifference, Flip, mcnemar, pair

Answers = dict[str, Answered]

answers = st.dictionaries(
    st.sampled_from([f"{number}.png" for number in range(12)]),
    st.builds(Answered, st.sampled_from("xyz"), st.sampled_from("xyz")),
    max_size=12,
)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (0, 1, 1.0),
        (1, 7, 2 * (1 + 8) / 2**8),  # 0 or 1 of 8 coins, either way
        (0, 10, 2 / 2**10),
        (5, 26, 2 * sum(comb(31, heads) for heads in range(6)) / 2**31),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)


def test_an_answer_that_was_no_number_is_wrong_and_counted() -> None:
    a = {"1": Answered("x", "x"), "2": Answered("x", None), "3": Answered("y", None)}
    b = {"1": Answered("x", None), "2": Answered("x", "x"), "3": Answered("y", None)}
    found = pair(a, b)
    assert found is not None
    assert (found.a_unanswered, found.b_unanswered) == (2, 2)
    assert (found.only_a_right, found.only_b_right, found.both_wrong) == (1, 1, 1)
    assert found.flips == (Flip("1", "x", "x", None), Flip("2", "x", None, "x"))


def test_two_models_on_three_common_pictures() -> None:
    a = {"1": Answered("x", "x"), "2": Answered("x", "y"), "3": Answered("y", "y"), "4": Answered("y", "y")}
    b = {"1": Answered("x", "y"), "2": Answered("x", "z"), "3": Answered("y", "y"), "5": Answered("y", "y")}
    found = pair(a, b)
    assert found is not None
    assert (found.common, found.only_in_a, found.only_in_b) == (3, 1, 1)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (1, 1, 0, 1)
    assert (found.a, found.b) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found.flips == (Flip("1", "x", "x", "y"),)
    assert found.classes == (ClassDifference("x", 2, 0.5, 0.0), ClassDifference("y", 1, 1.0, 1.0))


def test_a_picture_that_changed_its_class_is_not_compared() -> None:
    assert pair({"1": Answered("x", "x")}, {"1": Answered("y", "x")}) is None
    assert pair({}, {}) is None


@given(answers, answers)
@settings(deadline=None)
def test_what_always_holds(a: Answers, b: Answers) -> None:
    found, turned = pair(a, b), pair(b, a)
    if found is None or turned is None:
        assert found is turned is None
        return
    assert found.both_right + found.only_a_right + found.only_b_right + found.both_wrong == found.common
    assert len(found.flips) == found.only_a_right + found.only_b_right
    assert 0 < found.p <= 1
    assert found.p == pytest.approx(turned.p)
    assert (found.a, found.b) == (turned.b, turned.a)
    assert sum(item.pictures for item in found.classes) == found.common
    assert sum(item.a * item.pictures for item in found.classes) == pytest.approx(found.a * found.common)


@given(answers)
@settings(deadline=None)
def test_a_model_does_not_differ_from_itself(a: Answers) -> None:
    found = pair(a, a)
    if a:
        assert found is not None
        assert (found.flips, found.p, found.only_in_a) == ((), 1.0, 0)
