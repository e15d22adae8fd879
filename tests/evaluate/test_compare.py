from __future__ import annotations

from typing import Any

from trainserve.evaluate.compare import Comparison, Subject, compare
from trainserve.evaluate.paired import Answered
from trainserve.spec.classifier import ClassifierSpec

RIGHT = {"1.png": Answered("x", "x")}


def subject(name: str = "a", **values: Any) -> Subject:
    spec = ClassifierSpec.model_validate({"data": {"path": "/data"}, "train": values.pop("train", {})})
    filled: dict[str, Any] = {
        "spec": spec.model_dump(mode="json", by_alias=True),
        "data": {"path": "/data"},
        "environment": {},
        "result": {},
        "classes": ("x", "y"),
        "answers": RIGHT,
        "where": frozenset({"/data"}),
        **values,
    }
    return Subject(name=name, **filled)


def spec_of(found: Comparison) -> dict[str, tuple[tuple[Any, ...], tuple[bool, ...]]]:
    return {row.field: (row.values, row.default) for row in found.spec}


def test_equals_differ_in_nothing() -> None:
    found = compare([subject(), subject("b")])
    assert found.spec == ()
    assert all(row.same for row in (*found.data, *found.environment, *found.result))
    assert found.only_classes == ((), ())


def test_fields_that_differ_show_both_values_and_which_is_the_default() -> None:
    found = compare([subject(), subject("b", train={"lr": 0.05, "momentum": 0.9})])
    assert spec_of(found) == {"train.lr": ((0.1, 0.05), (True, False))}


def test_a_spec_of_another_version_lacks_a_field_or_has_one_more() -> None:
    old, new = subject().spec, {**subject().spec, "magic": {"level": 3}}
    old = {**old, "train": {key: value for key, value in old["train"].items() if key != "seed"}}
    found = compare([subject(spec=old), subject("b", spec=new)])
    assert spec_of(found) == {"magic.level": ((None, 3), (False, False))}


def test_three_are_compared_with_the_first() -> None:
    other = subject("b", train={"seed": 1}, result={"top1": 0.5})
    found = compare([subject(), other, subject("c")])
    assert spec_of(found) == {"train.seed": ((0, 1, 0), (True, False, True))}
    assert [(item.a, item.b) for item in found.pairs] == [("a", "b"), ("a", "c")]
    (row,) = found.result
    assert (row.field, row.values, row.same) == ("top1", (None, 0.5, None), False)


def test_classes_that_not_all_have() -> None:
    found = compare([subject(classes=("x", "y", "z")), subject("b", classes=("w", "x", "y"))])
    assert found.only_classes == (("z",), ("w",))
    assert compare([subject(classes=None), subject("b")]).only_classes == ((), ())  # a run that has not ended


def test_pictures_are_compared_only_where_they_are_the_same() -> None:
    (item,) = compare([subject(), subject("b", where=frozenset({"/data", "digest"}))]).pairs
    assert item.paired is not None
    assert item.paired.common == 1
    (item,) = compare([subject(), subject("b", where=frozenset({"/other"}))]).pairs
    assert item.paired is None
    assert item.reason.startswith("they were validated on other pictures")
    (item,) = compare([subject(answers=None), subject("b")]).pairs
    assert item.reason.startswith("a: no predictions.jsonl")
    (item,) = compare([subject(), subject("b", answers={"2.png": Answered("x", "x")})]).pairs
    assert item.reason == "no picture was in both validations"
