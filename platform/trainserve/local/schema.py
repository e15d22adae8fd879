"""Which fields the built-in kinds have and of which type: the tables behind strict field validation.

From the Kubernetes API reference (https://kubernetes.io/docs/reference/kubernetes-api/), version 1.37. What neither the
controller nor the local kubelet reads into is `ANY`: its name is checked, its inside is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class ListOf:
    """A list."""

    item: Node


@dataclass(frozen=True)
class MapOf:
    """An object with free keys."""

    value: Node


class _Any:
    """Anything: not looked into."""


ANY = _Any()
Node: TypeAlias = "Mapping[str, Node] | ListOf | MapOf | _Any | type"  # str, int, bool; a mapping lists all fields

INT_OR_STRING = ANY


def problems(value: Any, node: Node, path: str = "") -> list[str]:
    """What a strict decoder says about `value`: unknown fields and wrong types, each with its path."""
    if isinstance(node, _Any) or value is None:
        return []
    if isinstance(node, type):
        right = type(value) is node  # True is no integer
        return [] if right else [f"{path}: {_shown(value)} is not of type {_TYPE_NAMES[node]}"]
    if isinstance(node, ListOf):
        if not isinstance(value, list):
            return [f"{path}: {_shown(value)} is not a list"]
        found = [f"{path}[{index}]: null is not allowed in a list" for index, item in enumerate(value) if item is None]
        for index, item in enumerate(value):
            found += problems(item, node.item, f"{path}[{index}]")
        return found
    if not isinstance(value, dict):
        return [f"{path}: {_shown(value)} is not an object"]
    found = []
    for key, item in value.items():
        at = f"{path}.{key}" if path else str(key)
        if isinstance(node, MapOf):
            found += problems(item, node.value, at)
        elif key in node:
            found += problems(item, node[key], at)
        else:
            found.append(f'unknown field "{at}"')
    return found


_TYPE_NAMES = {str: "string", int: "integer", bool: "boolean"}


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float, bool)) else f"a {type(value).__name__}"


def _fields(strings: str = "", integers: str = "", booleans: str = "", anything: str = "", **typed: Node) -> Node:
    table: dict[str, Node] = dict(typed)
    for words, node in ((strings, str), (integers, int), (booleans, bool), (anything, ANY)):
        table.update(dict.fromkeys(words.split(), node))
    return table


_STRINGS = MapOf(str)

OBJECT_META: Node = _fields(
    strings="name generateName namespace selfLink uid resourceVersion creationTimestamp deletionTimestamp",
    integers="generation deletionGracePeriodSeconds",
    anything="managedFields",
    labels=_STRINGS,
    annotations=_STRINGS,
    finalizers=ListOf(str),
    ownerReferences=ListOf(_fields(strings="apiVersion kind name uid", booleans="controller blockOwnerDeletion")),
)

_KEY_REF = _fields(strings="name key", booleans="optional")
_OBJECT_REF = _fields(strings="name", booleans="optional")
_ITEMS = ListOf(_fields(strings="key path", integers="mode"))
_SECCOMP = _fields(strings="type localhostProfile")

_ENV = _fields(
    strings="name value",
    valueFrom=_fields(
        fieldRef=_fields(strings="apiVersion fieldPath"),
        resourceFieldRef=_fields(strings="containerName resource", anything="divisor"),
        configMapKeyRef=_KEY_REF,
        secretKeyRef=_KEY_REF,
        fileKeyRef=_fields(strings="volumeName path key", booleans="optional"),
    ),
)
_PROBE = _fields(
    integers="initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold "
    "terminationGracePeriodSeconds",
    exec=_fields(command=ListOf(str)),
    httpGet=_fields(strings="path host scheme", port=INT_OR_STRING, httpHeaders=ListOf(_fields(strings="name value"))),
    tcpSocket=_fields(strings="host", port=INT_OR_STRING),
    grpc=_fields(strings="service", integers="port"),
)
_SECURITY_CONTEXT = _fields(
    strings="procMount",
    integers="runAsUser runAsGroup",
    booleans="privileged runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation",
    anything="seLinuxOptions windowsOptions",
    capabilities=_fields(add=ListOf(str), drop=ListOf(str)),
    seccompProfile=_SECCOMP,
    appArmorProfile=_SECCOMP,
)
RESOURCES: Node = _fields(limits=MapOf(ANY), requests=MapOf(ANY), claims=ListOf(_fields(strings="name request")))

CONTAINER: Node = _fields(
    strings="name image workingDir terminationMessagePath terminationMessagePolicy imagePullPolicy restartPolicy",
    booleans="stdin stdinOnce tty",
    anything="resizePolicy restartPolicyRules lifecycle",
    command=ListOf(str),
    args=ListOf(str),
    env=ListOf(_ENV),
    envFrom=ListOf(_fields(strings="prefix", configMapRef=_OBJECT_REF, secretRef=_OBJECT_REF)),
    ports=ListOf(_fields(strings="name protocol hostIP", integers="containerPort hostPort")),
    resources=RESOURCES,
    volumeMounts=ListOf(
        _fields(strings="name mountPath subPath subPathExpr mountPropagation recursiveReadOnly", booleans="readOnly")
    ),
    volumeDevices=ListOf(_fields(strings="name devicePath")),
    livenessProbe=_PROBE,
    readinessProbe=_PROBE,
    startupProbe=_PROBE,
    securityContext=_SECURITY_CONTEXT,
)

_VOLUME = _fields(
    strings="name",
    anything="awsElasticBlockStore azureDisk azureFile cephfs cinder csi downwardAPI ephemeral fc flexVolume flocker "
    "gcePersistentDisk gitRepo glusterfs image iscsi photonPersistentDisk portworxVolume projected quobyte rbd scaleIO "
    "storageos vsphereVolume",
    emptyDir=_fields(strings="medium", anything="sizeLimit"),
    hostPath=_fields(strings="path type"),
    persistentVolumeClaim=_fields(strings="claimName", booleans="readOnly"),
    secret=_fields(strings="secretName", integers="defaultMode", booleans="optional", items=_ITEMS),
    configMap=_fields(strings="name", integers="defaultMode", booleans="optional", items=_ITEMS),
    nfs=_fields(strings="server path", booleans="readOnly"),
)

POD_SPEC: Node = _fields(
    strings="restartPolicy dnsPolicy serviceAccountName serviceAccount nodeName hostname subdomain schedulerName "
    "priorityClassName runtimeClassName preemptionPolicy hostnameOverride",
    integers="terminationGracePeriodSeconds activeDeadlineSeconds priority",
    booleans="automountServiceAccountToken hostNetwork hostPID hostIPC hostUsers shareProcessNamespace "
    "enableServiceLinks setHostnameAsFQDN",
    anything="ephemeralContainers affinity dnsConfig readinessGates overhead topologySpreadConstraints os "
    "resourceClaims workloadRef",
    containers=ListOf(CONTAINER),
    initContainers=ListOf(CONTAINER),
    volumes=ListOf(_VOLUME),
    nodeSelector=_STRINGS,
    resources=RESOURCES,
    imagePullSecrets=ListOf(_fields(strings="name")),
    hostAliases=ListOf(_fields(strings="ip", hostnames=ListOf(str))),
    tolerations=ListOf(_fields(strings="key operator value effect", integers="tolerationSeconds")),
    schedulingGates=ListOf(_fields(strings="name")),
    schedulingGroup=_fields(strings="podGroupName"),
    securityContext=_fields(
        strings="fsGroupChangePolicy supplementalGroupsPolicy seLinuxChangePolicy",
        integers="runAsUser runAsGroup fsGroup",
        booleans="runAsNonRoot",
        anything="seLinuxOptions windowsOptions",
        supplementalGroups=ListOf(int),
        sysctls=ListOf(_fields(strings="name value")),
        seccompProfile=_SECCOMP,
        appArmorProfile=_SECCOMP,
    ),
)

_CONTAINER_STATE = _fields(
    waiting=_fields(strings="reason message"),
    running=_fields(strings="startedAt"),
    terminated=_fields(strings="reason message startedAt finishedAt containerID", integers="exitCode signal"),
)
_CONTAINER_STATUSES = ListOf(
    _fields(
        strings="name image imageID containerID stopSignal",
        integers="restartCount",
        booleans="ready started",
        anything="allocatedResources allocatedResourcesStatus resources volumeMounts user",
        state=_CONTAINER_STATE,
        lastState=_CONTAINER_STATE,
    )
)
_CONDITIONS = ListOf(
    _fields(strings="type status reason message lastProbeTime lastTransitionTime", integers="observedGeneration")
)

POD: Node = _fields(
    strings="apiVersion kind",
    metadata=OBJECT_META,
    spec=POD_SPEC,
    status=_fields(
        strings="phase reason message nominatedNodeName hostIP podIP startTime qosClass resize",
        integers="observedGeneration",
        anything="resourceClaimStatuses extendedResourceClaimStatus allocatedResources resources",
        conditions=_CONDITIONS,
        hostIPs=ListOf(_fields(strings="ip")),
        podIPs=ListOf(_fields(strings="ip")),
        containerStatuses=_CONTAINER_STATUSES,
        initContainerStatuses=_CONTAINER_STATUSES,
        ephemeralContainerStatuses=_CONTAINER_STATUSES,
    ),
)

SERVICE: Node = _fields(
    strings="apiVersion kind",
    metadata=OBJECT_META,
    spec=_fields(
        strings="clusterIP type sessionAffinity loadBalancerIP externalName externalTrafficPolicy "
        "internalTrafficPolicy ipFamilyPolicy loadBalancerClass trafficDistribution",
        integers="healthCheckNodePort",
        booleans="publishNotReadyAddresses allocateLoadBalancerNodePorts",
        anything="sessionAffinityConfig",
        selector=_STRINGS,
        ports=ListOf(_fields(strings="name protocol appProtocol", integers="port nodePort", targetPort=INT_OR_STRING)),
        clusterIPs=ListOf(str),
        ipFamilies=ListOf(str),
        externalIPs=ListOf(str),
        loadBalancerSourceRanges=ListOf(str),
    ),
    status=_fields(anything="loadBalancer", conditions=ListOf(ANY)),
)

_INVOLVED_OBJECT = _fields(strings="apiVersion kind namespace name uid resourceVersion fieldPath")

EVENT: Node = _fields(
    strings="apiVersion kind reason message firstTimestamp lastTimestamp type eventTime action "
    "reportingComponent reportingInstance",
    integers="count",
    metadata=OBJECT_META,
    involvedObject=_INVOLVED_OBJECT,
    related=_INVOLVED_OBJECT,
    source=_fields(strings="component host"),
    series=_fields(strings="lastObservedTime", integers="count"),
)

LEASE: Node = _fields(
    strings="apiVersion kind",
    metadata=OBJECT_META,
    spec=_fields(
        strings="holderIdentity acquireTime renewTime preferredHolder strategy",
        integers="leaseDurationSeconds leaseTransitions",
    ),
)

# The rules of a custom resource's spec and status are its own; here its outside.
CUSTOM_RESOURCE: Node = _fields(strings="apiVersion kind", anything="spec status", metadata=OBJECT_META)
