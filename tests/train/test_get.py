from __future__ import annotations

import pytest
from PIL import Image

from trainserve.errors import UserError
from trainserve.train.get import get_digits
from trainserve.train.imagefolder import scan


def test_digits_are_written_once_and_known_again(tmp_path):
    first = get_digits(tmp_path / "digits")
    assert (first.pictures, first.classes, first.reused) == (1797, 10, False)
    assert "CC BY" in first.licence
    second = get_digits(tmp_path / "digits")
    assert (second.reused, second.digest, second.pictures) == (True, first.digest, 1797)
    listing = scan(tmp_path / "digits")
    assert (len(listing.train), len(listing.val), listing.notices) == (1437, 360, ())
    with Image.open(tmp_path / "digits" / "0" / "0000.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")
        assert image.getextrema() == (0, 239)
    (tmp_path / "digits" / "0" / "0000.png").unlink()
    with pytest.raises(UserError, match="were changed"):
        get_digits(tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="is not the digits"):
        get_digits(tmp_path)
    assert (tmp_path / "mine").read_text() == "x"
