"""What of a pod a kubelet without containers can do: pure translation of a Pod to processes, and what it has to say.

Nothing of a pod is passed over in silence. A field is honoured, has no meaning for a process on one machine, is told
in an event, or makes the pod fail with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainserve.errors import EXIT_ENVIRONMENT, EXIT_USER, EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.machine.ports import LOOPBACK

API_ACCESS_VOLUME = "kube-api-access-"  # the beginning of its name
REASON_NOT_SUPPORTED = "NotSupportedLocally"
REASON_PORT_IN_USE = "PortInUse"
REASON_NO_PORT = "NoPort"
CONTAINER_CANNOT_RUN = "ContainerCannotRun"

# Without a meaning where there is one machine, one network and one user.
_POD_MEANINGLESS = {
    *("automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostIPC", "hostNetwork"),
    *("hostPID", "hostname", "hostnameOverride", "nodeName", "os", "overhead", "preemptionPolicy", "priority"),
    *("priorityClassName", "schedulerName", "schedulingGroup", "serviceAccount", "serviceAccountName"),
    *("setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "tolerations", "workloadRef"),
}
_POD_TOLD = {
    *("affinity", "hostAliases", "hostUsers", "imagePullSecrets", "nodeSelector", "resources", "runtimeClassName"),
    *("securityContext", "topologySpreadConstraints"),
}
# Where a scheduler has chosen the node these have had their effect; of resources, the requests.
_SCHEDULED = {"affinity", "nodeSelector", "topologySpreadConstraints"}
_POD_DONE = {
    *("activeDeadlineSeconds", "containers", "initContainers", "restartPolicy", "terminationGracePeriodSeconds"),
    "volumes",
}
_CONTAINER_MEANINGLESS = {"imagePullPolicy", "name", "ports", "terminationMessagePath"}
_CONTAINER_TOLD = {
    *("image", "livenessProbe", "readinessProbe", "resizePolicy", "resources", "securityContext", "startupProbe"),
    *("stdin", "stdinOnce", "tty"),
}
_LOOKED_UP = {"envFrom"}  # where other objects can be read
_CONTAINER_DONE = {"args", "command", "env", "terminationMessagePolicy", "volumeMounts", "workingDir"}

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
# Env of the shell that started the run which would be taken for the job's.
_NOT_INHERITED = re.compile(
    r"(PET|TORCHELASTIC|TRAINSERVE)_.*|MASTER_(ADDR|PORT)|((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME"
)


class CannotRun(Exception):
    """The pod fails with `reason` before it starts; `code` is the exit code its containers get."""

    def __init__(self, message: str, *, reason: str = REASON_NOT_SUPPORTED, code: int = EXIT_USER) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


@dataclass(frozen=True)
class Process:
    """One container as a process. `cwd` None: the pod's folder."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    log_tail_on_error: bool


@dataclass(frozen=True)
class Address:
    """Where a job's rank 0 listens on this machine, in place of a name that only a cluster resolves."""

    hosts: frozenset[str] = field(default_factory=frozenset)  # names to replace
    port: int | None = names.PORT  # None: the port stays as it is given
    host: str = LOOPBACK


def without_effect(pod: Manifest, *, scheduled: bool = False) -> set[str]:
    """Names of the pod's and its containers' fields that have no effect here.

    `scheduled`: a scheduler has seen to what it sees to.
    """
    spec = pod["spec"]
    found = {name for name in _POD_TOLD - (_SCHEDULED if scheduled else set()) if spec.get(name)}
    # Every pod has the account `default`, and what admission makes of it; another one was asked for.
    if any(map(is_token, spec.get("volumes") or [])) and spec.get("serviceAccountName", "default") != "default":
        found.add("serviceAccountName (no token)")
    for container in _containers(spec):
        # Nobody needs to be told of what this platform itself put there.
        ours = {"securityContext"} if container["name"] == names.INIT_CONTAINER else set()
        ours |= {"image"} if container.get("image") == names.LOCAL_IMAGE else set()
        found |= {name for name in _CONTAINER_TOLD - ours if container.get(name)}
    return found


def check(pod: Manifest, *, looked_up: bool = False) -> None:
    """Raises CannotRun for what would make the pod another one than was asked for.

    `looked_up`: volumes and envFrom were, and are what they should be.
    """
    spec = pod["spec"]
    known = _POD_DONE | _POD_TOLD | _POD_MEANINGLESS
    _refuse_unknown(spec, known, "spec")
    for volume in spec.get("volumes") or []:
        if not looked_up and not is_token(volume):
            _check_volume(volume, spec)
    for container in _containers(spec):
        at = f"container {container['name']}"
        honoured = _CONTAINER_DONE | (_LOOKED_UP if looked_up else set())
        _refuse_unknown(container, honoured | _CONTAINER_TOLD | _CONTAINER_MEANINGLESS, at)
        if not container.get("command"):
            raise CannotRun(f"{at}: command is missing; without an image there is no entry point to fall back on")
        for variable in container.get("env") or []:
            if "valueFrom" in variable:
                raise CannotRun(f"{at}: env {variable['name']}: valueFrom is not supported on a laptop; use value")


def process(
    container: Manifest,
    *,
    base: Mapping[str, str],
    extra: Mapping[str, str],
    address: Address,
    given: Mapping[str, str] | None = None,
) -> Process:
    """The process of a checked container.

    `base` is the machine's environment, `given` what envFrom says, and `extra` wins over the container's own.
    """
    env = {**inherited(base), **(given or {})}
    for variable in container.get("env") or []:
        value = expand(variable.get("value") or "", env)
        env[variable["name"]] = substitute(variable["name"], value, address)
    env.update(extra)
    words = [*container["command"], *(container.get("args") or [])]
    return Process(
        name=container["name"],
        argv=tuple(expand(word, env) for word in words),
        env=env,
        cwd=container.get("workingDir"),
        log_tail_on_error=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def inherited(base: Mapping[str, str]) -> dict[str, str]:
    """The machine's environment (PATH, HOME, proxies, CUDA...) without what belongs to another job."""
    return {name: value for name, value in base.items() if not _NOT_INHERITED.fullmatch(name)}


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value where there is one, `$$` a dollar sign: Kubernetes' own rule."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def substitute(name: str, value: str, address: Address) -> str:
    """An address of the job becomes one of this machine, in exactly the variables of names.ADDRESS_ENV.

    And what a rank would answer on every address it answers on the job's alone: nothing listens beyond loopback.
    """
    if name == names.ENV_PROGRESS_ADDRESS and value.startswith(":"):
        return f"{address.host}{value}"
    if name not in names.ADDRESS_ENV:
        return value
    if name in {names.ENV_MASTER_PORT, names.ENV_PET_MASTER_PORT}:
        return value if address.port is None else str(address.port)
    host, colon, port = value.partition(":")
    if host not in address.hosts:
        return value
    return f"{address.host}:{port if address.port is None else address.port}" if colon else address.host


def address(job: str, namespace: str, port: int | None, host: str = LOOPBACK) -> Address:
    """The job's rank 0 is its Master, or worker 0 where it has none."""
    first = {names.replica_name(job, kind, 0) for kind in (names.REPLICA_MASTER, names.REPLICA_WORKER)}
    domains = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return Address(frozenset(name + domain for name in first for domain in domains), port, host)


def asked_port(job: Manifest) -> int | None:
    """The master's port that the user chose: MASTER_PORT in a template, else a declared port other than 23456.

    Raises CannotRun when it is no port number.
    """
    for replica in job.get("spec", {}).get("pytorchReplicaSpecs", {}).values():
        for container in replica["template"]["spec"].get("containers") or []:
            for variable in container.get("env") or []:
                if variable["name"] == names.ENV_MASTER_PORT and variable.get("value"):
                    return _port_number(variable["value"])
            for port in container.get("ports") or []:
                if port.get("name") == names.PORT_NAME and port["containerPort"] != names.PORT:
                    return _port_number(port["containerPort"])
    return None


def port_in_use(port: int) -> CannotRun:
    return CannotRun(
        f"port {port} was given as MASTER_PORT of this job, but another program on this machine listens on it; "
        "leave it out and a free one is chosen",
        reason=REASON_PORT_IN_USE,
        code=EXIT_ENVIRONMENT,
    )


def no_port(problem: EnvironmentProblem) -> CannotRun:
    return CannotRun(str(problem), reason=REASON_NO_PORT, code=problem.exit_code)


def _port_number(value: str | int) -> int:
    if str(value).isdigit() and 1 <= int(value) <= 65535:
        return int(value)
    raise CannotRun(f"{names.ENV_MASTER_PORT}: {value!r} is not a port from 1 to 65535")


def _containers(spec: Manifest) -> Sequence[Manifest]:
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def _refuse_unknown(given: Manifest, known: set[str], at: str) -> None:
    for name, value in given.items():
        if name not in known and value not in (None, [], {}, ""):
            raise CannotRun(f"{at}: {name} is not supported on a laptop")


def is_token(volume: Manifest) -> bool:
    """The volume that admission puts into every pod, for programs that call the API server."""
    return "projected" in volume and volume["name"].startswith(API_ACCESS_VOLUME)


def _check_volume(volume: Manifest, spec: Manifest) -> None:
    name = volume["name"]
    mounts = [
        (container["name"], mount)
        for container in _containers(spec)
        for mount in container.get("volumeMounts") or []
        if mount["name"] == name
    ]
    for container, mount in mounts:
        at = f"volume {name} in container {container}"
        path = mount["mountPath"].rstrip("/")
        if mount.get("subPath") or mount.get("subPathExpr"):
            raise CannotRun(f"{at}: subPath is not supported on a laptop, where nothing is mounted")
        if "hostPath" in volume:
            if path != volume["hostPath"]["path"].rstrip("/"):
                raise CannotRun(
                    f"{at}: mountPath {mount['mountPath']} must equal hostPath.path {volume['hostPath']['path']}: "
                    "processes on this machine see its paths as they are"
                )
        elif "emptyDir" in volume:
            if path != names.MOUNT_SHM or volume["emptyDir"].get("medium") != "Memory":
                raise CannotRun(
                    f"{at}: on a laptop emptyDir is supported for {names.MOUNT_SHM} with medium Memory only"
                )
        else:
            kind = next((key for key in volume if key != "name"), "nothing")
            raise CannotRun(f"{at}: a volume of type {kind} is not supported on a laptop; use hostPath")
