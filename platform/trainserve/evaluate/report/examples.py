"""Pictures worth showing: mistakes, what each pair of confused classes looks like, where the network looked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.infer import Network, network
from trainserve.evaluate.measures import Measures
from trainserve.evaluate.report import network as look
from trainserve.evaluate.report.content import Example, FirstLayer, PairExamples
from trainserve.evaluate.report.picture import SIDE_PX, embedded, overlay, thumbnail
from trainserve.package.bundle import Bundle
from trainserve.train.folders import as_text
from trainserve.train.preprocess import Preprocessing

PAIRS = 10
MISTAKES = 4  # of a pair
WORST = 12
OF_A_PAIR = 2  # at most so many of the worst are of one pair: twelve times the same mistake teaches little


def example(evaluation: Evaluation, index: int, preprocessing: Preprocessing | None = None) -> Example:
    """Answered picture number `index`; with `preprocessing` its thumbnail too, where the file can be read."""
    actual = evaluation.classes[evaluation.labels[index]]
    predicted = evaluation.predicted_name(index)
    assert predicted is not None, f"picture {index} has no answer"
    name = as_text(evaluation.pictures[index])
    words = actual if actual == predicted else f"{actual}, taken for {predicted}"
    shown = None
    if preprocessing is not None:
        shown = thumbnail(evaluation.root / evaluation.pictures[index], preprocessing, words)
    return Example(name, actual, predicted, float(evaluation.confidence[index]), shown)


def worst_of(evaluation: Evaluation, measures: Measures) -> list[int]:
    """The surest mistakes, not too many of one pair; without a mistake, the least sure right answers."""
    if not measures.worst:
        order = np.argsort(evaluation.confidence, kind="stable")
        return [int(index) for index in order[evaluation.answered[order]][:WORST]]
    chosen: list[int] = []
    seen: dict[tuple[int, int], int] = {}
    for index in measures.worst:
        pair = int(evaluation.labels[index]), int(evaluation.predicted[index])
        if seen.get(pair, 0) < OF_A_PAIR:
            seen[pair] = seen.get(pair, 0) + 1
            chosen.append(index)
        if len(chosen) == WORST:
            break
    return chosen


def pairs(evaluation: Evaluation, measures: Measures, preprocessing: Preprocessing | None) -> tuple[PairExamples, ...]:
    """The most confused pairs with pictures; without `preprocessing` with names only."""
    found = []
    labels, predicted = evaluation.labels, evaluation.predicted
    sure = np.argsort(-evaluation.confidence, kind="stable")
    index_of = {name: index for index, name in enumerate(evaluation.classes)}
    for pair in measures.confused[:PAIRS]:
        actual, answered = index_of[pair.actual], index_of[pair.predicted]
        wrong = [k for k in sure if labels[k] == actual and predicted[k] == answered][:MISTAKES]

        def typical(label: int) -> Example | None:
            best = next((k for k in sure if labels[k] == predicted[k] == label), None)
            return None if best is None else example(evaluation, int(best), preprocessing)

        found.append(
            PairExamples(
                pair.actual,
                pair.predicted,
                pair.count,
                pair.share,
                tuple(example(evaluation, int(k), preprocessing) for k in wrong),
                typical(actual),
                typical(answered),
            )
        )
    return tuple(found)


class Looker:
    """A bundle's network, asked where it looks."""

    def __init__(self, bundle: Bundle) -> None:
        self._network: Network = network(bundle, "cpu")  # a dozen pictures: no GPU is worth its start
        self.preprocessing = Preprocessing.from_dict(bundle.description.preprocessing)
        self._index = {name: index for index, name in enumerate(bundle.description.classes)}

    def with_cam(self, found: Example, root: Path, picture: str) -> Example:
        """`found` as the network sees it, with Grad-CAM of both classes; without where the file cannot be read."""
        image = self._image(root / picture)
        if image is None:
            return found
        square = look.seen(image, self.preprocessing.mean, self.preprocessing.std)
        classes = [found.predicted] if found.actual == found.predicted else [found.predicted, found.actual]
        heats = look.grad_cam(
            self._network.model, torch.stack([image] * len(classes)), [self._index[name] for name in classes]
        )
        shown = [
            embedded(overlay(_enlarged(square), heat), f"where it looked for {name}")
            for name, heat in zip(classes, heats, strict=True)
        ]
        alt = f"{found.actual}, taken for {found.predicted}, as the network sees it"
        return Example(
            found.picture,
            found.actual,
            found.predicted,
            found.confidence,
            embedded(square, alt),
            shown[0],
            shown[1] if len(shown) > 1 else None,
        )

    def cam_words(self) -> str:
        """What a Grad-CAM here can tell, with the size of its map."""
        size = self.preprocessing.image_size
        side = look.grad_cam(self._network.model, torch.zeros(1, 3, size, size), [0]).shape[-1]
        coarse = ": too coarse to tell strokes apart, only regions" if side <= 3 else ""
        return (
            f"Grad-CAM on the last block (layer4), whose map has {side} x {side} fields for pictures of "
            f"{size} px{coarse}. Bright is what spoke for the class."
        )

    def first_layer(self, path: Path | None) -> FirstLayer:
        """Filters, and the maps of the picture in `path` where it can be read."""
        model = self._network.model
        kernels = look.filters(model)
        maps = square = None
        image = None if path is None else self._image(path)
        if image is not None:
            maps = embedded(look.feature_maps(model, image), "64 feature maps of the first convolution", 640)
            square = embedded(look.seen(image, self.preprocessing.mean, self.preprocessing.std), "the picture")
        weight = model.get_submodule("conv1").weight
        assert isinstance(weight, torch.Tensor)
        count, _, side, _ = weight.shape
        words = f"{count} filters of {side} x {side} pixels"
        return FirstLayer(embedded(kernels, f"{count} filters of the first convolution", 640), maps, square, words)

    def _image(self, path: Path) -> torch.Tensor | None:
        try:
            return self._network.tensor(path.read_bytes())
        except (OSError, ValueError):  # gone, or changed since
            return None


def _enlarged(square: Image.Image) -> Image.Image:
    """Small pictures by whole factors, pixel by pixel, so that the heat over them is smooth."""
    factor = max(1, SIDE_PX // square.width)
    return square.resize((square.width * factor, square.height * factor), Image.Resampling.NEAREST)
