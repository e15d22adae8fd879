"""Strategic merge patches of one pod template: each is merged by us and by an API server."""

from __future__ import annotations

import copy
from typing import Any

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "x", "tier": "one"}, "annotations": {"note": "kept"}},
    "spec": {
        "containers": [
            {
                "name": "pytorch",
                "image": "trainer:1",
                "command": ["python", "-m", "work"],
                "env": [{"name": name, "value": name.lower()} for name in ("A", "B", "C")],
                "ports": [{"name": "progress", "containerPort": 9464}],
                "resources": {"limits": {"cpu": "2", "memory": "4Gi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
            },
            {"name": "second", "image": "other:1"},
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "pictures"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "one"}],
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "securityContext": {"runAsNonRoot": True, "supplementalGroups": [1, 2]},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    },
}

PATCHES: dict[str, dict[str, Any]] = {
    "a label more, a label less": {"metadata": {"labels": {"team": "vision", "tier": None}}},
    "a container's field": {"spec": {"containers": [{"name": "pytorch", "image": "trainer:2"}]}},
    "a container more": {"spec": {"containers": [{"name": "sidecar", "image": "side:1"}]}},
    "a container less": {"spec": {"containers": [{"name": "second", "$patch": "delete"}]}},
    "a container replaced": {"spec": {"containers": [{"name": "pytorch", "image": "x:1"}, {"$patch": "replace"}]}},
    "env: one changed, one new, one out": {
        "spec": {
            "containers": [
                {
                    "name": "pytorch",
                    "env": [
                        {"name": "B", "value": "two"},
                        {"name": "D", "value": "four"},
                        {"name": "A", "$patch": "delete"},
                    ],
                }
            ]
        }
    },
    "env: order of new and old": {
        "spec": {
            "containers": [
                {
                    "name": "pytorch",
                    "env": [{"name": "N", "value": "n"}, {"name": "C", "value": "c2"}, {"name": "A", "value": "a2"}],
                }
            ]
        }
    },
    "env: a value that comes from elsewhere": {
        "spec": {
            "containers": [
                {
                    "name": "pytorch",
                    "env": [{"name": "A", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                }
            ]
        }
    },
    "mounts by their path": {
        "spec": {
            "containers": [
                {
                    "name": "pytorch",
                    "volumeMounts": [{"mountPath": "/data", "name": "tmp"}, {"mountPath": "/more", "name": "tmp"}],
                }
            ]
        }
    },
    "ports by their number": {
        "spec": {
            "containers": [
                {"name": "pytorch", "ports": [{"containerPort": 9464, "name": "other"}, {"containerPort": 1}]}
            ]
        }
    },
    "a volume's source, with what stays": {
        "spec": {"volumes": [{"name": "data", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/mnt"}}]}
    },
    "a volume more": {"spec": {"volumes": [{"name": "extra", "emptyDir": {"medium": "Memory"}}]}},
    "tolerations are one value": {"spec": {"tolerations": [{"key": "c", "operator": "Exists"}]}},
    "a command is one value": {"spec": {"containers": [{"name": "second", "command": ["sh"]}]}},
    "groups are one value": {"spec": {"securityContext": {"supplementalGroups": [3]}}},
    "pull secrets by name": {"spec": {"imagePullSecrets": [{"name": "two"}]}},
    "constraints by topology": {
        "spec": {
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 2},
                {"topologyKey": "host", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
            ]
        }
    },
    "aliases by address": {
        "spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}, {"ip": "10.0.0.2", "hostnames": ["c"]}]}
    },
    "a mapping replaced": {"spec": {"nodeSelector": {"$patch": "replace", "gpu": "yes"}}},
    "a mapping out": {"spec": {"nodeSelector": {"$patch": "delete"}}},
    "a mapping out that is not there": {"spec": {"affinity": {"$patch": "delete"}}},
    "a new mapping merged": {"spec": {"affinity": {"$patch": "merge", "podAffinity": {}}}},
    "a new mapping replaced": {"spec": {"affinity": {"$patch": "replace", "podAffinity": {}}}},
    "a field out": {"spec": {"nodeSelector": None, "tolerations": None}},
    "a new mapping with a null in it": {"spec": {"affinity": {"nodeAffinity": None, "podAffinity": {}}}},
    "init containers, which there are none of": {
        "spec": {"initContainers": [{"name": "first", "image": "i:1"}, {"name": "not-there", "$patch": "delete"}]}
    },
    "resources merge": {"spec": {"containers": [{"name": "pytorch", "resources": {"limits": {"cpu": "4"}}}]}},
    "an affinity": {
        "spec": {
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
                    ]
                }
            }
        }
    },
    "nothing": {},
}


def template() -> dict[str, Any]:
    return copy.deepcopy(TEMPLATE)
