"""What in a data set deserves a warning: training works with it, and its result means less than it seems."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any

from trainserve.machine.usage import MIB
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier
from trainserve.train.folders import Passed, as_text
from trainserve.train.imagefolder import Listing, Sample
from trainserve.train.lookat import SIXTEEN_BIT, Facts

UNBALANCED = 5  # times as many pictures in the largest class as in the smallest
FEW = 10  # training pictures of a class
ENLARGED = 4  # times: pictures whose short side is that much below what the network sees
ENDINGS = {
    "JPEG": {".jpg", ".jpeg", ".jfif"}, "PNG": {".png"}, "GIF": {".gif"}, "BMP": {".bmp"}, "TIFF": {".tif", ".tiff"},
    "WEBP": {".webp"}, "PPM": {".ppm", ".pgm"}, "AVIF": {".avif"}, "HEIF": {".heic", ".heif"},
}  # fmt: skip


@dataclass(frozen=True)
class Warned:
    """One warning: a word for programs, a sentence, what to do, and the pictures in question, in groups."""

    kind: str
    message: str
    hint: str | None
    groups: tuple[tuple[str, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint, "groups": [[*g] for g in self.groups]}


class Oddities:
    """Hears of every picture, then says what deserves a warning."""

    def __init__(self, listing: Listing, classifier: Classifier) -> None:
        self.listing, self.spec = listing, classifier.spec
        self._in_val = {sample.path for sample in listing.val}
        self._same: defaultdict[bytes, list[Sample]] = defaultdict(list)
        self._content: dict[str, bytes] = {}
        self._odd: defaultdict[str, list[str]] = defaultdict(list)
        self._short_sides: list[tuple[int, str]] = []

    def add(self, sample: Sample, facts: Facts) -> None:
        """One picture."""
        if facts.fault is not None:
            return
        self._same[facts.pixels or facts.content].append(sample)
        self._content[sample.path] = facts.content
        self._short_sides.append((min(facts.width, facts.height), sample.path))
        serve = self.spec.serve
        for kind, true in (
            ("16-bit", facts.mode.startswith(SIXTEEN_BIT)),
            ("cmyk", facts.mode == "CMYK"),
            ("transparent", facts.transparent),
            ("animated", facts.animated),
            ("too-large", facts.width * facts.height > serve.max_pixels or sample.size > serve.max_upload_mib * MIB),
            ("misnamed", Path(sample.path).suffix.lower() not in ENDINGS.get(facts.format, set())),
        ):
            if true:
                self._odd[kind].append(sample.path)

    def warnings(self, passed: Passed) -> Iterator[Warned]:
        """What deserves a warning, the gravest first. Names are as `as_text`."""
        for found in (*self._duplicates(), *self._balance(), *self._names(), *self._links(passed), *self._pictures()):
            yield replace(found, groups=tuple(tuple(as_text(path) for path in group) for group in found.groups))

    def _duplicates(self) -> Iterator[Warned]:
        two_labels, across, within = [], [], []
        for group in self._same.values():
            if len(group) < 2:
                continue
            paths = tuple(sample.path for sample in group)
            labels = len({sample.label for sample in group})
            parts = len({path in self._in_val for path in paths})
            if labels > 1:
                two_labels.append(paths)
            if parts > 1:
                across.append(paths)
            if labels == parts == 1:
                within.append(paths)
        if two_labels:
            yield Warned(
                "two-labels",
                f"{self._times(two_labels)} under more than one class: the network cannot learn which is right",
                "keep each in one class",
                tuple(two_labels),
            )
        if across:
            yield Warned(
                "across-splits",
                f"{self._times(across)} in training and in validation: accuracy will look better than it is",
                "remove them from one side; of a photo and its copies keep one",
                tuple(across),
            )
        if within:
            yield Warned(
                "duplicates", f"{self._times(within)} more than once in a class", "remove the copies", tuple(within)
            )

    def _times(self, groups: Sequence[Sequence[str]]) -> str:
        exact = sum(len({self._content[path] for path in group}) == 1 for group in groups)
        one = len(groups) == 1
        how = "byte for byte"
        if exact < len(groups):
            how = f"{exact} byte for byte, the rest by their pixels" if exact else "by their pixels"
        return f"{len(groups)} picture{'' if one else 's'} ({how}) {'is' if one else 'are'}"

    def _balance(self) -> Iterator[Warned]:
        counts = {as_text(name): pair for name, pair in self.listing.counts().items()}
        trained = {name: train for name, (train, _) in counts.items() if train}
        unjudged = [name for name, (train, val) in counts.items() if train and not val]
        if unjudged and self.listing.val:
            yield Warned(
                "not-judged",
                f"no validation picture of {_some(unjudged)}: nothing will say how well that is learnt",
                "add some, or raise --val-split",
            )
        few = [name for name, train in trained.items() if train < FEW]
        if few:
            yield Warned("few", f"fewer than {FEW} training pictures of {_some(few)}", "gather more, or join classes")
        if not trained:
            return
        least, most = min(trained, key=trained.__getitem__), max(trained, key=trained.__getitem__)
        if trained[most] > UNBALANCED * trained[least]:
            yield Warned(
                "unbalanced",
                f"{most} has {trained[most]} training pictures, {least} {trained[least]}: "
                f"{trained[most] / trained[least]:.0f} times as many",
                f"gather more of {least}; judge by the recall of each class, not by top-1 alone",
            )

    def _names(self) -> Iterator[Warned]:
        classes = _alike(self.listing.classes)
        if classes:
            yield Warned(
                "names-alike",
                f"classes that differ only in case or in how accents are written: {_some(map(' and '.join, classes))}",
                "they are one folder on macOS and Windows; join or rename them",
            )
        paths = _alike(sample.path for sample in self.listing.samples()) if not classes else []
        if paths:
            yield Warned(
                "names-alike",
                f"{_so_many(len(paths), 'name')} differ from another only in case or in how accents are written",
                "on macOS and Windows one of each pair is lost; rename it",
                tuple(paths),
            )

    def _links(self, passed: Passed) -> Iterator[Warned]:
        root = Path(os.path.realpath(self.listing.root))  # as Path.resolve, but a link to itself is no error
        loops = set(passed.loops)
        outside = [
            path
            for path in passed.links
            if path not in loops and not Path(os.path.realpath(self.listing.root / path)).is_relative_to(root)
        ]
        if outside:
            yield Warned(
                "links-outside",
                f"{_so_many(len(outside), 'link')} to outside of the folder",
                "they break when the folder is copied or mounted elsewhere: cp -rL makes a copy without links",
                (tuple(outside),),
            )

    def _pictures(self) -> Iterator[Warned]:
        serve = self.spec.serve
        if self._short_sides:
            seen_px = derive.image_size(self.spec.model, median_low(side for side, _ in self._short_sides))
            small = [path for side, path in self._short_sides if side * ENLARGED <= seen_px]
            if small:
                yield Warned(
                    "too-small",
                    f"{_so_many(len(small), 'picture')} enlarged {ENLARGED} times or more to {seen_px} px",
                    "blurred pictures teach little; replace or remove them",
                    (tuple(small),),
                )
        sentences = {
            "too-large": (
                f"{{}} that the server would refuse (serve.maxPixels {serve.max_pixels:,}, "
                f"serve.maxUploadMib {serve.max_upload_mib})",
                "raise the limits when packaging, or shrink them: decoding them costs time in every epoch too",
            ),
            "16-bit": ("{} of more than 8 bits a channel: the high byte is used", None),
            "cmyk": ("{} in CMYK: converted without their colour profile", "convert them to RGB where colours matter"),
            "transparent": ("{} with transparency: laid on white", None),
            "animated": ("{} with several frames: the first is used", None),
            "misnamed": ("{} of another format than the name says; read by content", None),
        }
        for kind, (sentence, hint) in sentences.items():
            if paths := self._odd.get(kind):
                yield Warned(kind, sentence.format(_so_many(len(paths), "picture")), hint, (tuple(paths),))


def _so_many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that a file system without case or with one form of accents takes for one."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
