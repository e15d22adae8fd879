"""A pass over any job ends: a bad one fails with the path of what is wrong, an odd one goes on."""

from __future__ import annotations

import pytest

from support.badjobs import ODD, TABLE, Bad
from support.scenario import NAMESPACE, START, Scenario
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.draft import run_policy
from trainserve.operator.pytorchjob.reading import observe
from trainserve.operator.pytorchjob.reconcile import reconcile


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in TABLE.items() if bad.types])
def test_a_bad_job_that_another_kind_definition_let_in_fails_with_its_path(bad: Bad) -> None:
    metadata = {"namespace": NAMESPACE, "uid": "u", "resourceVersion": "1", **bad.job["metadata"]}
    stored = {**bad.job, "metadata": metadata}
    decision = reconcile(stored, observe(stored, [], []), START)
    if run_policy(stored).get("managedBy", "") not in names.MANAGED_BY_US:
        assert decision.status is None  # not ours to judge
        return
    assert decision.status is not None
    failed = decision.status["conditions"][-1]
    assert (failed["type"], failed["reason"]) == (names.FAILED, names.REASON_INVALID)
    assert bad.path in failed["message"]
    assert not decision.creates
    failed_job = {**stored, "status": decision.status}
    after = reconcile(failed_job, observe(failed_job, [], []), START + 1e6)
    assert after.status is None  # and that was that


@pytest.mark.parametrize("job", [pytest.param(job, id=name) for name, job in ODD.items()])
def test_an_odd_job_gets_its_pods_or_fails_with_the_servers_words(job: Manifest) -> None:
    metadata = {**job["metadata"], "namespace": NAMESPACE, "name": "flowers"}
    with Scenario({**job, "metadata": metadata}) as scenario:
        scenario.settle()
        if scenario.state() == names.FAILED:
            assert "metadata.annotations: Too long" in scenario.message()
            assert scenario.pods() == {}
        else:
            assert scenario.state() == names.CREATED
            assert "master-0" in scenario.pods()
