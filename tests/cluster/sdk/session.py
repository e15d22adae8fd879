"""A user's session with Kubeflow's own SDK, unchanged, in an environment where nothing of ours is installed.

    session.py KUBECONFIG NAMESPACE

One JSON object a line on stdout: what each call of `TrainingClient` answered.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import yaml
from kubeflow.training import TrainingClient
from kubeflow.training.utils.utils import FakeResponse

# A pod of the test's nodes that has this annotation ends by itself.
ENDING = {"test.trainserve.dev/exit-code": "0", "test.trainserve.dev/exit-after": "4s"}
MANIFEST = """
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: from-yaml}
spec:
  runPolicy: {cleanPodPolicy: Running}
  pytorchReplicaSpecs:
    Master: &replica
      replicas: 1
      restartPolicy: OnFailure
      template:
        metadata: {annotations: %s}
        spec:
          containers: [{name: pytorch, image: "localhost/train:1", command: [train]}]
    Worker: {<<: *replica, replicas: 2}
""" % json.dumps(ENDING)  # noqa: UP031  the text has braces of its own


def say(call: str, answer: Any) -> None:
    print(json.dumps({"call": call, "answer": answer}), flush=True)


def train(parameters: dict[str, str]) -> None:
    """Never called here: the SDK sends its source."""
    print(parameters["greeting"])


def types(conditions: Any) -> list[list[str]]:
    return [[condition.type, condition.status] for condition in conditions]


def main(kubeconfig: str, namespace: str) -> None:
    client = TrainingClient(config_file=kubeconfig, namespace=namespace)
    kind = "KubeflowOrgV1PyTorchJob"

    job = client.api_client.deserialize(FakeResponse(yaml.safe_load(MANIFEST)), kind)
    client.create_job(job)
    found = client.wait_for_job_conditions("from-yaml", expected_conditions={"Running"}, **QUICK)
    say("wait Running", types(found.status.conditions))
    say("is_job_running", client.is_job_running("from-yaml"))
    say("is_job_created", client.is_job_created("from-yaml"))
    say("get_job_pod_names", sorted(client.get_job_pod_names("from-yaml")))
    say("get_job_pod_names master", client.get_job_pod_names("from-yaml", is_master=True))
    say(
        "get_job_pods worker 1",
        [p.metadata.name for p in client.get_job_pods("from-yaml", replica_type="worker", replica_index=1)],
    )
    found = client.wait_for_job_conditions("from-yaml", **QUICK)
    say("wait Succeeded", types(found.status.conditions))
    say("is_job_succeeded", client.is_job_succeeded("from-yaml"))
    say("completion_time", found.status.completion_time is not None)

    client.create_job(
        name="from-function",
        train_func=train,
        parameters={"greeting": "hello"},
        num_workers=3,
        base_image="localhost/train:1",
    )
    client.create_job(name="from-image", base_image="localhost/train:1", num_workers=1, num_procs_per_worker=2)
    for name in ("from-function", "from-image"):
        client.wait_for_job_conditions(name, expected_conditions={"Running"}, **QUICK)
        say(f"pods of {name}", sorted(client.get_job_pod_names(name)))
    say("list_jobs", sorted(each.metadata.name for each in client.list_jobs()))

    client.update_job({"spec": {"runPolicy": {"suspend": True}}}, "from-function")
    until(lambda: client.get_job_conditions("from-function")[-1].type == "Suspended")
    say("conditions after update", types(client.get_job_conditions("from-function")))
    say("pods after suspend", client.get_job_pod_names("from-function"))

    for name in ("from-yaml", "from-function", "from-image"):
        client.delete_job(name)
    until(lambda: not client.list_jobs())
    until(lambda: not client.core_api.list_namespaced_pod(namespace).items)
    say("left after delete", [])
    try:
        client.get_job("from-yaml")
    except RuntimeError as error:
        say("get_job of a deleted one", type(error).__name__)


QUICK = {"wait_timeout": 60, "polling_interval": 0.5}


def until(ready: Any) -> None:
    for _ in range(240):
        if ready():
            return
        time.sleep(0.25)
    raise SystemExit("it did not happen within 60 s")


if __name__ == "__main__":
    main(*sys.argv[1:])
