"""Memory, in all its shapes, and places to write."""

from __future__ import annotations

from trainserve.observe.why.conditions import dies, either, less_memory, logs, reason, says, told
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import Scene

_NO_SHM = (
    r"(?i)(insufficient shared memory|Bus error.{0,80}shared memory|No space left on device.{0,20}/dev/shm|/torch_\d+)"
)
_NO_MEMORY = (
    r"MemoryError|std::bad_alloc|DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory|"
    r"failed to map segment from shared object|can't start new thread"
)


def _was_a_child(scene: Scene) -> bool:
    """Whether the training process itself lived on: the kernel chose a data worker, or the kubelet counts any child."""
    return scene.signal != "SIGKILL" and scene.code != 137


def _of_how_much(scene: Scene) -> str:
    """The limit, and the largest process, as far as they are known."""
    pod = scene.pod
    limit = f"the limit is {pod.memory_limit}" if pod is not None and pod.memory_limit else ""
    peak = pod.report.get("peakMib") if pod is not None else None
    words = ", ".join(filter(None, (limit, f"its largest process had {peak} MiB" if peak else "")))
    return f" ({words})" if words else ""


RULES: tuple[Rule, ...] = (
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
            + (" or a process that it had started" if _was_a_child(s) else "")
            + _of_how_much(s)
        ),
        less_memory,
    ),
    Rule(
        "out-of-memory-refused",
        says(_NO_MEMORY),
        lambda s: f"out of memory: {s.who} asked for more than it may have: {told(s)}",
        less_memory,
    ),
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
)
