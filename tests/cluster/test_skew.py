"""Jobs of other versions than the operator's, as their users see them with kubectl."""

from __future__ import annotations

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob
from trainserve import __version__
from trainserve.kube import names

MAJOR, MINOR = (int(part) for part in __version__.split(".")[:2])


async def test_another_minor_version_runs_and_says_so_once(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    version = f"{MAJOR}.{MINOR + 1}.0"
    await team.create(pytorchjob(workers=1, annotations={names.ANNOTATION_VERSION: version}))
    kubectl("wait", "--for=condition=Running", "pytorchjob/flowers", "--timeout=60s")
    assert kubectl("get", "pytorchjobs").splitlines()[1].split()[:2] == ["flowers", names.RUNNING]

    operator.stop()
    operator.start()
    await team.end("flowers-master-0", 0)
    kubectl("wait", "--for=condition=Succeeded", "pytorchjob/flowers", "--timeout=60s")
    conditions = (await team.job())["status"]["conditions"]
    assert conditions[0]["type"] == names.VERSION_SKEW
    assert version in conditions[0]["message"]
    events = kubectl("get", "events", "--field-selector=reason=VersionSkew", "-o", "jsonpath={.items[*].type}")
    assert events.split() == ["Warning"]


async def test_another_major_version_fails_without_a_pod(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    await team.create(pytorchjob(workers=1, annotations={names.ANNOTATION_VERSION: f"{MAJOR + 1}.0.0"}))
    kubectl("wait", "--for=condition=Failed", "pytorchjob/flowers", "--timeout=60s")
    assert await team.children(names.POD) == []
    told = kubectl("describe", "pytorchjob", "flowers")
    assert "another major version" in told
    assert f"Install trainserve {MAJOR}.{MINOR} and train again" in told
