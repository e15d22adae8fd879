"""Labelled pictures to ask a model about: any folder of class folders, or the very split that the model trained with.

Classes are matched by name, never by index. A folder's class that the model does not know is refused, or left out
when asked to; a class of the model without pictures is only told. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trainserve.errors import DataError, UserError, nearest
from trainserve.package.description import ModelDescription
from trainserve.spec import location
from trainserve.spec.classifier import Classifier
from trainserve.train.folders import SUFFIXES, Passed, entries, ids, pictures
from trainserve.train.imagefolder import SHOWN, SPLIT_NAMES, Listing, neighbour, survey_for

Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class Trained:
    """What a model says of the pictures it was trained with."""

    classifier: Classifier
    digest: str  # of their names (`Listing.digest`)
    bad: tuple[str, ...] = ()  # pictures that were left out of the training

    @property
    def path(self) -> Path:
        return Path(self.classifier.spec.data.path)


@dataclass(frozen=True)
class Labelled:
    """Pictures with the index of their class among the model's."""

    root: Path
    pictures: tuple[str, ...]  # below root
    labels: tuple[int, ...]
    what: str  # in words, such as "validation pictures of the training"
    notices: tuple[str, ...] = ()


def trained(description: ModelDescription, bad: Sequence[str] = ()) -> Trained | None:
    """Where a bundle's model comes from; None where the bundle does not say, or says what we cannot read."""
    lineage = description.lineage
    try:
        classifier = Classifier.model_validate({"metadata": {"name": "model"}, "spec": lineage.get("spec")})
    except ValidationError:
        return None
    return Trained(classifier, str(lineage.get("dataDigest", "")), tuple(bad))


def find(
    classes: Sequence[str],
    folder: Path | None,
    origin: Trained | None,
    *,
    split: Split | None = None,
    ignore_unknown: bool = False,
) -> Labelled:
    """The pictures of `folder` for a model of these classes.

    Without a folder, and where it is the one of the training or holds the very same pictures, the split is the
    training's, and `split` is val unless given. Elsewhere it is val where there are train/ and val/, else all. Raises
    UserError for what is not given, DataError for a folder without pictures or with classes that are not the model's.
    """
    if folder is None and origin is None:
        raise UserError("which pictures? the model does not say what it was trained with", hint="give --data FOLDER")
    if origin is not None:
        listing, changed = _listing_of(origin, folder)
        if listing is not None:
            return _of_listing(listing, classes, split or "val", ignore_unknown, changed)
    assert folder is not None
    return _of_folder(folder, classes, split, ignore_unknown)


def trained_with(found: Labelled, origin: Trained) -> int:
    """How many of these pictures the model was trained with, as far as it can be known."""
    listing, _ = _listing_of(origin, found.root)
    if listing is None:
        return 0
    return len({sample.path for sample in listing.train} & set(found.pictures))


def _listing_of(origin: Trained, folder: Path | None) -> tuple[Listing | None, bool]:
    """The training's listing where `folder` holds it, and whether its pictures have changed since."""
    path = origin.path if folder is None else folder
    said = origin.classifier.spec.data.path
    if folder is None and isinstance(location.parse(said), location.Url):
        raise DataError(
            f"the pictures that the model was trained with are in {said}, which is no folder of this machine",
            hint="give --data FOLDER with the same ones, or with others of the same classes",
        )
    if folder is None and not path.exists():
        raise DataError(
            f"the pictures that the model was trained with are not in {path} any more",
            hint="give --data FOLDER with others of the same classes; if they have moved, --data FOLDER --split val",
        )
    own = folder is None or _same_folder(path, origin.path)
    spec = origin.classifier.spec
    moved = spec.model_copy(update={"data": spec.data.model_copy(update={"path": str(path)})})
    survey = survey_for(origin.classifier.model_copy(update={"spec": moved}))
    if survey.refusals:
        if folder is None:
            raise survey.refusals[0]
        return None, False  # such as one class only: no folder to train with, but perhaps to evaluate with
    listing = survey.listing.without(origin.bad)
    if listing.digest == origin.digest:
        return listing, False
    # Of a bundle alone it is not known which bad pictures were left out, so its digest may well be another.
    return (listing, not spec.data.skip_bad or bool(origin.bad)) if own else (None, False)


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _of_listing(
    listing: Listing, classes: Sequence[str], split: Split, ignore_unknown: bool, changed: bool
) -> Labelled:
    samples = {"train": listing.train, "val": listing.val, "all": tuple(listing.samples())}[split]
    named = [(sample.path, listing.classes[sample.label]) for sample in samples]
    what = {"train": "training pictures", "val": "validation pictures", "all": "all pictures"}[split]
    notices: tuple[str, ...] = ()
    if changed:
        notices = (
            f"the pictures in {listing.root} have changed since the training: "
            "their split is another, and some may have been trained with",
        )
    return _matched(listing.root, named, classes, ignore_unknown, f"{what} of the training", notices)


def _of_folder(folder: Path, classes: Sequence[str], split: Split | None, ignore_unknown: bool) -> Labelled:
    _refuse_no_folder(folder)
    passed = Passed()
    folders, files = entries(folder, "", passed)
    if {"train", "val"} <= set(folders):
        parts = ["train", "val"] if split == "all" else [split or "val"]
        what = "pictures of " + " and ".join(f"{part}/" for part in parts)
    elif split in ("train", "val"):
        raise UserError(
            f"--split {split}: {folder} has no train/ and val/, and is not known as what the model was trained with",
            hint="leave --split out to take all its pictures",
        )
    else:
        parts, what = [""], "all pictures"
        passed = Passed()  # the folder is read again, below
    named: list[tuple[str, str]] = []
    for part in parts:
        root, prefix = folder / part, f"{part}/" if part else ""
        names, files = entries(root, prefix, passed)
        above = ids(root.absolute())
        for name in names:
            named += [(entry.path, name) for entry in pictures(root / name, f"{prefix}{name}", passed, above)]
    if passed.unreadable:
        raise passed.unreadable[0]
    if not named:
        direct = sum(name.lower().endswith(SUFFIXES) for name in files)
        raise DataError(
            f"{folder} holds "
            + (f"{direct} pictures directly, without" if direct else "no pictures in")
            + " class folders",
            hint=f"give the folder above, {folder.absolute().parent}, if that holds one folder a class"
            if direct
            else "one folder a class, called as the model's classes are, with pictures inside",
        )
    notice = passed.notice()
    return _matched(folder, named, classes, ignore_unknown, what, (notice,) if notice else ())


def _refuse_no_folder(folder: Path) -> None:
    try:
        there, is_folder = folder.exists(), folder.is_dir()
    except OSError as error:  # a name of 300 letters, a link to itself
        raise DataError(
            f"data folder {folder} cannot be read: {error.strerror}", hint="give a folder that holds one folder a class"
        ) from None
    if not is_folder:
        alike = None if there else neighbour(folder)
        guess = f", did you mean {alike}?" if alike else ""
        what = f"{folder} is a file, not a folder" if there else f"data folder {folder} does not exist{guess}"
        raise DataError(what, hint="give a folder that holds one folder a class")


def _matched(
    root: Path,
    named: list[tuple[str, str]],
    classes: Sequence[str],
    ignore_unknown: bool,
    what: str,
    notices: tuple[str, ...],
) -> Labelled:
    """Pictures (path, class name) with the model's indexes."""
    index = {name: label for label, name in enumerate(classes)}
    counts = Counter(name for _, name in named)
    unknown = sorted(set(counts) - set(index))
    if unknown and not ignore_unknown:
        raise _unknown_classes(root, unknown, counts, classes)
    kept = [(path, index[name]) for path, name in named if name in index]
    if not kept:
        raise DataError(
            f"{root}: none of its classes ({_some(sorted(counts))}) is one of the model's ({_some(classes)})"
            if named
            else f"{root}: there are no {what}"
        )
    if unknown:
        left_out = sum(counts[name] for name in unknown)
        notices += (f"{left_out} pictures of classes that the model does not know are left out: {_some(unknown)}",)
    without = [name for name in classes if not counts[name]]
    if without:
        notices += (f"no pictures of {len(without)} of the model's {len(classes)} classes: {_some(without)}",)
    return Labelled(root, tuple(path for path, _ in kept), tuple(label for _, label in kept), what, notices)


def _unknown_classes(root: Path, unknown: list[str], counts: Counter[str], classes: Sequence[str]) -> DataError:
    shown = []
    for name in unknown[:SHOWN]:
        alike = nearest(name, classes)
        shown.append(f"{name} ({counts[name]}{f', did you mean {alike}?' if alike else ''})")
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    if {name.lower() for name in counts} <= SPLIT_NAMES:
        hint = f"give one part of it: {root / sorted(counts)[-1]}"
    else:
        hint = "rename the folders, or leave their pictures out with --ignore-unknown"
    return DataError(
        f"{root}: class{'es' * (len(unknown) > 1)} that the model does not know: {', '.join(shown)}{more}; "
        f"it knows {_some(classes)}",
        hint=hint,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
