"""The configurations of a real node's parts, as texts."""

from __future__ import annotations

import json
from pathlib import Path

from support.nodebinaries import CNI
from trainserve.kube.cluster import Manifest

NODE = "node-1"
# Addresses for tests of networks (RFC 2544): nothing on the internet has them.
PODS = "198.18.66.0/24"
NODE_ADDRESS = "198.18.66.1"  # of the bridge, inside
FIRST_POD = "198.18.66.10"
INSIDE = "198.18.67.1"
OUTSIDE = "198.18.67.2"  # of this machine, for what is inside
SERVICES_API = "10.96.0.1"  # the Service `kubernetes`
BRIDGE = "pods"
CGROUP = "trainserve-test"
DOMAIN = "cluster.local"
PAUSE_IMAGE = "localhost/pause:test"
NOWHERE = "http://127.0.0.1:1"  # where images that were not loaded are looked for: it fails at once
DNS_USER = "coredns"
PROXY_USER = "system:kube-proxy"
NODE_USER = f"system:node:{NODE}"


def containerd(folder: Path) -> str:
    # Root in a container has no CAP_SYS_RESOURCE; without restrict_oom_score_adj no pod would start then.
    return f"""\
version = 2
root = "{folder}/images"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def registries() -> str:
    return f'server = "{NOWHERE}"\n[host."{NOWHERE}"]\n  capabilities = ["pull", "resolve"]\n'


def network(folder: Path) -> str:
    ranges = [[{"subnet": PODS, "rangeStart": FIRST_POD}]]
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "dataDir": f"{folder}/addresses"},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]})


def names(kubeconfig: Path) -> str:
    """CoreDNS: the cluster's own names; every other one does not exist."""
    return f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
  bind {NODE_ADDRESS}
  errors
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {kubeconfig} test
    ttl 2
  }}
}}
.:53 {{
  bind {NODE_ADDRESS}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""


def names_role() -> list[Manifest]:
    api = "rbac.authorization.k8s.io"
    read = ["get", "list", "watch"]
    return [
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS_USER},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": read},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            ],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS_USER},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": DNS_USER},
            "subjects": [{"apiGroup": api, "kind": "User", "name": DNS_USER}],
        },
    ]


def kubelet(folder: Path, certificates: Path) -> str:
    """JSON is YAML."""
    config: Manifest = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{certificates}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{certificates}/kubelet.crt",
        "tlsPrivateKeyFile": f"{certificates}/kubelet.key",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": f"{folder}/resolv.conf",
        "podLogsDir": f"{folder}/logs",
        "volumePluginDir": f"{folder}/plugins",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "eventRecordQPS": 0,
        "registryPullQPS": 0,
    }
    return json.dumps(config, indent=1)


def proxy() -> list[str]:
    """Flags: limits of connection tracking are the machine's, and stay."""
    return [
        f"--hostname-override={NODE}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
    ]
