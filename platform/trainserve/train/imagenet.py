"""torchvision's weights, trained on ImageNet: fetched once, and checked each time, cached or not.

torchvision publishes a file's digest in its name: the first eight hex digits of its sha256.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from trainserve.errors import EnvironmentProblem
from trainserve.machine.download import fetch_whole
from trainserve.machine.files import publish, scratch_folder, sha256_of
from trainserve.machine.home import home

TELL_S = 10.0  # between two words about a download
TORN = "torn-"  # set aside: never read again
DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class Published:
    """One of torchvision's files."""

    name: str  # "imagenet resnet18 V1"
    url: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def digest(self) -> str:
        """The beginning of its sha256."""
        match = DIGEST_IN_NAME.search(self.file_name)
        assert match is not None, self.url
        return match[1]


def published(arch: str) -> Published:
    """The best weights that torchvision has for `arch`: V2 where there are some, else V1."""
    import torchvision

    weights = torchvision.models.get_model_weights(arch).DEFAULT
    return Published(f"imagenet {arch} {weights.name.rpartition('_')[2]}", weights.url)


def cached_or_fetched(source: Published, notice: Callable[[str], None], going_on: Callable[[], object]) -> Path:
    """The file with the right digest, from our cache, torch's, or the network; says what it does.

    `going_on` is called now and then during a download, so that whoever waits knows that it goes on. A damaged file of
    our cache is set aside; torch's cache is not touched. Raises EnvironmentProblem.
    """
    import torch

    folder = home() / "weights"
    mine = folder / source.file_name
    if mine.is_file():
        if matches(mine, source):
            return mine
        aside = mine.with_name(TORN + mine.name)
        mine.replace(aside)
        notice(f"weights: {mine} is damaged: its sha256 does not begin with {source.digest}; it is now {aside.name}")
    theirs = Path(torch.hub.get_dir()) / "checkpoints" / source.file_name
    if theirs.is_file():
        if matches(theirs, source):
            return theirs
        notice(f"weights: {theirs} is damaged and passed over: its sha256 does not begin with {source.digest}")
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(mine) as scratch:
        draft = scratch / source.file_name
        notice(f"weights: fetching {source.url}")
        _download(source.url, draft, notice, going_on)
        if not matches(draft, source):
            raise EnvironmentProblem(
                f"{source.url} gave {draft.stat().st_size:,} bytes whose sha256 does not begin with {source.digest}",
                hint="something between changed it; fetch it by other means and use --weights FILE",
            )
        publish(draft, mine)
    return mine


def matches(file: Path, source: Published) -> bool:
    """Whether the file's bytes are those that were published."""
    return sha256_of(file).startswith(source.digest)


def _download(url: str, draft: Path, notice: Callable[[str], None], going_on: Callable[[], object]) -> None:
    told = time.monotonic()

    def heard(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            going_on()
            notice(f"weights: {done / 1e6:.0f} MB" + (f" of {total / 1e6:.0f} MB" if total else ""))

    fetch_whole(url, draft, heard, hint="try again; or fetch this file by other means and use --weights FILE")
