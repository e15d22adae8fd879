"""Everything worth knowing of a data set before training: `platform data check`.

What training would refuse comes from training's own functions (`imagefolder.survey_for`, `imagecheck.fault`,
`imagecheck.vetted`, `derive.check_pictures`): there is no second opinion. Beside it: counts, sizes, duplicates, and
what makes a result look better or worse than it is. Imports no torch. Memory: some 300 bytes a picture.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any

from trainserve.errors import DataError, PlatformError, SpecError
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier, DataSpec
from trainserve.train import imagecheck, imagefolder, oddities
from trainserve.train.folders import as_text
from trainserve.train.imagecheck import BadPicture
from trainserve.train.imagefolder import Listing, Sample
from trainserve.train.lookat import Facts, look_at
from trainserve.train.oddities import Warned


@dataclass(frozen=True)
class Refusal:
    """One reason for which training would not begin."""

    message: str
    hint: str | None


@dataclass(frozen=True)
class Range:
    """Of some numbers."""

    min: int
    median: int
    max: int


@dataclass(frozen=True)
class DataReport:
    """What was found. Names are as `as_text`: text, whatever bytes they have on the disk."""

    path: str
    split: bool  # train/ and val/ are there; else val is what would be held out
    classes: dict[str, dict[str, int]]  # name -> {"train": n, "val": n}
    pictures: dict[str, int]
    width: Range | None  # px
    height: Range | None
    file_size: Range | None  # bytes
    formats: dict[str, int]
    modes: dict[str, int]
    refusals: tuple[Refusal, ...]
    unreadable: tuple[BadPicture, ...]
    warnings: tuple[Warned, ...]
    ignored: dict[str, list[str]]
    notices: tuple[str, ...]
    next: str  # the command to go on with; "" where there is no such folder to go on with

    @property
    def ok(self) -> bool:
        """Whether training would begin."""
        return not self.refusals

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order in which people read them."""
        ranges = {"width": self.width, "height": self.height, "fileSize": self.file_size}
        return {
            "path": self.path,
            "ok": self.ok,
            "refusals": [{"message": refusal.message, "hint": refusal.hint} for refusal in self.refusals],
            "unreadable": [{"picture": bad.path, "reason": bad.reason} for bad in self.unreadable],
            "warnings": [warned.to_dict() for warned in self.warnings],
            "pictures": self.pictures,
            "classes": [{"class": name, **counts} for name, counts in self.classes.items()],
            **{name: vars(found) if found else None for name, found in ranges.items()},
            "formats": self.formats,
            "modes": self.modes,
            "ignored": self.ignored,
            "notices": list(self.notices),
            "next": self.next,
        }


@dataclass
class _Seen:
    bad: list[BadPicture] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)


def check_data(
    classifier: Classifier,
    *,
    threads: int,
    source: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at every picture of a Classifier's data folder and say everything at once.

    `data.check: auto` is full here, whatever the number of pictures: somebody has asked. `source` is the file that the
    Classifier came from, for the command to go on with; `progress` hears (pictures done, all).
    """
    survey = imagefolder.survey_for(classifier)
    listing, data = survey.listing, classifier.spec.data
    samples = list(listing.samples())
    mode: imagecheck.Mode = "full" if data.check == "auto" else data.check
    seen, collected = _Seen(), oddities.Oddities(listing, classifier)

    def look(sample: Sample) -> Facts:
        return look_at(listing.root / sample.path, mode, data.max_pixels)

    if mode != "none":
        for done, (sample, facts) in enumerate(imagecheck.in_order(look, samples, threads), start=1):
            _count(seen, sample, facts)
            collected.add(sample, facts)
            if progress is not None and (done % 100 == 0 or done == len(samples)):
                progress(done, len(samples))
    refusals: list[PlatformError] = list(survey.refusals)
    kept = listing
    try:
        kept = imagecheck.vetted(listing, data, seen.bad)
    except DataError as error:
        refusals.append(error)
    batch: int | None = None
    if not refusals:
        batch, refused = _batch(classifier, kept)
        refusals += refused
    return DataReport(
        path=as_text(str(listing.root)),
        split=any(sample.path.startswith("val/") for sample in listing.val),
        classes=_classes(kept, listing),
        pictures={"train": len(kept.train), "val": len(kept.val), "total": len(kept.train) + len(kept.val)},
        width=_range(seen.widths),
        height=_range(seen.heights),
        file_size=_range([sample.size for sample in samples]),
        formats=dict(seen.formats.most_common()),
        modes=dict(seen.modes.most_common()),
        refusals=tuple(Refusal(error.message, error.hint) for error in refusals),
        unreadable=tuple(BadPicture(as_text(bad.path), bad.reason) for bad in seen.bad),
        warnings=tuple(collected.warnings(survey.passed)),
        ignored={what: [as_text(path) for path in paths] for what, paths in survey.passed.named().items() if paths},
        notices=kept.notices,
        next=_next(classifier, source, batch, refusals),
    )


def _count(seen: _Seen, sample: Sample, facts: Facts) -> None:
    if facts.fault is not None:
        seen.bad.append(BadPicture(sample.path, facts.fault))
    if facts.format:
        seen.formats[facts.format] += 1
        seen.modes[facts.mode] += 1
        seen.widths.append(facts.width)
        seen.heights.append(facts.height)


def _classes(kept: Listing, listing: Listing) -> dict[str, dict[str, int]]:
    """Every class that was found, also of a listing that is refused."""
    counts = kept.counts() if kept.classes else listing.counts()
    return {as_text(name): {"train": train, "val": val} for name, (train, val) in counts.items()}


def _range(numbers: Sequence[int]) -> Range | None:
    return Range(min(numbers), median_low(numbers), max(numbers)) if numbers else None


def _batch(classifier: Classifier, kept: Listing) -> tuple[int | None, list[SpecError]]:
    """What training says of the batch: (one to use instead of the default, refusals of one that somebody gave)."""
    train = classifier.spec.train
    processes = derive.world_size(classifier.spec)
    try:
        side = imagecheck.median_short_side(kept)
        derive.check_pictures(classifier, len(kept.train), side, processes)
    except SpecError as error:
        fitting = len(kept.train) // processes * processes
        if "batch_size" in train.model_fields_set or not fitting:
            return None, [error]
        return fitting, []
    except DataError:  # not one header can be read, with check: none
        return None, []
    return None, []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name of 300 letters, a folder that nobody may look into
        return False


def _next(classifier: Classifier, source: str | None, batch: int | None, refusals: Sequence[PlatformError]) -> str:
    if not _is_folder(Path(classifier.spec.data.path)):
        return ""  # the same command again would say the same again
    if source is not None:
        words = ["-f", source]
    else:
        words = ["--data", classifier.spec.data.path]
        usual = DataSpec.model_validate({"path": classifier.spec.data.path})
        for name in ("val_split", "skip_bad", "allow_empty_classes", "max_pixels", "check"):
            value = getattr(classifier.spec.data, name)
            if value != getattr(usual, name):
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    if refusals:
        return shlex.join(["platform", "data", "check", *(words if source else words[1:])])
    return shlex.join(["platform", "train", *words, *(["--batch-size", str(batch)] if batch else [])])
