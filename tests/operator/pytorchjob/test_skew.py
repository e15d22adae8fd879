from __future__ import annotations

import pytest

from support.scenario import Scenario, pytorchjob
from trainserve import __version__
from trainserve.kube import names
from trainserve.operator.pytorchjob import skew
from trainserve.operator.pytorchjob.draft import Draft

MAJOR, MINOR = (int(part) for part in __version__.split(".")[:2])
OTHER_MINOR = f"{MAJOR}.{MINOR + 1}.0"
OTHER_MAJOR = f"{MAJOR + 1}.{MINOR}.0"


def _made_by(version: str | None) -> Scenario:
    return Scenario(pytorchjob(annotations=None if version is None else {names.ANNOTATION_VERSION: version}))


def _draft(version: str) -> Draft:
    job = pytorchjob(annotations={names.ANNOTATION_VERSION: version})
    return Draft(job, 0.0)


@pytest.mark.parametrize("version", [None, __version__, f"{MAJOR}.{MINOR}", f"{MAJOR}.{MINOR}.99.dev1"])
def test_the_same_minor_version_and_none_are_nothing_to_speak_of(version: str | None) -> None:
    with _made_by(version) as scenario:
        scenario.settle()
        scenario.start_pods()
        assert scenario.conditions() == [("Created", "True"), ("Running", "True")]
        assert scenario.events("VersionSkew") == []


def test_another_minor_version_is_told_once_and_the_job_goes_on() -> None:
    with _made_by(OTHER_MINOR) as scenario:
        scenario.settle()
        scenario.controller_restarts()
        scenario.start_pods()
        assert scenario.conditions() == [("VersionSkew", "True"), ("Created", "True"), ("Running", "True")]
        assert scenario.state() == "Running"
        (event,) = scenario.events("VersionSkew")
        assert event["type"] == "Warning"
        assert event["message"] == (
            f"PyTorchJob flowers goes on, though trainserve {OTHER_MINOR} made it, and this operator is {__version__}: "
            "another minor version."
        )


def test_the_condition_is_never_the_state_of_the_job() -> None:
    with _made_by(OTHER_MINOR) as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        assert scenario.state() == "Suspended"
        scenario.suspend(False)
        scenario.settle()
        assert scenario.state() == "Created"
        scenario.start_pods()
        for replica in ("master-0", "worker-0", "worker-1"):
            scenario.end_pod(replica, 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"
        assert len(scenario.events("VersionSkew")) == 1


def test_another_major_version_does_not_begin() -> None:
    with _made_by(OTHER_MAJOR) as scenario:
        scenario.settle()
        assert scenario.conditions() == [("Failed", "True")]
        assert scenario.reason() == "VersionSkew"
        assert scenario.message() == (
            f"PyTorchJob flowers is failed because trainserve {OTHER_MAJOR} made it, and this operator is "
            f"{__version__}: another major version. Install trainserve {MAJOR}.{MINOR} and train again, or have the "
            "operator brought to the job's version"
        )
        assert scenario.status()["cause"] in scenario.message()
        assert scenario.status()["completionTime"]
        assert scenario.pods() == {}
        assert len(scenario.events("VersionSkew")) == 1


def test_an_operator_of_another_major_version_ends_nobodys_training() -> None:
    with _made_by(__version__) as scenario:
        scenario.settle()
        scenario.start_pods()
        # As if the operator had been upgraded under it: what differs is the same.
        scenario.patch_job({"metadata": {"annotations": {names.ANNOTATION_VERSION: OTHER_MAJOR}}})
        scenario.settle()
        assert scenario.conditions() == [("VersionSkew", "True"), ("Created", "True"), ("Running", "True")]
        assert "another major version" in scenario.status()["conditions"][0]["message"]
        assert len(scenario.pods()) == 3
        scenario.patch_job({"metadata": {"annotations": {names.ANNOTATION_VERSION: __version__}}})
        scenario.settle()
        assert scenario.conditions() == [("Created", "True"), ("Running", "True")]


@pytest.mark.parametrize("version", ["", "latest", "1", "v1.2", "x" * 5000, "\x1b[31m"])
def test_what_is_no_version_is_told_and_the_job_goes_on(version: str) -> None:
    with _made_by(version) as scenario:
        scenario.settle()
        assert scenario.state() == "Created"
        (event,) = scenario.events("VersionSkew")
        assert "none such as" in event["message"]
        assert len(event["message"]) < 200
        assert "\x1b" not in event["message"]


@pytest.mark.parametrize(
    ("theirs", "own", "refused"),
    [
        ("1.0.0", "1.0.0", False),
        ("1.9.0", "1.0.0", False),
        ("1.0.0", "1.9.0", False),
        ("2.0.0", "1.9.9", True),
        ("0.9.0", "1.0.0", True),
        ("10.0.0", "1.0.0", True),
        ("2.0.0rc1", "1.0.0", True),
        ("2.0rc1", "2.0.0", False),
    ],
)
def test_which_versions_are_refused(theirs: str, own: str, refused: bool) -> None:
    assert skew.is_refused(_draft(theirs), own) is refused
