from __future__ import annotations

from importlib import metadata

import pytest

from trainserve.machine import packages

REQUIRES = [
    "click>=8.1",
    'numpy>=1.26; extra == "train"',
    "torch (>=2.6) ; extra == 'train'",
    'torch-model-archiver==0.12.0; extra == "train"',
    'uvicorn[standard]>=0.29; python_version >= "3.11" and extra == "serve"',
    'other; extra == "serve-more"',
]
VERSIONS = {"numpy": "2.1.0", "torch": "2.6.0+cu124", "torch-model-archiver": "0.12.0", "click": "8.0", "uvicorn": "1"}


def version_of(name: str) -> str:
    if name not in VERSIONS:
        raise metadata.PackageNotFoundError(name)
    return VERSIONS[name]


def test_requirements_of_an_extra() -> None:
    assert packages.requirements("", REQUIRES) == [("click", ">=8.1")]
    train = [("numpy", ">=1.26"), ("torch", ">=2.6"), ("torch-model-archiver", "==0.12.0")]
    assert packages.requirements("train", REQUIRES) == train
    assert packages.requirements("serve", REQUIRES) == [("uvicorn", ">=0.29")]


@pytest.mark.parametrize(
    ("version", "limits", "fits"),
    [("2.6.0", ">=2.6", True), ("2.10", ">=2.9", True), ("2.5.1", ">=2.6", False), ("3", ">=2,<3", False),
     ("0.12.0", "==0.12", True), ("2.6.0rc1+cu1", ">=2.6", True), ("1", "", True), ("4", ">4", False)],
)  # fmt: skip
def test_versions(version: str, limits: str, fits: bool) -> None:
    assert packages.satisfies(version, limits) is fits


def test_what_is_there_what_is_too_old_and_what_is_not_there() -> None:
    train = packages.check("train", "training", required=True, version_of=version_of, requires=REQUIRES)
    assert train.verdict == "ok"
    assert train.found == "numpy 2.1.0, torch 2.6.0+cu124, torch-model-archiver 0.12.0"
    core = packages.check("", "all", required=True, version_of=version_of, requires=REQUIRES)
    assert core.stops
    assert core.found == "not here: click 8.0, wanted >=8.1"
    assert core.fix == "pip install 'trainserve'"
    VERSIONS.pop("numpy")
    train = packages.check("train", "training", required=False, version_of=version_of, requires=REQUIRES)
    assert (train.verdict, train.stops, train.fix) == ("missing", False, "pip install 'trainserve[train]'")
    assert packages.check("new", "x", required=False, requires=REQUIRES).verdict == "warning"
