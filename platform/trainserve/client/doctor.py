"""What this machine has of what training and serving need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainserve.errors import PlatformError
from trainserve.kube import names
from trainserve.machine import cgroup, checks, packages
from trainserve.machine.check import Check
from trainserve.machine.home import home, user_home
from trainserve.machine.usage import size_words
from trainserve.serve.java import find_java

TORCH_S = 60.0  # importing torch from a cold disk takes some ten seconds
# A process of its own: an import that crashes or hangs is a finding, and no verb of ours pays for it otherwise.
ASK_TORCH = """\
import json, torch, torchvision
cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "torch": torch.__version__, "torchvision": torchvision.__version__, "built": torch.version.cuda,
    "gpus": [[gpu.name, gpu.total_memory] for gpu in gpus],
    "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda and torch.distributed.is_nccl_available() else None,
    "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
}))
"""


def doctor(environment: Mapping[str, str] | None = None) -> list[Check]:
    """Every check, in the order to read them. Takes as long as torch's import; nothing that it writes stays."""
    environment = os.environ if environment is None else environment
    asked = subprocess.Popen(
        [sys.executable, "-c", ASK_TORCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    try:  # meanwhile everything else
        folder = home()
        found = [
            checks.python(),
            packages.check("", "every verb", required=True),
            packages.check("train", "train, evaluate, package", required=True),
            packages.check("serve", "serve, predict", required=True),
            packages.check("export", "export", required=False),
            packages.check("operator", "Kubernetes", required=False),
            image(),
        ]
        machine = [
            checks.cores(),
            checks.memory(cgroup.total_memory(), cgroup.memory_limit()),
            checks.shared_memory(),
            checks.disk(folder),
            *checks.home_folder(folder),
            checks.open_files(),
            checks.loopback(),
            java(environment),
            *(checks.program(name, use, fix, environment.get("PATH")) for name, use, fix in PROGRAMS),
            checks.terminal(
                shutil.get_terminal_size().columns, sys.stdout.encoding if sys.stdout else None,
                is_terminal=bool(sys.stdout and sys.stdout.isatty()),
            ),
            checks.completion(environment, user_home()),
        ]  # fmt: skip
        try:
            said, problem = asked.communicate(timeout=TORCH_S)
        except subprocess.TimeoutExpired:
            said, problem = "", f"its import takes longer than {TORCH_S:.0f} s"
    finally:
        if asked.poll() is None:
            asked.kill()
            asked.communicate()
    return [*found, *torch(said, problem, nvidia=_has_nvidia()), *machine]


PROGRAMS = (
    ("kubectl", "runs on a Kubernetes cluster", "https://kubernetes.io/docs/tasks/tools"),
    ("helm", "serving on a Kubernetes cluster", "https://helm.sh/docs/intro/install"),
    ("docker", "building images for a cluster", "https://docs.docker.com/engine/install"),
)


def torch(said: str, problem: str, *, nvidia: bool) -> list[Check]:
    """The lines on torch, from what ASK_TORCH printed and what it wrote to stderr."""
    use = "train, evaluate, package; TorchServe's workers"
    lines = said.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = {}
    if "torch" not in found:
        reason = (problem.strip().splitlines() or ["it ended without a word"])[-1]
        return [
            Check(
                "torch", "missing", f"import torch, torchvision: {reason}", use, fix="pip install 'trainserve[train]'"
            )
        ]
    versions = f"torch {found['torch']}, torchvision {found['torchvision']}"
    if not found["gloo"]:
        first = Check(
            "torch", "missing", f"{versions}, without gloo", use, fix="install a torch with torch.distributed"
        )
    else:
        first = Check("torch", "ok", versions, use)
    return [first, _gpu(found, nvidia=nvidia)]


def java(environment: Mapping[str, str]) -> Check:
    """Which Java TorchServe would get."""
    use = "serve (TorchServe); --engine native goes without"
    try:
        found = find_java(environment)
    except PlatformError as error:
        return Check("Java", "missing", error.message, use, fix=error.hint or "")
    return Check("Java", "ok", f"{found.version}: {found.executable}", use)


def image() -> Check:
    """What pods of a cluster run where nobody names another image. Nothing is asked of its registry."""
    use = "runs on a Kubernetes cluster, whose nodes pull it; --image names another"
    return Check("image", "ok", names.image_for(names.IMAGE_TRAINER), use, required=False)


def _gpu(found: dict[str, Any], *, nvidia: bool) -> Check:
    use = "faster training; everything goes on CPUs too"
    if found["gpus"]:
        cards = ", ".join(f"{name} ({size_words(memory)})" for name, memory in found["gpus"])
        if found["nccl"]:
            return Check("GPU", "ok", f"{cards}; NCCL {found['nccl']}", use, required=False)
        return Check("GPU", "warning", f"{cards}; no NCCL: ranks cannot exchange gradients", use, required=False,
                     fix="install torch's CUDA build for Linux")  # fmt: skip
    if nvidia:
        built = f"torch is built for CUDA {found['built']}" if found["built"] else "torch is built without CUDA"
        return Check("GPU", "warning", f"NVIDIA's driver is here, but torch sees no GPU: {built}", use, required=False,
                     fix="nvidia-smi shows the driver's CUDA version: install a torch for it")  # fmt: skip
    return Check("GPU", "ok", "none: runs use CPUs", use, required=False)


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
