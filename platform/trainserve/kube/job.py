"""The PyTorchJob that trains a Classifier: exactly what `--dry-run` prints and what is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable

from trainserve import __version__
from trainserve.kube import names, placement, security
from trainserve.kube.cluster import Manifest
from trainserve.kube.overlay import apply
from trainserve.kube.volumes import Paths, volumes
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier

# Of spec.pod what a rank can make use of; the rest is for the cluster, and may hold what is for nobody else.
_POD_INSIDE = {"gpus", "gpu_resource", "cpu", "memory", "shared_memory"}


def training_job(
    classifier: Classifier, *, namespace: str, output: str, data_path: str, python: str, image: str, local: bool
) -> Manifest:
    """The PyTorchJob of `classifier` for pods that are processes of a machine.

    `output` and `data_path` are absolute paths inside the pods; with `local` both are the same paths on this machine.
    Only the Master knows the output folder, so that it needs no volume which many nodes can write.
    """

    def pod(*, with_output: bool) -> Manifest:
        paths = Paths(data_path, weights=classifier.spec.model.weights, output=output if with_output else None)
        container = _container(
            classifier, paths, python=python, image=image, told=with_output and not local, on_cluster=False
        )
        spec: Manifest = {"containers": [container], "terminationGracePeriodSeconds": names.STOP_GRACE_S}
        if local:
            _see_this_machine(classifier, spec, paths)
        return {"spec": spec}

    return _job(classifier, namespace, pod)


def cluster_job(classifier: Classifier, *, namespace: str) -> Manifest:
    """The PyTorchJob of `classifier` for a Kubernetes cluster.

    Its data is a claim, a path of the nodes or a URL, and it has an output. Raises SpecError where spec.pod.overlay
    cannot be merged, or changes what has to be as it is.
    """
    pod = classifier.spec.pod

    def template(*, with_output: bool) -> Manifest:
        found, paths = volumes(classifier, with_output=with_output)
        image = pod.image or names.image_for(names.IMAGE_TRAINER)
        container = _container(
            classifier, paths, python=names.IMAGE_PYTHON, image=image, told=with_output, on_cluster=True
        )
        if pod.image_pull_policy:
            container["imagePullPolicy"] = pod.image_pull_policy
        if env_from := placement.env_from(pod):
            container["envFrom"] = env_from
        if resources := placement.resources(pod):
            container["resources"] = resources
        container |= {"volumeMounts": found.mounts, "securityContext": security.of_container()}
        spec: Manifest = {
            "containers": [container],
            "volumes": found.volumes,
            "securityContext": security.of_pod(),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": names.STOP_GRACE_S,
            **placement.pod_fields(pod),
        }
        return _told_its_grace(apply(pod.overlay, {"spec": spec}))

    job = _job(classifier, namespace, template)
    metadata = job["metadata"]
    metadata["annotations"] = {**metadata.get("annotations", {}), names.ANNOTATION_VERSION: __version__}
    if pod.queue:
        metadata["labels"] = {**metadata["labels"], names.LABEL_KUEUE_QUEUE: pod.queue}
    if pod.gang != "auto":
        fewest = derive.nodes(classifier.spec)[0] if pod.gang == "together" else 0
        job["spec"]["runPolicy"]["schedulingPolicy"] = {"minAvailable": fewest}
    return job


def _job(classifier: Classifier, namespace: str, pod: Callable[..., Manifest]) -> Manifest:
    """`pod(with_output=...)` gives a pod template, which our labels are put onto."""
    spec, metadata = classifier.spec, classifier.metadata
    low, high = derive.nodes(spec)
    elastic = derive.is_elastic(spec)
    labels = {**metadata.labels, names.LABEL_CLASSIFIER: metadata.name}
    run_policy: Manifest = {"cleanPodPolicy": "None", "backoffLimit": spec.train.backoff_limit}
    if spec.train.deadline_seconds is not None:
        run_policy["activeDeadlineSeconds"] = spec.train.deadline_seconds

    def replica(count: int, *, with_output: bool) -> Manifest:
        template = pod(with_output=with_output)
        inside = template.get("metadata") or {}
        template = {"metadata": {**inside, "labels": {**inside.get("labels", {}), **labels}}, "spec": template["spec"]}
        return {"replicas": count, "restartPolicy": "ExitCode", "template": template}

    replica_specs = {}
    if elastic:  # any Worker may become rank 0
        replica_specs[names.REPLICA_WORKER] = replica(high, with_output=True)
    else:
        replica_specs[names.REPLICA_MASTER] = replica(1, with_output=True)
        if high > 1:
            replica_specs[names.REPLICA_WORKER] = replica(high - 1, with_output=False)
    job: Manifest = {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": {
            "name": metadata.name,
            "namespace": namespace,
            "labels": labels,
            **({"annotations": dict(metadata.annotations)} if metadata.annotations else {}),
        },
        "spec": {
            "nprocPerNode": str(derive.processes_per_node(spec)),
            "runPolicy": run_policy,
            "pytorchReplicaSpecs": replica_specs,
        },
    }
    if elastic:
        job["spec"]["elasticPolicy"] = {
            "minReplicas": low,
            "maxReplicas": high,
            "rdzvBackend": "c10d",
            "maxRestarts": spec.train.backoff_limit,  # in place, of the ranks that have lost one
        }
    return job


def _container(
    classifier: Classifier, paths: Paths, *, python: str, image: str, told: bool, on_cluster: bool
) -> Manifest:
    """The container of one pod; `told`: it may be asked how far training is."""
    env = [{"name": names.ENV_SPEC, "value": literal(_inside(classifier, paths))}]
    if paths.output is not None:
        env.append({"name": names.ENV_OUTPUT, "value": literal(paths.output)})
    if paths.store is not None:
        env.append({"name": names.ENV_STORE, "value": literal(paths.store)})
    if told:
        env.append({"name": names.ENV_PROGRESS_ADDRESS, "value": f":{names.PROGRESS_PORT}"})
    if on_cluster:
        env.append({"name": names.ENV_VERSION, "value": __version__})
    given = classifier.spec.pod.env or {}
    if on_cluster and names.ENV_USER_HOME not in given:
        env.append({"name": names.ENV_USER_HOME, "value": names.MOUNT_TMP})  # the rest cannot be written to
    env += [{"name": name, "value": literal(value)} for name, value in given.items()]
    container: Manifest = {
        "name": names.CONTAINER,
        "image": image,
        "command": [literal(python), "-m", "trainserve.launch", "-m", "trainserve.launch.work"],
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if told:
        container["ports"] = [{"name": names.PROGRESS_PORT_NAME, "containerPort": names.PROGRESS_PORT}]
    return container


def _told_its_grace(template: Manifest) -> Manifest:
    """The template with its grace period, which an overlay may have changed, in the env of its container."""
    spec = template["spec"]
    grace_s = spec.get("terminationGracePeriodSeconds")
    env = {"name": names.ENV_GRACE, "value": str(names.POD_GRACE_S if grace_s is None else grace_s)}
    containers = [
        {**each, "env": [*each["env"], env]} if each["name"] == names.CONTAINER else each for each in spec["containers"]
    ]
    return {**template, "spec": {**spec, "containers": containers}}


def _inside(classifier: Classifier, paths: Paths) -> str:
    """The Classifier as a rank reads it, with paths as its pod sees them."""
    spec = classifier.spec
    spec = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"path": paths.data, "cache": paths.cache}),
            "model": spec.model.model_copy(update={"weights": paths.weights}),
        }
    )
    pod = set(type(spec.pod).model_fields)
    hidden = pod - _POD_INSIDE if any(getattr(spec.pod, name) is not None for name in _POD_INSIDE) else True
    whole = classifier.model_copy(update={"spec": spec})
    return whole.model_dump_json(by_alias=True, exclude={"spec": {"pod": hidden, "train": {"output"}}})


def _see_this_machine(classifier: Classifier, spec: Manifest, paths: Paths) -> None:
    """Mount what the pod sees at the very paths of this machine."""
    volumes = [{"name": names.VOLUME_DATA, "hostPath": {"path": paths.data}}]
    mounts: list[Manifest] = [{"name": names.VOLUME_DATA, "mountPath": paths.data, "readOnly": True}]
    if paths.output is not None:
        volumes.append({"name": names.VOLUME_OUTPUT, "hostPath": {"path": paths.output}})
        mounts.append({"name": names.VOLUME_OUTPUT, "mountPath": paths.output})
        weights = classifier.spec.model.weights
        if weights is not None and weights.startswith("/"):  # a file or a bundle's folder; only the Master reads it
            volumes.append({"name": names.VOLUME_WEIGHTS, "hostPath": {"path": weights}})
            mounts.append({"name": names.VOLUME_WEIGHTS, "mountPath": weights, "readOnly": True})
    spec["containers"][0]["volumeMounts"] = mounts
    spec["volumes"] = volumes


def literal(text: str) -> str:
    """`text` as an env value or a word of a command, where Kubernetes replaces `$(NAME)` and reads `$$` as a dollar."""
    return text.replace("$", "$$")


def plain(text: str) -> str:
    """What a container gets of a `literal`."""
    return text.replace("$$", "$")
