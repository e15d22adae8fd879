"""The table of causes: one rule a cause, the first that matches counts, so what is particular stands first.

A rule looks at one failure (`Scene`) and says what happened in words and the one thing to do about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from trainserve.errors import EXIT_DATA, EXIT_PEER_LOST, EXIT_SIGTERM, EXIT_STALLED, EXIT_USER
from trainserve.kube import names
from trainserve.observe.why.conditions import (
    When,
    both,
    check_data,
    code,
    dies,
    either,
    hint,
    less_memory,
    logs,
    reason,
    says,
    slower,
    told,
)
from trainserve.observe.why.scene import Scene, exit_words, search

Words: TypeAlias = Callable[[Scene], str] | str


@dataclass(frozen=True)
class Rule:
    """`when` gives what its pattern caught, or None; `title` and `advice` get the scene with that in `found`."""

    id: str
    when: When
    title: Words
    advice: Words


@dataclass(frozen=True)
class Cause:
    """What a rule has to say of a failure."""

    id: str
    title: str
    advice: str


def cause_of(scene: Scene) -> Cause:
    """The first rule that matches; the last one always does."""
    for rule in RULES:
        found = rule.when(scene)
        if found is not None:
            here = replace(scene, found=found)
            return Cause(rule.id, _words(rule.title, here), _words(rule.advice, here))
    raise AssertionError("the last rule matches everything")


_NO_SHM = (
    r"(?i)(insufficient shared memory|Bus error.{0,80}shared memory|No space left on device.{0,20}/dev/shm|/torch_\d+)"
)
_NO_MEMORY = (
    r"MemoryError|std::bad_alloc|DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory|"
    r"failed to map segment from shared object|can't start new thread"
)
_RENDEZVOUS = (
    r"could not reach rank 0 at|rank (?P<absent>\d+) did not come|did not answer within \d+ s|"
    r"(?i:timed out after \d+ seconds waiting for clients)|"
    r"wait timeout after \d+ms|RendezvousTimeoutError|The client socket has timed out"
)


def _words(words: Words, scene: Scene) -> str:
    return words if isinstance(words, str) else words(scene)


RULES: tuple[Rule, ...] = (
    # What the watchdog ended.
    Rule(
        "frozen",
        both(code(EXIT_STALLED), says(r"is frozen")),
        lambda s: f"{s.who} was frozen: a signal (SIGSTOP), a debugger or Ctrl-Z had stopped its process",
        lambda s: (
            f"find out who stops processes on {s.pod.node if s.pod and s.pod.node else 'that machine'}, then "
            + s.resume()
        ),
    ),
    Rule(
        "stalled-data",
        both(code(EXIT_STALLED), logs(r"in _(try_)?get_data|in _next_data|torch/utils/data/dataloader\.py")),
        lambda s: f"{s.who} waited in vain for pictures: a data worker hangs",
        lambda s: s.again("--workers 0") + "  (then the stack names the picture or the file system that hangs)",
    ),
    Rule(
        "stalled-collective",
        both(code(EXIT_STALLED), says(r"waiting for the other ranks")),
        lambda s: f"no rank got on: {s.who} waited for the others, and none of them was seen to hang",
        lambda s: (
            f"compare where the ranks wait: platform logs {s.evidence.run}; if they wait in different places, "
            "they do not make the same calls; if in the same, look at the network between the nodes"
        ),
    ),
    Rule(
        "stalled",
        code(EXIT_STALLED),
        lambda s: f"{s.who} hung: {told(s)}",
        lambda s: f"{s.logs()} shows the stack of every thread; if steps are that slow, raise train.stallSeconds",
    ),
    # Memory, in all its shapes.
    Rule(
        "gpu-out-of-memory",
        says(r"CUDA out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory"),
        lambda s: f"{s.who} ran out of GPU memory",
        lambda s: less_memory(s) + " --amp bf16" if s.train else less_memory(s),
    ),
    Rule(
        "shared-memory",
        either(logs(_NO_SHM), dies("SIGBUS")),
        lambda s: f"{s.who}: shared memory (/dev/shm) is too small for what the data workers hand over",
        lambda s: (
            s.again("--workers 0")
            if s.evidence.spec_file
            else "mount an emptyDir with medium Memory at /dev/shm, or use fewer data workers"
        ),
    ),
    Rule(
        "out-of-memory",
        either(
            reason("OOMKilled"),
            lambda s: {} if s.oom_kills and (s.signal == "SIGKILL" or "killed by signal: Killed" in s.all) else None,
        ),
        lambda s: (
            f"out of memory: the kernel killed {s.who}"
            + (" or its data worker" if s.signal != "SIGKILL" and s.reason != "OOMKilled" else "")
        ),
        less_memory,
    ),
    Rule(
        "out-of-memory-refused",
        says(_NO_MEMORY),
        lambda s: f"out of memory: {s.who} asked for more than it may have: {told(s)}",
        less_memory,
    ),
    # Places to write.
    Rule(
        "disk-full",
        logs(r"(?P<what>No space left on device|Disk quota exceeded|File too large)"),
        lambda s: f"{s.who} could not write: {s.found['what']}",
        lambda s: f"free some space there (see: df -h), then {s.resume()}",
    ),
    Rule(
        "too-many-open-files",
        says(r"(?i)Too many open files|Errno 24\b"),
        lambda s: f"{s.who} has too many files open",
        lambda s: f"ulimit -n 65536 in the shell that starts it, then {s.resume()}",
    ),
    Rule(
        "read-only",
        says(r"Read-only file system(: (?P<path>.+))?"),
        lambda s: f"{s.who} may not write: the file system is read-only",
        lambda s: f"mount it writable, or choose another place, then {s.resume()}",
    ),
    Rule(
        "permission-denied",
        either(
            says(r"Permission denied: (?P<path>'[^']+')"),
            says(r"Permission denied|PermissionError|Operation not permitted"),
        ),
        lambda s: f"{s.who} has no permission{' for ' + s.found['path'] if s.found.get('path') else ''}",
        lambda s: (
            f"ls -ld {s.found['path']} shows owner and mode; give this user access, then {s.resume()}"
            if s.found.get("path")
            else f"give this user access, then {s.resume()}"
        ),
    ),
    # The pictures and labels.
    Rule(
        "nan-loss",
        says(r"the loss became (?P<value>\S+) at step (?P<step>\d+)|(?i:\bloss is (nan|inf))"),
        lambda s: (
            f"{s.who}: the loss became no number"
            + (f" ({s.found['value']}) at step {s.found['step']}" if s.found.get("step") else "")
        ),
        slower,
    ),
    Rule(
        "label-out-of-range",
        logs(r"Target -?(?P<label>\d+) is out of bounds|Assertion `t >= 0 && t < n_classes` failed"),
        lambda s: (
            f"{s.who}: a label is out of range"
            + (f": {s.found['label']} is not below the number of classes" if s.found.get("label") else "")
        ),
        check_data,
    ),
    Rule(
        "ranks-differ",
        says(r"(?P<who>ranks? [\d, .]+) (has|have) other (?P<what>classes|pictures) than rank 0: (?P<how>.+)"),
        lambda s: f"{s.found['who']} found other {s.found['what']} than rank 0: {s.found['how']}",
        lambda s: f"give all nodes the same pictures (one volume, or copy them again), then {s.resume()}",
    ),
    Rule(
        "versions-differ",
        says(r"(?P<who>ranks? [\d, .]+) (has|have) other code version than rank 0"),
        lambda s: f"{s.found['who']} runs another version than rank 0",
        lambda s: f"use the same image, or installation, on all nodes, then {s.resume()}",
    ),
    Rule(
        "picture-unreadable",
        says(r"can no longer be read: (?P<what>.+)"),
        lambda s: f"a picture turned unreadable while {s.who} trained: {s.found['what']}",
        lambda s: s.again("--skip-bad") + "  (or repair the file and resume)",
    ),
    Rule(
        "data-wrong",
        code(EXIT_DATA),
        lambda s: f"the pictures are wrong: {told(s)}",
        lambda s: hint(s, check_data(s)),
    ),
    # What was asked for.
    Rule(
        "checkpoint-mismatch",
        says(r"(?P<field>spec\.\S+?): checkpoint (?P<checkpoint>step-\d+) has (?P<was>.+), this run has (?P<now>.+)"),
        lambda s: (
            f"checkpoint {s.found['checkpoint']} is of another {s.found['field']}: it has {s.found['was']}, "
            f"this run has {s.found['now']}"
        ),
        lambda s: hint(s, f"resume with {s.found['field']} {s.found['was']}, or train anew under another name"),
    ),
    Rule(
        "port-in-use",
        either(
            reason("PortInUse"),
            says(r"(master port (?P<port>\d+)|MASTER_PORT).*([Aa]ddress already in use|EADDRINUSE)"),
        ),
        lambda s: f"the port that the ranks are to meet at is taken: {told(s)}",
        lambda s: (
            "leave MASTER_PORT out of the template: a free port is chosen then"
            if s.reason
            else "choose another port, or end the program that listens there (see: ss -ltnp)"
        ),
    ),
    Rule(
        "not-supported-here",
        reason("NotSupportedLocally"),
        lambda s: f"the job asks for what this machine cannot give: {told(s)}",
        "take that field out of the job, or run it on a cluster",
    ),
    # The installation.
    Rule(
        "package-missing",
        says(r"No module named '?(?P<module>[\w.]+)'?"),
        lambda s: f"{s.who} lacks a Python package: {s.found['module']}",
        lambda s: f"pip install {s.found['module'].split('.')[0]}  (into the Python that trains), then {s.resume()}",
    ),
    Rule(
        "library-broken",
        says(
            r"ImportError: (?P<what>.*(\.so\S*: |undefined symbol|cannot open shared object|wrong ELF class|"
            r"GLIBC\w* |not found|cannot allocate memory in static TLS).*)|(?P<numpy>compiled (using|against) NumPy 1|"
            r"numpy\.dtype size changed|numpy.core.multiarray failed to import|API version 0x)"
        ),
        lambda s: f"a library that {s.who} needs does not fit: {s.found.get('what') or told(s)}",
        lambda s: (
            "pip install 'numpy<2'  (or newer builds of what was compiled against it)"
            if s.found.get("numpy")
            else "reinstall the package together with what it was built for, e.g. torch and torchvision of one release"
        ),
    ),
    Rule(
        "import-error",
        says(r"ImportError: (?P<what>.+)"),
        lambda s: f"{s.who} could not import: {s.found['what']}",
        "install the version that has it (pip show PACKAGE tells which one is there)",
    ),
    Rule(
        "command-not-found",
        either(code(127), both(reason("ContainerCannotRun", "StartError"), says(r"(?i)no such file|not found"))),
        lambda s: f"the pod's command cannot be found: {told(s)}",
        "correct `command` of the container, or use an image that has it",
    ),
    Rule(
        "command-not-executable",
        either(code(126), reason("ContainerCannotRun", "StartError")),
        lambda s: f"the pod's command cannot be started: {told(s)}",
        "correct `command` and `workingDir` of the container; a script needs chmod +x and a first line #!",
    ),
    # The network.
    Rule(
        "rendezvous-timeout",
        says(_RENDEZVOUS),
        lambda s: f"the ranks did not meet: {told(s)}",
        lambda s: (
            f"platform logs {s.evidence.run} --rank {s.found['absent']} ends where that rank stood still"
            if s.found.get("absent")
            else f"see which rank never came (platform status {s.evidence.run}) and why its log ends where it does"
        ),
    ),
    # GPUs.
    Rule(
        "gpu-missing",
        says(
            r"spec\.train\.device: cuda, but|No CUDA GPUs are available|CUDA driver version is insufficient|"
            r"no GPU is visible"
        ),
        lambda s: f"{s.who} has no GPU to use: {told(s)}",
        lambda s: s.again("--device cpu") if s.train else "give the pod a limit nvidia.com/gpu, and see nvidia-smi",
    ),
    Rule(
        "gpu-error",
        says(r"CUDA error: (?P<what>.+)|CUDNN_STATUS_\w+|ncclUnhandledCudaError"),
        lambda s: f"the GPU of {s.who} reported an error: {told(s)}",
        lambda s: f"nvidia-smi -q on that node shows whether the GPU is ill; else {s.resume()}",
    ),
    # Data workers, where nothing above has said why.
    Rule(
        "data-worker-killed",
        either(
            logs(r"DataLoader worker \(pid\S* (?P<pid>[\d, ]+)\) is killed by signal: (?P<signal>[\w ]+)"),
            says(r"DataLoader worker \(pid\S* (?P<pid>[\d, ]+)\) exited unexpectedly"),
        ),
        lambda s: (
            f"a data worker (process {s.found['pid']}) of {s.who} was killed"
            + (f": {s.found['signal'].strip()}" if s.found.get("signal") else "")
        ),
        lambda s: s.again("--workers 0") + "  (if memory is short: fewer workers need less)",
    ),
    Rule(
        "data-worker-exception",
        says(r"Caught (?P<error>\w+) in DataLoader worker process (?P<worker>\d+)"),
        lambda s: (
            f"data worker {s.found['worker']} of {s.who} raised {s.found['error']}"
            + (f": {s.traceback.strip().splitlines()[-1].partition(': ')[2]}" if s.traceback.strip() else "")
        ),
        lambda s: (
            f"repair the line in the excerpt; it can be tried alone with {s.again('--workers 0')}"
            if s.train
            else "repair the line in the excerpt"
        ),
    ),
    Rule(
        "spec-wrong",
        code(EXIT_USER),
        lambda s: f"what was asked for is wrong: {told(s)}",
        lambda s: hint(s, "correct that and train again; platform train --dry-run shows the resolved spec"),
    ),
    # Deaths.
    Rule(
        "segfault",
        dies("SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE"),
        lambda s: f"{s.who} crashed in compiled code: it {exit_words(s.code, s.signal).partition(': ')[2]}",
        lambda s: (
            "install this release of the library for another processor (pip install --force-reinstall torch)"
            if s.signal == "SIGILL"
            else f"the stack in the excerpt names the call; it happens again after {s.resume()}? then change that "
            "library's version"
        ),
    ),
    Rule(
        "killed",
        dies("SIGKILL"),
        lambda s: f"{s.who} was killed from outside (SIGKILL); no cgroup counted a kill for memory",
        lambda s: f"dmesg | grep -i 'killed process' tells whether the machine ran out of memory; else {s.resume()}",
    ),
    Rule(
        "killed-by-signal",
        lambda s: {} if s.signal and s.signal != "SIGTERM" else None,
        lambda s: f"{s.who} was ended by {s.signal}",
        lambda s: s.resume(),
    ),
    Rule(
        "stopped",
        code(EXIT_SIGTERM),
        lambda s: f"{s.who} was asked to stop from outside (SIGTERM) and checkpointed",
        lambda s: s.resume(),
    ),
    # What a cluster takes away or cannot give.
    Rule(
        "node-lost",
        reason("Evicted", "Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", names.REASON_NODE_LOST),
        lambda s: (
            f"what {s.pod.title if s.pod else s.who} ran on was taken away ({s.reason}): "
            f"{s.message or 'no more is known'}"
        ),
        lambda s: f"nothing is wrong with the run: {s.resume()}",
    ),
    Rule(
        "image",
        reason("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        lambda s: f"the image of {s.pod.title if s.pod else s.who} cannot be pulled: {s.message or s.reason}",
        lambda s: (
            "correct `image`, or name the registry's secret in imagePullSecrets"
            if not search(r"(?i)unauthorized|denied|authentication", s.message)
            else "name a secret that may read the registry in imagePullSecrets"
        ),
    ),
    Rule(
        "configuration-missing",
        reason("CreateContainerConfigError", "CreateContainerError"),
        lambda s: f"{s.pod.title if s.pod else s.who} lacks what its container needs: {s.message}",
        "create the object that the message names, or take the reference out of the template",
    ),
    Rule(
        "unschedulable",
        reason(names.REASON_UNSCHEDULABLE),
        lambda s: f"no node has room for {s.pod.title if s.pod else s.who}: {s.message}",
        "lower resources.requests, correct the node selector or the claim that the message names",
    ),
    Rule(
        "peer-lost",
        code(EXIT_PEER_LOST),
        lambda s: f"{s.who} lost contact with another rank, and none said why",
        lambda s: f"platform logs {s.evidence.run} has what each rank wrote last; then {s.resume()}",
    ),
    # The user's own code, or what no rule knows.
    Rule(
        "exception",
        lambda s: {} if s.traceback or s.message else None,
        lambda s: f"{s.who} raised an error: {told(s)}",
        lambda s: hint(s, f"repair the line in the excerpt, then {s.resume()}"),
    ),
    Rule(
        "unknown",
        lambda _: {},
        lambda s: (
            f"{s.who} ended: {exit_words(s.code, s.signal)}" if s.code is not None else s.sentence or "no pod says why"
        ),
        lambda s: f"{s.logs()} has all that it wrote",
    ),
)
