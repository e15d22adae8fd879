"""The memory of a rank's GPU, as a scrape is told of it. What the driver's own exporter says is of the whole card."""

from __future__ import annotations

import torch

from trainserve.observe import prometheus
from trainserve.observe.exposition import Numbers


def gpu_memory(device: torch.device) -> Numbers:
    """Bytes that tensors hold and held at most, and what the card has; nothing on a CPU. Waits for no kernel."""
    if device.type != "cuda":
        return {}
    return {
        prometheus.GPU_USED: float(torch.cuda.memory_allocated(device)),
        prometheus.GPU_PEAK: float(torch.cuda.max_memory_allocated(device)),
        prometheus.GPU_SIZE: float(torch.cuda.get_device_properties(device).total_memory),
    }
