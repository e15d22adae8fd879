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
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from stat import S_ISREG

from trainserve.errors import DataError
from trainserve.spec.classifier import Classifier, DataSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
# Folders that systems leave on disks; hidden ones (.ipynb_checkpoints, .Trash) are ignored by their dot.
SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
MARKER = ".dataset.json"  # `get.py` leaves it in the data sets it writes
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


@dataclass
class _Ignored:
    folders: list[str] = field(default_factory=list)
    sidecars: int = 0
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)

    def notice(self) -> str | None:
        """One line with all that was ignored, None if nothing."""
        parts = [
            _counted(self.folders, "hidden or system folder"),
            f"{self.sidecars} sidecar file{'s' * (self.sidecars != 1)} (._*)" if self.sidecars else "",
            _counted(self.hidden, "hidden file"),
            _counted(self.others, "file that is no picture", "files that are no pictures"),
            _counted(self.loops, "link that leads back to a folder above it", "links that lead back to a folder above"),
        ]
        found = [part for part in parts if part]
        return f"ignored {', '.join(found)}" if found else None


def _counted(names: list[str], one: str, many: str | None = None) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(set(names))[:3]) + (", ..." if len(set(names)) > 3 else "")
    return f"{len(names)} {one if len(names) == 1 else many or one + 's'} ({shown})"


def scan(path: Path, *, val_split: float = 0.2, seed: int = 0, allow_empty_classes: bool = False) -> Listing:
    """List the pictures below `path`.

    Without `val/`, ceil(val_split x pictures) are held out, shared among the classes by largest remainder, the same
    ones for the same seed; each class keeps at least one picture for training. Raises DataError in words.
    """
    try:
        there = path.exists()
    except OSError as error:  # a name of 300 letters, a link to itself
        raise DataError(f"data folder {path} cannot be read: {error.strerror}") from error
    if not there:
        raise DataError(f"data folder {path} does not exist", hint="give the folder that holds one folder a class")
    if not path.is_dir():
        raise DataError(f"{path} is a file, not a folder of pictures", hint="give the folder that holds one a class")
    ignored = _Ignored()
    folders, files = _entries(path, ignored)
    if {"train", "val"} <= set(folders):
        others = [name for name in folders if name not in {"train", "val"}]
        ignored.others += files
        classes, train, val = _two_parts(path, ignored, allow_empty_classes)
        extra = [f"{path} has train/ and val/; not used: {', '.join(others)}"] if others else []
    else:
        _refuse_half_split(path, folders)
        ignored = _Ignored()  # the folder is read again, below
        classes, everything = _class_folders(path, "", ignored, allow_empty_classes)
        train, val = split(everything, len(classes), val_split, seed)
        extra = []
    said = ignored.notice()
    return Listing(path, tuple(classes), tuple(train), tuple(val), tuple(extra + ([said] if said else [])))


def scan_for(classifier: Classifier) -> Listing:
    """`scan`, as a Classifier says; with a notice where it says something that has no effect."""
    data = classifier.spec.data
    listing = scan(
        Path(data.path),
        val_split=data.val_split,
        seed=classifier.spec.train.seed,
        allow_empty_classes=data.allow_empty_classes,
    )
    usual = DataSpec.model_fields["val_split"].default  # a spec that went through JSON has every field set
    if data.val_split != usual and (listing.root / "val").is_dir() and (listing.root / "train").is_dir():
        notice = f"valSplit {data.val_split} has no effect: {listing.root} has a val/ of its own"
        return replace(listing, notices=(*listing.notices, notice))
    return listing


def _two_parts(path: Path, ignored: _Ignored, allow_empty: bool) -> tuple[list[str], list[Sample], list[Sample]]:
    train_folders, _ = _entries(path / "train", _Ignored())
    val_folders, _ = _entries(path / "val", _Ignored())
    only_train = sorted(set(train_folders) - set(val_folders))
    only_val = sorted(set(val_folders) - set(train_folders))
    if (only_train or only_val) and train_folders and val_folders:
        sides = [
            f"only in {part}/: {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
            for part, names in (("train", only_train), ("val", only_val))
            if names
        ]
        raise DataError(
            f"{path}: the classes of train/ and val/ differ; {'; '.join(sides)}",
            hint="both need the same class folders; leave val/ out to have a share of train/ held out instead",
        )
    classes, train = _class_folders(path / "train", "train/", ignored, allow_empty)
    _, val = _class_folders(path / "val", "val/", ignored, allow_empty)
    return classes, train, val


def _refuse_half_split(path: Path, folders: list[str]) -> None:
    """`train/` and `test/` are not two classes."""
    if folders and {name.lower() for name in folders} <= SPLIT_NAMES:
        found = " and ".join(f"{name}/" for name in folders)
        raise DataError(
            f"{path} has {found} but not both train/ and val/",
            hint=f"rename the validation part to val/, or give {path / folders[0]} to have a share of it held out",
        )


def _class_folders(root: Path, prefix: str, ignored: _Ignored, allow_empty: bool) -> tuple[list[str], list[Sample]]:
    """Class names and all pictures of one part. Raises DataError: none, one, or empty class folders."""
    classes, files = _entries(root, ignored)
    if not classes:
        pictures = [name for name in files if name.lower().endswith(SUFFIXES)]
        if pictures:
            raise DataError(
                f"{root} holds {len(pictures)} pictures directly, without class folders",
                hint="make one folder a class and move the pictures into them; the folder's name is the class's name",
            )
        raise DataError(f"{root} holds no class folders", hint="expected one folder a class, with pictures inside")
    _refuse_unwritable(root, classes)
    ignored.others += [f"{prefix}{name}" for name in files]
    above = _ids(root.absolute())
    samples = []
    empty = []
    for label, name in enumerate(classes):
        found = list(_pictures(root / name, f"{prefix}{name}", label, ignored, above))
        samples += found
        if not found:
            empty.append(name)
    if not samples:
        raise DataError(
            f"{root} holds {len(classes)} class folder{'s' * (len(classes) != 1)} but no picture",
            hint=f"pictures end in one of {', '.join(SUFFIXES)}",
        )
    if len(classes) == 1:
        raise DataError(
            f"{root} holds one class folder only ({classes[0]}); a classifier needs at least two",
            hint="give the folder above it if the other classes are there",
        )
    if empty and not allow_empty:
        names = ", ".join(empty[:SHOWN]) + (f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else "")
        raise DataError(
            f"{root}: no picture in class folder{'s' * (len(empty) != 1)} {names}",
            hint="remove the folder, or keep it as a class without pictures with --allow-empty-classes",
        )
    return classes, samples


def _entries(folder: Path, ignored: _Ignored) -> tuple[list[str], list[str]]:
    """Names of the folders and files in `folder`, each sorted as text, without what is always ignored."""
    folders: list[str] = []
    files: list[str] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}", hint="check its permissions") from error
    for entry in entries:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself, or to where we may not look
            is_folder = False
        if is_folder:
            hidden = entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS
            (ignored.folders if hidden else folders).append(entry.name)
        elif entry.name.startswith("._"):
            ignored.sidecars += 1
        elif entry.name == MARKER:
            continue
        elif entry.name.startswith("."):
            ignored.hidden.append(entry.name)
        else:
            files.append(entry.name)
    return folders, files


def _pictures(
    folder: Path, prefix: str, label: int, ignored: _Ignored, above: frozenset[tuple[int, int]]
) -> Iterator[Sample]:
    """Pictures of a folder, then of the folders in it, each sorted; links are followed, but never in a circle."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        ignored.loops.append(prefix)
        return
    folders, files = _entries(folder, ignored)
    for name in files:
        path = f"{prefix}/{name}"
        if not name.lower().endswith(SUFFIXES):
            ignored.others.append(path)
            continue
        try:
            status = (folder / name).stat()
            if not S_ISREG(status.st_mode):  # a pipe or a device: reading it would wait, or never end
                ignored.others.append(path)
                continue
            yield Sample(path, label, status.st_size, status.st_mtime_ns)
        except OSError:  # a link to nothing: the check of the pictures names it
            yield Sample(path, label, 0, 0)
    for name in folders:
        yield from _pictures(folder / name, f"{prefix}/{name}", label, ignored, above | {here})


def _ids(folder: Path) -> frozenset[tuple[int, int]]:
    """Device and inode of a folder and of all above it."""
    found = [path.stat() for path in (folder.resolve(), *folder.resolve().parents)]
    return frozenset((status.st_dev, status.st_ino) for status in found)


def _refuse_unwritable(root: Path, classes: list[str]) -> None:
    """A class's name is written into many files, all of them UTF-8."""
    wrong = [os.fsencode(name) for name in classes if not _is_unicode(name)]
    if wrong:
        raise DataError(
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
