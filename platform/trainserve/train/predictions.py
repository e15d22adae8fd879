"""What the finished network says of every validation picture, so that serving can be compared picture by picture."""

from __future__ import annotations

from typing import TypedDict

import torch

from trainserve.train import data
from trainserve.train.architecture import build
from trainserve.train.checkpoint import Checkpoint
from trainserve.train.distributed import Group
from trainserve.train.recipe import Recipe

BATCH = 32

# One line of predictions.jsonl. `class` is a keyword, hence this form.
Prediction = TypedDict("Prediction", {"picture": str, "class": str, "predicted": str, "probability": float})


@torch.inference_mode()
def predictions(recipe: Recipe, group: Group, best: Checkpoint | None, *, cores: int) -> list[Prediction]:
    """One row a validation picture, in the listing's order, on every rank: each rank computes its share, in float32.

    `best` is given on rank 0 and sent to the others. Pictures that can no longer be read are left out.
    """
    model = build(recipe.classifier.spec.model.arch, len(recipe.classes), recipe.stem)
    if best is not None:
        model.load_state_dict(best.weights)
    model = model.to(group.device).eval()
    for tensor in model.state_dict().values():
        group.broadcast(tensor)
    val = recipe.listing.val
    shard = data.val_shard(len(val), BATCH, group.rank, group.world_size)
    pictures = data.Pictures(recipe.listing.root, val, recipe.preprocessing)
    cached = data.fits_cache(len(val), 2 * recipe.preprocessing.resize)
    workers = data.loader_workers(recipe.train.workers, cores, group.ranks_here, cached)
    own: list[tuple[int, int, float]] = []
    for keys, batch in zip(shard, data.loader(pictures, shard, workers, pin=False), strict=True):
        top = model(batch.images.to(group.device)).softmax(dim=1).max(dim=1)
        rows = zip(keys, batch.labels.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
        own += [(index, predicted, p) for (_, index), label, predicted, p in rows if label != data.IGNORED]
    everywhere = [row for part in group.exchange("predictions", own) for row in part]
    return [
        {
            "picture": val[index].path,
            "class": recipe.classes[val[index].label],
            "predicted": recipe.classes[predicted],
            "probability": round(p, 6),
        }
        for index, predicted, p in sorted(everywhere)
    ]
