"""The PyTorchJob that trains a Classifier: exactly what `--dry-run` prints and what is sent."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.spec.classifier import Classifier


def training_job(
    classifier: Classifier, *, namespace: str, output: str, data_path: str, python: str, image: str, local: bool
) -> Manifest:
    """The PyTorchJob of `classifier`.

    `output` and `data_path` are absolute paths inside the pods; with `local` both are the same paths on this machine.
    Only the Master knows the output folder, so that it needs no volume which many nodes can write.
    """
    train = classifier.spec.train
    labels = {**classifier.metadata.labels, names.LABEL_CLASSIFIER: classifier.metadata.name}
    metadata: Manifest = {"name": classifier.metadata.name, "namespace": namespace, "labels": labels}
    if classifier.metadata.annotations:
        metadata["annotations"] = dict(classifier.metadata.annotations)
    run_policy: Manifest = {"cleanPodPolicy": "None", "backoffLimit": train.backoff_limit}
    if train.deadline_seconds is not None:
        run_policy["activeDeadlineSeconds"] = train.deadline_seconds

    def replica(count: int, *, with_output: bool) -> Manifest:
        spec = _pod_spec(
            classifier, output if with_output else None, data_path, python=python, image=image, local=local
        )
        template = {"metadata": {"labels": dict(labels)}, "spec": spec}
        return {"replicas": count, "restartPolicy": "ExitCode", "template": template}

    replica_specs = {names.REPLICA_MASTER: replica(1, with_output=True)}
    if train.nodes > 1:
        replica_specs[names.REPLICA_WORKER] = replica(train.nodes - 1, with_output=False)
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": metadata,
        "spec": {
            "nprocPerNode": str(train.nproc_per_node),
            "runPolicy": run_policy,
            "pytorchReplicaSpecs": replica_specs,
        },
    }


def _pod_spec(
    classifier: Classifier, output: str | None, data_path: str, *, python: str, image: str, local: bool
) -> Manifest:
    data = classifier.spec.data.model_copy(update={"path": data_path})
    resolved = classifier.model_copy(update={"spec": classifier.spec.model_copy(update={"data": data})})
    env = [{"name": names.ENV_SPEC, "value": literal(resolved.model_dump_json(by_alias=True))}]
    if output is not None:
        env.append({"name": names.ENV_OUTPUT, "value": literal(output)})
    told = output is not None and not local  # on a laptop the supervisor reads the events of the output folder itself
    if told:
        env.append({"name": names.ENV_PROGRESS_ADDRESS, "value": f":{names.PROGRESS_PORT}"})
    container: Manifest = {
        "name": names.CONTAINER,
        "image": image,
        "command": [literal(python), "-m", "trainserve.launch", "-m", "trainserve.launch.work"],
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if told:
        container["ports"] = [{"name": names.PROGRESS_PORT_NAME, "containerPort": names.PROGRESS_PORT}]
    spec: Manifest = {"containers": [container], "terminationGracePeriodSeconds": names.STOP_GRACE_S}
    if local:
        volumes = [{"name": "data", "hostPath": {"path": data_path}}]
        mounts: list[Manifest] = [{"name": "data", "mountPath": data_path, "readOnly": True}]
        if output is not None:
            volumes.append({"name": "output", "hostPath": {"path": output}})
            mounts.append({"name": "output", "mountPath": output})
            weights = classifier.spec.model.weights
            if weights is not None and weights.startswith("/"):  # a file or a bundle's folder; only the Master reads it
                volumes.append({"name": "weights", "hostPath": {"path": weights}})
                mounts.append({"name": "weights", "mountPath": weights, "readOnly": True})
        container["volumeMounts"] = mounts
        spec["volumes"] = volumes
    return spec


def literal(text: str) -> str:
    """`text` as an env value or a word of a command, where Kubernetes replaces `$(NAME)` and reads `$$` as a dollar."""
    return text.replace("$", "$$")
