"""Progress as Prometheus reads it (text format 0.0.4). Pure, and without its client library: a training image has none.

No labels: a scrape adds the pod's own. The rank serves one job only.
"""

from __future__ import annotations

from trainserve.observe.progress import Progress

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name -> (field of the progress, what it is)
_GAUGES = {
    "trainserve_training_epoch": ("epoch", "The present epoch, from 1."),
    "trainserve_training_epochs": ("epochs", "Epochs in all."),
    "trainserve_training_step": ("step", "Optimizer steps done, over all epochs."),
    "trainserve_training_steps": ("steps", "Steps in all."),
    "trainserve_training_loss": ("loss", "Loss of the newest training step told."),
    "trainserve_training_top1_ratio": ("top1", "Share of the validation pictures answered rightly, 0 to 1."),
    "trainserve_training_images_per_second": ("imagesPerSecond", "Pictures a second, over the whole job."),
    "trainserve_training_eta_seconds": ("etaSeconds", "Seconds until the end of training."),
    "trainserve_training_checkpoint_step": ("checkpointStep", "Step of the newest checkpoint."),
    "trainserve_training_stalled": ("stalled", "1 while no step has come for a long time."),
}
_GENERATION = "trainserve_training_generation"


def exposition(progress: Progress, generation: int) -> str:
    """One gauge a known field, and the generation of the gang: how often it was started."""
    lines = [
        f"# HELP {_GENERATION} Start of the gang, from 1: every restart and resume counts one more.",
        f"# TYPE {_GENERATION} gauge",
        f"{_GENERATION} {generation}",
    ]
    for name, (field, meaning) in _GAUGES.items():
        if field in progress:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name} {float(progress[field])!r}"]
    return "\n".join(lines) + "\n"
