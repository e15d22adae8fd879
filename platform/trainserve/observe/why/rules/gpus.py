"""GPUs."""

from __future__ import annotations

from trainserve.observe.why.conditions import says, told
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
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
)
