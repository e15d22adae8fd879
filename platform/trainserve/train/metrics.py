"""Exact sums of loss, top-1 and top-5 over pictures, then over ranks: no mean of means."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Sums:
    """Sums over pictures, in float64 on the device of the logits: [loss, top-1 hits, top-5 hits, pictures]."""

    values: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))

    def add(self, logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor) -> None:
        """Count a batch: logits [B, K], labels [B] (negative: not counted), losses [B]. No synchronisation."""
        top = logits.detach().topk(min(5, logits.shape[1]), dim=1).indices  # with fewer than 5 classes top-5 is 1
        hits = top.eq(labels[:, None]).to(torch.float64)
        counted = labels.ge(0).to(torch.float64)
        loss = losses.detach().to(torch.float64).sum()
        if self.values.device != logits.device:
            self.values = self.values.to(logits.device)
        self.values += torch.stack([loss, hits[:, 0].sum(), hits.sum(), counted.sum()])

    @property
    def count(self) -> int:
        return int(self.values[3].item())

    def means(self) -> tuple[float, float, float]:
        """Loss, top-1 and top-5 a picture; of no picture (0, 0, 0)."""
        loss, top1, top5, count = self.values.tolist()
        return (loss / count, top1 / count, top5 / count) if count else (0.0, 0.0, 0.0)
