"""`fit`: the training of one rank, from fresh weights or a checkpoint to the last step, top to bottom."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)
from torch.nn.parallel import DistributedDataParallel

from trainserve.errors import DataError, RunFailed, SpecError
from trainserve.observe.heartbeat import Pulse
from trainserve.train import checkpoint as checkpoints
from trainserve.train import data, weights
from trainserve.train.agreement import Agreement, StopRequest, Verdict, agreed
from trainserve.train.architecture import build
from trainserve.train.data import Batch, Pictures
from trainserve.train.distributed import Group
from trainserve.train.grace import Grace
from trainserve.train.metrics import Sums
from trainserve.train.optim import lr_at, sgd
from trainserve.train.recipe import Recipe
from trainserve.train.report import Report
from trainserve.train.state import Progress, Trainer, restore, snapshot


@dataclass(frozen=True)
class Outcome:
    """How `fit` ended."""

    finished: bool  # False: stopped on request, with a checkpoint
    step: int
    seconds: float  # trained, over all generations
    skipped: int = 0  # pictures that turned unreadable after the check, over all ranks


def fit(
    recipe: Recipe,
    group: Group,
    output: Path,
    report: Report,
    stop: StopRequest,
    *,
    cores: int,
    pulse: Pulse | None = None,
    grace: Grace | None = None,
) -> Outcome:
    """Train. Only rank 0 touches `output`. `pulse` tells the node's agent that this rank gets on, or what it waits for.

    `grace` is the time between a stop and the end of the pod; a checkpoint that hardly fits is told.

    Raises RunFailed when the loss is no number, DataError for a picture that turned unreadable, SpecError for a
    checkpoint that does not fit, EnvironmentProblem for a full disk, RuntimeError of torch when a peer is lost.
    """
    train, device, begun = recipe.train, group.device, time.monotonic()
    if train.amp == "fp16" and device.type == "cpu":
        raise SpecError("spec.train.amp: fp16 needs a GPU, and training is on the CPU", hint="use --amp bf16")
    torch.manual_seed(train.seed)
    model = build(recipe.classifier.spec.model.arch, len(recipe.classes), recipe.stem)
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format  # on a CPU it gains nothing
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    trainer = Trainer(model, sgd(model, train), torch.amp.GradScaler(device.type, enabled=train.amp == "fp16"))
    progress = restore(trainer, recipe, group, output, report.notice)
    if not progress.step:
        with stop.nothing_to_lose():  # a download may take minutes
            weights.begin(model, recipe, group, output, report.notice)
    _announce(recipe, group, progress, report)
    report.open_board(progress.step)
    parallel = _parallel(trainer, recipe, group)
    pulse = pulse or Pulse()
    grace = grace or Grace()
    agreement = Agreement(group, pulse)
    order, train_batches, val_batches = _loaders(recipe, group, cores)
    skipped, loss_before = 0, torch.zeros(())

    def save() -> None:
        # Synchronisation point: rank 0's batch-norm statistics are the ones that count, and all have reached this step.
        save_begun = time.monotonic()
        pulse.expect("a checkpoint")  # on all ranks: those that write nothing soon wait for the one that does
        pulse.waits()
        sums = group.summed(progress.sums.values)
        pulse.works()
        _refuse_nan(float(sums[0]), progress.step, recipe)  # weights of a bad step are never saved
        if group.is_first:
            taken = snapshot(trainer, recipe, progress, sums, progress.seconds + time.monotonic() - begun)
            folder = checkpoints.save(taken, output, keep_last=train.keep_last)
            report.event("checkpoint", checkpoint=folder.name, step=progress.step)
            hardly_fits = grace.warning(f"the checkpoint of step {progress.step}", time.monotonic() - save_begun)
            if hardly_fits:
                report.notice(hardly_fits)

    def ended(finished: bool) -> Outcome:
        total = int(group.summed(torch.tensor([skipped]))[0])
        return Outcome(finished, progress.step, progress.seconds + time.monotonic() - begun, total)

    def tell(verdict: Verdict) -> None:
        # On a GPU the loss is that of the step before, which was there already: nothing waited for this one.
        _refuse_nan(verdict.loss, progress.step - (device.type != "cpu"), recipe)
        epoch = (progress.step - 1) // recipe.steps_per_epoch
        report.step(
            progress.step, epoch=epoch + 1, loss=verdict.loss,
            lr=lr_at(progress.step - 1, train, recipe.steps_per_epoch), batch=train.batch_size,
            steps_left=recipe.total_steps - progress.step, vals_left=train.epochs - epoch,
        )  # fmt: skip

    while progress.step < recipe.total_steps or not progress.validated:
        if progress.validated:  # else a resume from an epoch's end, where only its validation is left to do
            order.epoch, order.first_step = divmod(progress.step, recipe.steps_per_epoch)
            model.train()
            report.steps_begin(progress.step)
            pulse.expect("the first pictures")  # loader processes start; on a GPU kernels are chosen, too
            for batch in train_batches:
                verdict = agreement.result()  # of the last step: it has arrived while this batch was prepared
                if verdict is not None:
                    tell(verdict)
                    due = train.checkpoint_every_steps and progress.step % train.checkpoint_every_steps == 0
                    if due or verdict.stop:
                        save()
                    if verdict.stop:
                        return ended(finished=False)
                skipped += _problems(batch, recipe)
                lr = lr_at(progress.step, train, recipe.steps_per_epoch)
                for param_group in trainer.optimizer.param_groups:
                    param_group["lr"] = lr
                images = batch.images.to(device, non_blocking=True, memory_format=layout)
                labels = batch.labels.to(device, non_blocking=True)
                with _autocast(train.amp, device):
                    logits = parallel(images)
                losses = F.cross_entropy(
                    logits.float(),
                    labels,
                    reduction="none",
                    label_smoothing=train.label_smoothing,
                    ignore_index=data.IGNORED,
                )
                loss = losses.sum() / labels.ne(data.IGNORED).sum().clamp(min=1)
                trainer.optimizer.zero_grad(set_to_none=True)
                pulse.waits()
                trainer.scaler.scale(loss).backward()  # Synchronisation point: gradients are averaged over ranks
                trainer.scaler.step(trainer.optimizer)
                trainer.scaler.update()
                progress.step += 1
                progress.sums.add(logits, labels, losses)
                agreement.post(stop.requested, (loss if device.type == "cpu" else loss_before).item())
                loss_before = loss.detach()
                pulse.step(progress.step)
            pulse.expect("the end of an epoch")
            verdict = agreement.result()
            if verdict is not None:
                tell(verdict)
            progress.validated = False
            save()  # before the validation: whatever happens in it, the epoch is not lost
            if verdict is not None and verdict.stop:
                return ended(finished=False)
        # Synchronisation point: every rank measures its share of the validation pictures with rank 0's statistics.
        pulse.expect("a validation")
        pulse.waits()
        for buffer in model.buffers():
            group.broadcast(buffer)
        pulse.works()
        val_begun = time.monotonic()
        rounds = data.val_rounds(len(recipe.listing.val), val_batch(recipe), group.world_size)
        sums, unread = evaluate(model, agreed(val_batches, rounds, agreement, stop), device, train.amp, recipe)
        skipped += unread
        verdict = agreement.result()
        if verdict is None:  # all left the validation at the same batch
            return ended(finished=False)
        pulse.expect("the end of a validation")
        pulse.waits()
        val_loss, top1, top5 = Sums(group.summed(sums.values)).means()
        train_loss, train_top1, _ = Sums(group.summed(progress.sums.values)).means()
        pulse.works()
        _refuse_nan(train_loss + val_loss, progress.step, recipe)
        report.val_took(time.monotonic() - val_begun)
        progress.validated, progress.sums = True, Sums()
        progress.metrics = {"trainLoss": train_loss, "valLoss": val_loss, "top1": top1, "top5": top5}
        if progress.best is None or top1 >= progress.best["top1"]:  # of equals, the later one
            progress.best = {"checkpoint": checkpoints.folder_name(progress.step), "top1": top1}
        told = {**progress.metrics, "trainTop1": train_top1}
        report.epoch(progress.step // recipe.steps_per_epoch, train.epochs, progress.step, told)
        if group.is_first:
            checkpoints.record_validation(
                output, progress.step, metrics=progress.metrics, best=progress.best,
                seconds=progress.seconds + time.monotonic() - begun, keep_last=train.keep_last,
            )  # fmt: skip
        if verdict.stop and progress.step < recipe.total_steps:
            return ended(finished=False)
    pulse.rest()  # what follows, predictions and packaging, has no steps
    return ended(finished=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, amp: str, recipe: Recipe
) -> tuple[Sums, int]:
    """Sums over this rank's batches, and how many pictures could not be read. No communication of its own."""
    model.eval()
    sums, skipped = Sums(), 0
    for batch in batches:
        skipped += _problems(batch, recipe)
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        with _autocast(amp, device):
            logits = model(images)
        losses = F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=data.IGNORED)
        sums.add(logits, labels, losses)
    return sums, skipped


def val_batch(recipe: Recipe) -> int:
    """Pictures that a process validates at once."""
    return max(recipe.share, 32)


def _parallel(trainer: Trainer, recipe: Recipe, group: Group) -> nn.Module:
    """The model that averages gradients over ranks."""
    if group.world_size == 1:
        return trainer.model
    # Before validation and checkpoint is enough for batch-norm's statistics: training does not read them.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its name before 2.15
    no_sync: dict[str, Any] = {name: False}
    model = DistributedDataParallel(
        trainer.model,
        device_ids=[group.device] if group.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **no_sync,
    )
    # The first backward tells DDP the order in which gradients come, and it regroups them for all later steps, which
    # changes the last bit of their sums. One rehearsal puts a resumed run and an undisturbed one in the same state.
    before = [buffer.clone() for buffer in trainer.model.buffers()]
    size = recipe.preprocessing.image_size
    shape = (max(2, recipe.share), 3, size, size)
    images = torch.linspace(-1, 1, math.prod(shape), device=group.device).view(shape)
    trainer.model.train()
    with _autocast(recipe.train.amp, group.device):
        output = model(images)
    output.float().sum().backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    for buffer, value in zip(trainer.model.buffers(), before, strict=True):
        buffer.copy_(value)
    return model


def _loaders(recipe: Recipe, group: Group, cores: int) -> tuple[data.TrainOrder, Any, Any]:
    """The order of the training batches, their loader, and the loader of this rank's validation batches."""
    listing, train, spec = recipe.listing, recipe.train, recipe.classifier.spec.data
    workers = recipe.loader_processes(cores, group.ranks_here)
    room = data.CACHE_BYTES if recipe.cached and workers == 0 else 0
    pictures = Pictures(
        listing.root, listing.train, recipe.preprocessing, seed=train.seed, augment=spec.augment, cache_bytes=room
    )
    fixed = Pictures(listing.root, listing.val, recipe.preprocessing, cache_bytes=room)
    order = data.TrainOrder(len(listing.train), train.batch_size, train.seed, group.rank, group.world_size)
    shard = data.val_shard(len(listing.val), val_batch(recipe), group.rank, group.world_size)
    pin = group.device.type == "cuda"
    return order, data.loader(pictures, order, workers, pin), data.loader(fixed, shard, workers, pin)


def _announce(recipe: Recipe, group: Group, progress: Progress, report: Report) -> None:
    for notice in (*group.notices, *recipe.notices):
        report.notice(notice)
    facts = {
        "job": recipe.classifier.metadata.name,
        "arch": recipe.classifier.spec.model.arch,
        "stem": recipe.stem,
        "imageSize": recipe.preprocessing.image_size,
        "classes": len(recipe.classes),
        "trainSamples": len(recipe.listing.train),
        "valSamples": len(recipe.listing.val),
        "epochs": recipe.train.epochs,
        "stepsPerEpoch": recipe.steps_per_epoch,
        "worldSize": group.world_size,
        "batchSize": recipe.train.batch_size,
        "device": group.device.type,
    }
    if progress.step:
        epoch = (progress.step - 1) // recipe.steps_per_epoch + 1
        known = {"top1": progress.metrics["top1"]} if "top1" in progress.metrics else {}
        report.event(
            "resume",
            checkpoint=checkpoints.folder_name(progress.step),
            epoch=epoch,
            step=progress.step,
            **known,
            **facts,
        )
    else:
        report.event("start", **facts)


def _problems(batch: Batch, recipe: Recipe) -> int:
    """Pictures of the batch that can no longer be read. Raises DataError unless they are to be skipped."""
    if batch.problems and not recipe.classifier.spec.data.skip_bad:
        raise DataError(
            f"a picture in {recipe.listing.root} can no longer be read: {batch.problems[0]}",
            hint="it was readable when training began, or was not checked; repair it, or use --skip-bad",
        )
    return len(batch.problems)


def _refuse_nan(loss: float, step: int, recipe: Recipe) -> None:
    if math.isfinite(loss):
        return
    lr = lr_at(step - 1, recipe.train, recipe.steps_per_epoch)
    raise RunFailed(
        f"the loss became {loss} at step {step} (epoch {(step - 1) // recipe.steps_per_epoch + 1}, "
        f"learning rate {lr:.4g})",
        hint="use a smaller --lr or a longer warm-up (spec.train.warmupEpochs); with --amp fp16 try bf16",
    )


def _autocast(amp: str, device: torch.device) -> AbstractContextManager[Any]:
    if amp == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if amp == "bf16" else torch.float16)
