"""What a scrape is told of a GPU; with a stand-in for torch's allocator where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trainserve.launch.gpumemory import gpu_memory
from trainserve.observe import prometheus


def test_a_cpu_has_none() -> None:
    assert gpu_memory(torch.device("cpu")) == {}


def test_bytes_of_the_rank_and_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def says(value: object) -> object:
        def answer(device: torch.device) -> object:
            asked.append(device)
            return value

        return answer

    monkeypatch.setattr(torch.cuda, "memory_allocated", says(3))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", says(5))
    monkeypatch.setattr(torch.cuda, "get_device_properties", says(SimpleNamespace(total_memory=80)))
    device = torch.device("cuda", 1)
    assert gpu_memory(device) == {prometheus.GPU_USED: 3, prometheus.GPU_PEAK: 5, prometheus.GPU_SIZE: 80}
    assert asked == [device] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU HERE: that torch counts these bytes was not seen")
def test_a_real_gpu() -> None:
    device = torch.device("cuda", 0)
    held = torch.zeros(1 << 20, device=device)
    numbers = gpu_memory(device)
    assert held.nbytes <= numbers[prometheus.GPU_USED] <= numbers[prometheus.GPU_PEAK] < numbers[prometheus.GPU_SIZE]
