from __future__ import annotations

from pathlib import Path

import pytest

from support.pictures import write_classes
from trainserve.errors import DataError, UserError
from trainserve.evaluate.labelled import Labelled, Trained, find
from trainserve.spec.classifier import Classifier
from trainserve.train.imagefolder import scan_for

CLASSES = ("1", "10", "2")


def trained(path: Path, **data: object) -> Trained:
    classifier = Classifier.model_validate(
        {"metadata": {"name": "m"}, "spec": {"data": {"path": str(path), "valSplit": 0.3, **data}}}
    )
    return Trained(classifier, scan_for(classifier).digest)


def pairs(found: Labelled, classes: tuple[str, ...] = CLASSES) -> set[tuple[str, str]]:
    return {(path, classes[label]) for path, label in zip(found.pictures, found.labels, strict=True)}


def test_classes_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    """Case IMG-05: folders 1, 10, 2 sort as text; the model may have them in any order."""
    write_classes(tmp_path, {"1": 1, "10": 1, "2": 1})
    for classes in (CLASSES, ("2", "1", "10", "7")):
        found = find(classes, tmp_path, None)
        assert pairs(found, classes) == {("1/0000.png", "1"), ("10/0000.png", "10"), ("2/0000.png", "2")}


def test_the_model_s_classes_without_pictures_are_told(tmp_path: Path) -> None:
    found = find(CLASSES, write_classes(tmp_path, {"2": 2}), None)
    assert found.labels == (2, 2)
    assert found.notices == ("no pictures of 2 of the model's 3 classes: 1, 10",)


def test_unknown_classes_are_refused_with_a_list_or_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 1, "Dog": 3, "owl": 2})
    with pytest.raises(DataError, match=r"does not know: Dog \(3, did you mean dog\?\), owl \(2\); it knows cat, dog"):
        find(("cat", "dog"), tmp_path, None)
    found = find(("cat", "dog"), tmp_path, None, ignore_unknown=True)
    assert found.pictures == ("cat/0000.png",)
    assert found.notices[0] == "5 pictures of classes that the model does not know are left out: Dog, owl"


def test_nothing_in_common_is_refused_in_any_case(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 1})
    with pytest.raises(DataError, match=r"none of its classes \(cat\) is one of the model's \(1, 10, 2\)"):
        find(CLASSES, tmp_path, None, ignore_unknown=True)


def test_an_empty_folder_of_an_unknown_class_does_no_harm(tmp_path: Path) -> None:
    write_classes(tmp_path, {"1": 1, "10": 1, "2": 1, "later": 0})
    assert len(find(CLASSES, tmp_path, None).pictures) == 3


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (None, {("val/1/0000.png", "1")}),
        ("val", {("val/1/0000.png", "1")}),
        ("train", {("train/2/0000.png", "2")}),
        ("all", {("val/1/0000.png", "1"), ("train/2/0000.png", "2")}),
    ],
)
def test_train_and_val_folders_may_have_other_classes_each(
    tmp_path: Path, split: str | None, expected: set[tuple[str, str]]
) -> None:
    write_classes(tmp_path / "train", {"2": 1})
    write_classes(tmp_path / "val", {"1": 1})
    assert pairs(find(CLASSES, tmp_path, None, split=split)) == expected  # type: ignore[arg-type]


def test_a_folder_without_parts_has_no_split(tmp_path: Path) -> None:
    write_classes(tmp_path, {"1": 1})
    with pytest.raises(UserError, match=r"--split val: .* has no train/ and val/"):
        find(CLASSES, tmp_path, None, split="val")


def test_a_test_folder_is_no_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", {"1": 1})
    with pytest.raises(DataError) as caught:
        find(CLASSES, tmp_path, None)
    assert caught.value.hint == f"give one part of it: {tmp_path / 'test'}"


@pytest.mark.parametrize("moved", [False, True])
def test_the_pictures_of_the_training_have_its_split_also_where_they_are_now(tmp_path: Path, moved: bool) -> None:
    counts = {"1": 10, "10": 10, "2": 10}
    origin = trained(write_classes(tmp_path / "then", counts))
    folder = write_classes(tmp_path / "now", counts) if moved else None
    expected = scan_for(origin.classifier)
    assert find(CLASSES, folder, origin).pictures == tuple(sample.path for sample in expected.val)
    assert find(CLASSES, folder, origin).notices == ()
    assert find(CLASSES, folder, origin, split="train").pictures == tuple(sample.path for sample in expected.train)
    assert len(find(CLASSES, folder, origin, split="all").pictures) == 30


def test_other_pictures_of_the_same_classes_are_all_asked(tmp_path: Path) -> None:
    origin = trained(write_classes(tmp_path / "then", {"1": 10, "10": 10, "2": 10}))
    found = find(CLASSES, write_classes(tmp_path / "new", {"1": 10, "10": 10, "2": 11}), origin)
    assert len(found.pictures) == 31
    assert found.notices == ()


def test_pictures_that_have_changed_since_the_training_are_told(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "then", {"1": 10, "10": 10, "2": 10})
    origin = trained(folder)
    (folder / "1" / "0003.png").unlink()
    (notice,) = find(CLASSES, None, origin).notices
    assert "have changed since the training" in notice
    assert find(CLASSES, folder, origin).notices == (notice,)  # the same folder, given


def test_what_the_training_left_out_is_left_out_again(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "then", {"1": 10, "10": 10, "2": 10})
    whole = trained(folder, skipBad=True)
    bad = [sample.path for sample in scan_for(whole.classifier).val[:2]]
    digest = scan_for(whole.classifier).without(bad).digest
    found = find(CLASSES, None, Trained(whole.classifier, digest, tuple(bad)))
    assert len(found.pictures) == 7
    assert found.notices == ()
    assert not set(bad) & set(found.pictures)
    # A bundle that was copied does not know which they were, and so not whether anything has changed.
    assert find(CLASSES, None, Trained(whole.classifier, digest)).notices == ()


def test_what_is_ignored_is_counted_once(tmp_path: Path) -> None:
    write_classes(tmp_path, {"1": 1, "10": 1, "2": 1})
    (tmp_path / ".hidden").touch()
    (tmp_path / "1" / "notes.txt").touch()
    assert find(CLASSES, tmp_path, None).notices == (
        "ignored 1 hidden file (.hidden), 1 file that is no picture (1/notes.txt)",
    )


def test_pictures_that_are_gone_and_those_never_named(tmp_path: Path) -> None:
    origin = trained(write_classes(tmp_path / "then", {"1": 10, "10": 10, "2": 10}))
    (tmp_path / "then").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"are not in .*then any more"):
        find(CLASSES, None, origin)
    with pytest.raises(UserError, match="which pictures"):
        find(CLASSES, None, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file, not a folder"),
        (lambda path: path.mkdir(), "holds no pictures in class folders"),
        (lambda path: write_classes(path / ".hidden", {"1": 1}), "holds no pictures in class folders"),
        (lambda path: write_classes(path, {".": 3}), "holds 3 pictures directly, without class folders"),
        (lambda path: path.symlink_to(path), "data"),
    ],
)
def test_what_is_no_folder_of_pictures(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        find(CLASSES, tmp_path / "data", None)
