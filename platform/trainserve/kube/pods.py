"""The Pod of one replica: the user's template, and what a PyTorchJob's pod has on top of it.

Source: kubeflow.org/v1 as the Training Operator v1.9 has it. Better than there: /dev/shm is as large as the pod's
memory, the wait for the master is for its TCP port and unprivileged, and a gang's pods are never restarted in place.
"""

from __future__ import annotations

import copy
import re

from trainserve.errors import EXIT_PEER_LOST
from trainserve.kube import names, rendezvous, replicas
from trainserve.kube.cluster import Manifest

WAIT_TIMEOUT_S = 1800  # the master may first have to pull an image of many GB, or wait for a node to be added

# It ends with the code of a victim: the wait failed because of the master, so the cause is to be looked for there.
WAIT_SCRIPT = f"""\
import os, socket, sys, time
host, _, port = os.environ["{names.ENV_WAIT_FOR}"].rpartition(":")
give_up = time.monotonic() + {WAIT_TIMEOUT_S}
while True:
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        sys.exit(0)
    except OSError as error:
        reason = error
    if time.monotonic() > give_up:
        print(f"the master {{host}}:{{port}} did not answer within {WAIT_TIMEOUT_S} s: {{reason}}", file=sys.stderr)
        sys.exit({EXIT_PEER_LOST})
    time.sleep(0.5)
"""


def replica_pod(job: Manifest, replica_type: str, index: int, generation: int) -> Manifest:
    """The whole Pod of replica (type, index) in gang `generation`; `job` is defaulted and has a uid."""
    template = copy.deepcopy(job["spec"]["pytorchReplicaSpecs"][replica_type]["template"])
    template_metadata = template.get("metadata") or {}
    metadata: Manifest = {
        "name": names.replica_name(job["metadata"]["name"], replica_type, index),
        "namespace": job["metadata"]["namespace"],
        "labels": {
            **_kueue_labels(job),
            **(template_metadata.get("labels") or {}),
            **names.replica_labels(job["metadata"]["name"], replica_type, index),
            **({names.LABEL_JOB_ROLE: "master"} if (replica_type, index) == replicas.leader(job) else {}),
            names.LABEL_GENERATION: str(generation),
        },
        "ownerReferences": [replicas.owner_reference(job)],
    }
    annotations = {**_kueue_annotations(job), **(template_metadata.get("annotations") or {})}
    if annotations:
        metadata["annotations"] = annotations
    spec = template["spec"]
    spec["restartPolicy"] = pod_restart_policy(job, replica_type)
    for container in spec["containers"]:
        container["env"] = [*(container.get("env") or []), *rendezvous.env(job, replica_type, index, generation)]
    address = rendezvous.wait_for(job, replica_type, index)
    if address is not None:
        waiting = _wait_container(replicas.main_container(spec), address)
        spec["initContainers"] = [*(spec.get("initContainers") or []), waiting]
    _share_memory(spec)
    return {"apiVersion": names.POD.api_version, "kind": names.POD.kind, "metadata": metadata, "spec": spec}


def _kueue_labels(job: Manifest) -> dict[str, str]:
    """Of a job that Kueue is to admit as a group of plain pods, not as a job: what its pods need of its labels."""
    labels: dict[str, str] = job["metadata"].get("labels") or {}
    wanted = (names.LABEL_KUEUE_GROUP, names.LABEL_KUEUE_QUEUE, names.LABEL_KUEUE_PRIORITY)
    return {name: labels[name] for name in wanted if name in labels} if names.LABEL_KUEUE_GROUP in labels else {}


def _kueue_annotations(job: Manifest) -> dict[str, str]:
    size = {names.ANNOTATION_KUEUE_GROUP_SIZE: str(replicas.total_replicas(job))}
    return size if names.LABEL_KUEUE_GROUP in (job["metadata"].get("labels") or {}) else {}


def pod_restart_policy(job: Manifest, replica_type: str) -> str:
    """Never for a gang, which the controller restarts as a whole; else upstream's: the replica's, ExitCode is Never."""
    policy = replicas.restart_policy(job, replica_type)
    return "Never" if replicas.is_gang(job) or policy == "ExitCode" else policy


def env_value(pod: Manifest, name: str) -> str | None:
    """The value that env `name` has in the pod's `pytorch` container: the last one counts."""
    values = [
        entry.get("value") for entry in replicas.main_container(pod["spec"]).get("env") or [] if entry["name"] == name
    ]
    return values[-1] if values else None


def _interpreter(main: Manifest) -> str:
    """The Python that `main` runs, where it runs one itself; else the name that every system with Python 3 has."""
    first = (main.get("command") or [""])[0]
    return first if re.fullmatch(r"python[0-9.]*t?", first.rpartition("/")[2]) else "python3"


def _wait_container(main: Manifest, address: str) -> Manifest:
    container: Manifest = {
        "name": names.INIT_CONTAINER,
        "image": main["image"],
        "command": [_interpreter(main), "-c", WAIT_SCRIPT],
        "env": [{"name": names.ENV_WAIT_FOR, "value": address}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
    }
    if "imagePullPolicy" in main:
        container["imagePullPolicy"] = main["imagePullPolicy"]
    # The same CPU and memory as the container it precedes: no larger pod, the same quality-of-service class, and no
    # refusal by a quota that wants limits on every container. Devices stay with the container that uses them.
    resources = {
        part: {name: amount for name, amount in amounts.items() if name in {"cpu", "memory"}}
        for part, amounts in (main.get("resources") or {}).items()
        if part in {"limits", "requests"}
    }
    if any(resources.values()):
        container["resources"] = {part: amounts for part, amounts in resources.items() if amounts}
    return container


def _share_memory(spec: Manifest) -> None:
    """Mount a memory-backed /dev/shm in each container that has none; a pod's default is 64 MiB."""
    without = [
        container
        for container in spec["containers"]
        if all(mount["mountPath"].rstrip("/") != names.MOUNT_SHM for mount in container.get("volumeMounts") or [])
    ]
    if not without:
        return
    for container in without:
        mount = {"name": names.VOLUME_SHM, "mountPath": names.MOUNT_SHM}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    volume = {"name": names.VOLUME_SHM, "emptyDir": {"medium": "Memory"}}
    spec["volumes"] = [*(spec.get("volumes") or []), volume]
