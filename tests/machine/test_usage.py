from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainserve.machine.usage import disk_bytes, size_words


def test_what_has_two_names_counts_once_and_links_are_not_followed(tmp_path: Path) -> None:
    big = tmp_path / "a" / "big"
    big.parent.mkdir()
    big.write_bytes(os.urandom(1 << 20))
    os.link(big, tmp_path / "a" / "again")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(big.parent)
    both = disk_bytes([tmp_path / "a", tmp_path / "a", tmp_path / "b"])
    assert 1 << 20 <= both < (1 << 20) + 65536
    assert disk_bytes([tmp_path / "b"]) < 65536
    assert disk_bytes([tmp_path / "nothing"]) == 0


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (140 << 20, "140 MiB"),
     (3 << 40, "3.0 TiB"), (1000 << 20, "1.0 GiB"), (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_sizes_in_words(count: int, words: str) -> None:
    assert size_words(count) == words
