from __future__ import annotations

import re

import pytest

from trainserve import __version__
from trainserve.kube import names

ROLES = (names.IMAGE_TRAINER, names.IMAGE_SERVER, names.IMAGE_OPERATOR)
# https://github.com/distribution/reference: a tag.
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_of_the_installed_version(role: str) -> None:
    assert names.image_for(role) == f"ghcr.io/trainserve/{role}:{__version__}"


def test_a_local_version_is_a_tag_too() -> None:
    tag = names.image_for("trainer", "1.2.3.dev4+g0123abc").rpartition(":")[2]
    assert TAG.fullmatch(tag)
    assert tag == "1.2.3.dev4-g0123abc"
