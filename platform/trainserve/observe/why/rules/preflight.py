"""What a job found wrong in its first minute (launch/preflight): its own sentence says which rank and what."""

from __future__ import annotations

from trainserve.observe.why.conditions import hint, kubectl, says
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "image-version",
        says(r"trainserve (?P<made>\S+) made the job, and this image has (?P<has>[^:\s]+): another major version"),
        lambda s: (
            f"the image has trainserve {s.found['has']}, and {s.found['made']} made the job: another major version"
        ),
        lambda s: hint(s, f"train with --image of version {s.found['made']}"),
    ),
    Rule(
        "dns",
        says(r"the master (?P<host>\S+):(?P<port>\d+) has no address: (?P<how>.+)"),
        lambda s: f"{s.who} could not look up its master {s.found['host']}: {s.found['how']}",
        lambda s: (
            f"{kubectl(s, 'get service,endpointslices')} must show {s.found['host']}; if it does, the cluster's DNS is "
            "silent: kubectl -n kube-system get pods -l k8s-app=kube-dns"
        ),
    ),
    Rule(
        "master-silent",
        says(r"the master (?P<where>\S+:\d+ \S*) ?does not answer"),
        lambda s: f"{s.who} gets no answer from its master {s.found['where'].strip()}: packets are dropped",
        lambda s: f"{kubectl(s, 'get networkpolicies')} : pods of one job must reach each other on every port",
    ),
    Rule(
        "master-refuses",
        says(r"the master (?P<where>\S+:\d+)( \S+)? refuses the connection"),
        lambda s: f"nothing listens at the master {s.found['where']} that {s.who} wants to meet",
        lambda s: f"platform logs {s.evidence.run} --rank 0 ends where rank 0 stopped",
    ),
    Rule(
        "init-wait",
        says(r"the master (?P<where>\S+:\d+) did not answer within (?P<seconds>\d+) s: (?P<how>.+)"),
        lambda s: f"{s.who} waited {s.found['seconds']} s in vain for its master {s.found['where']}: {s.found['how']}",
        lambda s: f"platform logs {s.evidence.run} --rank 0 ; {kubectl(s, 'get pods,service')} shows whether it exists",
    ),
    Rule(
        "ranks-cut-off",
        says(r"(?P<rank>rank \d+) \((?P<pod>[^)]*)\): cannot connect to (?P<other>rank \d+) \((?P<where>[^)]*)\)"),
        lambda s: f"{s.found['rank']} ({s.found['pod']}) cannot connect to {s.found['other']} ({s.found['where']})",
        lambda s: (
            f"{kubectl(s, 'get networkpolicies')} : pods of one job must reach each other on every port; else see the "
            "nodes' firewalls"
        ),
    ),
    Rule(
        "all-reduce-hangs",
        says(r"an all-reduce of [\d,]+ bytes over (?P<count>\d+) ranks did not end"),
        lambda s: f"the ranks have met, but an all-reduce over {s.found['count']} ranks does not end",
        "set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME (--env) to the pods' interface; see NetworkPolicies",
    ),
    Rule(
        "all-reduce-wrong",
        says(r"an all-reduce of [\d,]+ bytes over \d+ ranks gave (?P<how>.+)"),
        lambda s: f"an all-reduce gave a wrong sum: {s.found['how']}",
        "train on other nodes, or with --env NCCL_P2P_DISABLE=1: a GPU, its driver or the network damages data",
    ),
    Rule(
        "gpus-missing",
        says(
            r"(?P<rank>rank \d+) \((?P<pod>[^)]*)\): asked for (?P<asked>\d+) GPUs \(spec\.pod\.gpus\), (?P<how>[^;]+)"
        ),
        lambda s: f"{s.found['rank']} ({s.found['pod']}) asked for {s.found['asked']} GPUs, {s.found['how']}",
        lambda s: (
            "use an image whose torch is built for CUDA (make images with the CUDA wheels)"
            if "built for the CPU" in s.found["how"]
            else f"{kubectl(s, 'describe node')} shows what the device plugin offers; --runtime-class may be missing"
        ),
    ),
    Rule(
        "shared-memory",
        says(r"(?P<rank>rank \d+) \((?P<pod>[^)]*)\): shared memory too small: (?P<how>[^;]+)"),
        lambda s: f"shared memory is too small on {s.found['rank']} ({s.found['pod']}): {s.found['how']}",
        "raise spec.pod.sharedMemory (--set spec.pod.sharedMemory=2Gi; it counts in the memory limit), or --workers 0",
    ),
    Rule(
        "output-not-writable",
        says(r"(no permission to write to|the output \S+ cannot be written)(?P<how>.*)"),
        lambda s: f"the output cannot be written: {s.found['how'].lstrip(' :')}",
        "set spec.pod.overlay: {spec: {securityContext: {fsGroup: GID}}} to the volume's group, or change its owner",
    ),
    Rule(
        "output-too-small",
        says(r"too little room in the output (?P<how>[^;]+)"),
        lambda s: f"the output has too little room: {s.found['how']}",
        lambda s: f"use a larger volume, or {s.again('--set train.keepLast=1')}",
    ),
)
