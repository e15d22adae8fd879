"""Bad jobs are refused with the path of what is wrong: by every API server and by the types, as one table says."""

from __future__ import annotations

from support.badjobs import ODD, TABLE
from trainserve.kube.cluster import ApiError, BadRequest, Cluster, Invalid
from trainserve.kube.names import PYTORCHJOB
from trainserve.spec import pytorchjob


async def test_every_bad_job_is_refused_with_its_path(cluster: Cluster, namespace: str) -> None:
    wrong = {}
    for name, bad in TABLE.items():
        try:
            await cluster.create(PYTORCHJOB, namespace, bad.job)
        except (Invalid, BadRequest) as error:
            if bad.path not in error.message:
                wrong[name] = error.message
        else:
            wrong[name] = "was stored"
    assert wrong == {}
    assert (await cluster.list(PYTORCHJOB, namespace)).items == []


async def test_odd_jobs_are_stored(cluster: Cluster, namespace: str) -> None:
    refused = {}
    for number, (name, job) in enumerate(ODD.items()):
        metadata = {**job["metadata"], "name": f"odd-{number}"}
        try:
            stored = await cluster.create(PYTORCHJOB, namespace, {**job, "metadata": metadata})
        except ApiError as error:
            refused[name] = error.message
        else:
            pytorchjob.validate(stored)
    assert refused == {}


def test_the_types_refuse_the_same_with_the_same_paths() -> None:
    wrong = {}
    for name, bad in TABLE.items():
        try:
            pytorchjob.validate(pytorchjob.crd_defaults(bad.job))
        except pytorchjob.InvalidJob as error:
            if not bad.types or bad.path not in error.message:
                wrong[name] = error.message
        else:
            if bad.types:
                wrong[name] = "is valid"
    assert wrong == {}
