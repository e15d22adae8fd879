"""The pictures of a folder: which classes, which pictures for training, which for validation.

Either `<path>/train/<class>/...` and `<path>/val/<class>/...`, or `<path>/<class>/...` with a stratified share held
out. Class folders are sorted as text, as torchvision's ImageFolder does; everywhere else the folder's name travels, so
a class called "10" stays "10" whatever its index. Imports no torch: the command line asks before anything starts.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path

from trainserve.errors import DataError, nearest
from trainserve.spec.classifier import Classifier, DataSpec
from trainserve.train.folders import SUFFIXES as SUFFIXES  # noqa: PLC0414  others read it here
from trainserve.train.folders import Entry, Id, Passed, as_text, entries, ids, pictures

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """One picture: its path below the listing's root, its class's index, size in bytes and time of change."""

    path: str
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What was found, in a fixed order. Pictures are not opened for it."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    notices: tuple[str, ...] = ()  # what was ignored, in words

    def samples(self) -> Iterator[Sample]:
        yield from self.train
        yield from self.val

    @property
    def fingerprint(self) -> str:
        """SHA-256 of classes, paths, sizes and times: the same files, unchanged, on this machine."""
        return _digest(self.classes, (f"{s.path}\0{s.size}\0{s.mtime_ns}" for s in self.samples()))

    @property
    def digest(self) -> str:
        """SHA-256 of classes and the names of both parts: the same on every node that has the same pictures."""
        return _digest(self.classes, [*(s.path for s in self.train), "\0val", *(s.path for s in self.val)])

    def without(self, paths: Iterable[str]) -> Listing:
        """The same listing less some pictures; classes and their indexes stay."""
        gone = frozenset(paths)
        if not gone:
            return self
        train, val = (tuple(s for s in part if s.path not in gone) for part in (self.train, self.val))
        return replace(self, train=train, val=val)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Pictures of each class: (training, validation)."""
        train, val = (Counter(s.label for s in part) for part in (self.train, self.val))
        return {name: (train[index], val[index]) for index, name in enumerate(self.classes)}


def _digest(classes: Iterable[str], lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in (*classes, "\0pictures", *lines):
        digest.update(os.fsencode(line) + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class Survey:
    """Everything there is to say of a folder: what could be listed, and every reason not to train on it."""

    listing: Listing
    refusals: tuple[DataError, ...]
    passed: Passed


def scan(path: Path, *, val_split: float = 0.2, seed: int = 0, allow_empty_classes: bool = False) -> Listing:
    """List the pictures below `path`.

    Without `val/`, ceil(val_split x pictures) are held out, shared among the classes by largest remainder, the same
    ones for the same seed; each class keeps at least one picture for training. Raises DataError in words: the first
    refusal of `survey`.
    """
    found = survey(path, val_split=val_split, seed=seed, allow_empty_classes=allow_empty_classes)
    if found.refusals:
        raise found.refusals[0]
    return found.listing


def survey(path: Path, *, val_split: float = 0.2, seed: int = 0, allow_empty_classes: bool = False) -> Survey:
    """`scan` that goes on after a refusal, as far as it can: classes of `train/` and `val/` that differ are joined."""
    passed = Passed()
    refusals: list[DataError] = []
    nothing = Listing(path, (), (), ())
    try:
        there = path.exists()
    except OSError as error:  # a name of 300 letters, a link to itself
        hint = "give the folder that holds one folder a class"
        return Survey(nothing, (DataError(f"data folder {path} cannot be read: {error.strerror}", hint=hint),), passed)
    if not there:
        hint = "give the folder that holds one folder a class"
        alike = neighbour(path)
        guess = f", did you mean {alike}?" if alike else ""
        return Survey(nothing, (DataError(f"data folder {path} does not exist{guess}", hint=hint),), passed)
    if not path.is_dir():
        hint = "give the folder that holds one a class"
        return Survey(nothing, (DataError(f"{path} is a file, not a folder of pictures", hint=hint),), passed)
    folders, files = entries(path, "", passed)
    extra: tuple[str, ...] = ()
    if {"train", "val"} <= set(folders):
        others = [name for name in folders if name not in {"train", "val"}]
        passed.others += files
        parts = [_Part(path / name, f"{name}/", passed) for name in ("train", "val")]
        refusals += _differing(path, *parts)
        classes = sorted({name for part in parts for name in part.classes})
        train, val = (part.samples(classes, allow_empty_classes, refusals) for part in parts)
        extra = (f"{path} has train/ and val/; not used: {', '.join(map(as_text, others))}",) if others else ()
    else:
        refusals += _half_split(path, folders)
        passed = Passed()  # the folder is read again, below
        part = _Part(path, "", passed)
        classes = part.classes
        train, val = part.samples(classes, allow_empty_classes, refusals), []
        try:
            train, val = split(train, len(classes), val_split, seed)
        except DataError as error:
            refusals += [error] if not refusals else []  # else it follows from what is said already
    said = passed.notice()
    notices = (*extra, *((said,) if said else ()))
    found = Listing(path, tuple(classes), tuple(train), tuple(val), notices)
    return Survey(found, (*passed.unreadable, *refusals), passed)


def neighbour(path: Path) -> Path | None:
    """The folder beside `path`, which is not there, whose name is most alike; None where nothing is alike."""
    try:
        beside = [found.name for found in path.parent.iterdir() if found.is_dir()]
    except OSError:
        return None
    alike = nearest(path.name, beside)
    return None if alike is None else path.with_name(alike)


def scan_for(classifier: Classifier) -> Listing:
    """`scan`, as a Classifier says; with a notice where it says something that has no effect."""
    found = survey_for(classifier)
    if found.refusals:
        raise found.refusals[0]
    return found.listing


def survey_for(classifier: Classifier) -> Survey:
    """`survey`, as a Classifier says."""
    data = classifier.spec.data
    found = survey(
        Path(data.path),
        val_split=data.val_split,
        seed=classifier.spec.train.seed,
        allow_empty_classes=data.allow_empty_classes,
    )
    usual = DataSpec.model_fields["val_split"].default  # a spec that went through JSON has every field set
    root = found.listing.root
    if data.val_split != usual and (root / "val").is_dir() and (root / "train").is_dir():
        notice = f"valSplit {data.val_split} has no effect: {root} has a val/ of its own"
        return replace(found, listing=replace(found.listing, notices=(*found.listing.notices, notice)))
    return found


class _Part:
    """The class folders below `root`: all pictures, or those for training, or those for validation."""

    def __init__(self, root: Path, prefix: str, passed: Passed) -> None:
        self.root, self.prefix, self.passed = root, prefix, passed
        self.classes, self.files = entries(root, prefix, passed)

    def samples(self, classes: list[str], allow_empty: bool, refusals: list[DataError]) -> list[Sample]:
        """All pictures, labelled by their place in `classes`. Adds what is wrong to `refusals`."""
        root, passed = self.root, self.passed
        if not self.classes:
            if not passed.unreadable:
                refusals.append(self._without_classes())
            return []
        refusals += _unwritable(root, self.classes)
        passed.others += [f"{self.prefix}{name}" for name in self.files]
        above = ids(root.absolute())
        labels = {name: label for label, name in enumerate(classes)}
        samples = []
        empty = []
        for name in self.classes:
            unlisted = len(passed.unreadable)
            label = labels[name]
            found = [Sample(entry.path, label, entry.size, entry.mtime_ns) for entry in self._pictures(name, above)]
            samples += found
            if not found and len(passed.unreadable) == unlisted:
                empty.append(name)
        if not samples and not passed.unreadable:
            refusals.append(
                DataError(
                    f"{root} holds {len(self.classes)} class folder{'s' * (len(self.classes) != 1)} but no picture",
                    hint=f"pictures end in one of {', '.join(SUFFIXES)}",
                )
            )
            return samples
        if len(self.classes) == 1:
            refusals.append(
                DataError(
                    f"{root} holds one class folder only ({as_text(self.classes[0])}); a classifier needs at least two",
                    hint="give the folder above it if the other classes are there",
                )
            )
        if empty and not allow_empty:
            names = ", ".join(map(as_text, empty[:SHOWN])) + (
                f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
            )
            refusals.append(
                DataError(
                    f"{root}: no picture in class folder{'s' * (len(empty) != 1)} {names}",
                    hint="remove the folder, or keep it as a class without pictures with --allow-empty-classes",
                )
            )
        return samples

    def _pictures(self, name: str, above: frozenset[Id]) -> Iterator[Entry]:
        return pictures(self.root / name, f"{self.prefix}{name}", self.passed, above)

    def _without_classes(self) -> DataError:
        found = [name for name in self.files if name.lower().endswith(SUFFIXES)]
        if found:
            return DataError(
                f"{self.root} holds {len(found)} pictures directly, without class folders",
                hint="make one folder a class and move the pictures into them; the folder's name is the class's name",
            )
        return DataError(
            f"{self.root} holds no class folders", hint="expected one folder a class, with pictures inside"
        )


def _differing(path: Path, train: _Part, val: _Part) -> Iterator[DataError]:
    only_train = sorted(set(train.classes) - set(val.classes))
    only_val = sorted(set(val.classes) - set(train.classes))
    if (only_train or only_val) and train.classes and val.classes:
        sides = [
            f"only in {part}/: {', '.join(map(as_text, names[:SHOWN]))}{' ...' if len(names) > SHOWN else ''}"
            for part, names in (("train", only_train), ("val", only_val))
            if names
        ]
        yield DataError(
            f"{path}: the classes of train/ and val/ differ; {'; '.join(sides)}",
            hint="both need the same class folders; leave val/ out to have a share of train/ held out instead",
        )


def _half_split(path: Path, folders: list[str]) -> Iterator[DataError]:
    """`train/` and `test/` are not two classes."""
    if folders and {name.lower() for name in folders} <= SPLIT_NAMES:
        found = " and ".join(f"{name}/" for name in folders)
        yield DataError(
            f"{path} has {found} but not both train/ and val/",
            hint=f"rename the validation part to val/, or give {path / folders[0]} to have a share of it held out",
        )


def _unwritable(root: Path, classes: list[str]) -> Iterator[DataError]:
    """A class's name is written into many files, all of them UTF-8."""
    wrong = [os.fsencode(name) for name in classes if not _is_unicode(name)]
    if wrong:
        yield DataError(
            f"{root}: the name of class folder {wrong[0]!r} is not UTF-8", hint="rename it: convmv changes many at once"
        )


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def split(samples: list[Sample], classes: int, share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation pictures: each class gives its share, the total is exactly ceil(share x pictures).

    A picture's rank within its class is the hash of seed and path, so it does not depend on the others.
    """
    by_class: list[list[Sample]] = [[] for _ in range(classes)]
    for sample in samples:
        by_class[sample.label].append(sample)
    exact = Fraction(str(share))
    wanted = ceil(exact * len(samples))
    held = [min(int(exact * len(group)), max(0, len(group) - 1)) for group in by_class]
    by_remainder = sorted(range(classes), key=lambda c: (-(exact * len(by_class[c]) % 1), c))
    while sum(held) < wanted:
        spare = [c for c in by_remainder if held[c] < len(by_class[c]) - 1]
        if not spare:
            break  # every class is down to its one picture for training
        for c in spare[: wanted - sum(held)]:
            held[c] += 1
    val: set[str] = set()
    for group, count in zip(by_class, held, strict=True):
        ordered = sorted(group, key=lambda s: hashlib.sha256(f"{seed}\0".encode() + os.fsencode(s.path)).digest())
        val.update(sample.path for sample in ordered[:count])
    if not val:
        raise DataError(
            f"{len(samples)} pictures in {classes} classes are too few to hold any out for validation",
            hint="each class needs two pictures, or give a val/ folder",
        )
    return [s for s in samples if s.path not in val], [s for s in samples if s.path in val]
