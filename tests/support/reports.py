"""Made-up runs for tests of reports: always the same, with names that a page must bear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.measures import measure
from trainserve.evaluate.report import origin
from trainserve.evaluate.report.content import DataFacts, Example, Facts, FirstLayer, PairExamples, Picture, RunReport
from trainserve.evaluate.report.examples import worst_of
from trainserve.evaluate.report.history import history
from trainserve.evaluate.report.picture import embedded
from trainserve.observe.events import Event
from trainserve.spec.classifier import Classifier

# What a folder may be called: markup, a quote, right to left, an override of direction, no space in 60 letters, emoji.
ODD = (
    "<script>alert(1)</script>", "\"'&amp;", "كلب أسود كبير", "\u202egnorw", "x" * 60, "🌻 sunflower", "daisy",
    "</style><img src=x onerror=alert(2)>",
)  # fmt: skip


def names(count: int) -> tuple[str, ...]:
    """So many classes, the odd ones first where there is room for all."""
    odd = ODD if count > len(ODD) else ()
    return (*odd, *(f"species {number:03d}" for number in range(count - len(odd))))


def evaluation(classes: tuple[str, ...], each: int = 20, seed: int = 0, right: float = 0.8) -> Evaluation:
    """`each` pictures a class, of which about `right` are recognised; neighbours are what is confused."""
    numbers = np.random.default_rng(seed)
    count = len(classes)
    labels = np.repeat(np.arange(count), each).astype(np.int64)
    answers = np.where(numbers.random(len(labels)) < right, labels, labels ^ 1) % count
    far = numbers.random(len(labels)) < 0.04
    answers = np.where(far, numbers.integers(0, count, len(labels)), answers)
    probabilities = np.full((len(labels), count), 0.0, np.float32)
    sure = numbers.uniform(0.4, 1.0, len(labels)).astype(np.float32)
    probabilities += ((1 - sure) / count)[:, None]
    probabilities[np.arange(len(labels)), answers] += sure
    pictures = tuple(f"{classes[label]}/{number:05d}.jpg".replace("</", "<") for number, label in enumerate(labels))
    return Evaluation("run", classes, pictures, Path("pictures"), labels, probabilities, ())


def events(epochs: int = 6, steps: int = 10, resumed: bool = True) -> list[Event]:
    """A run; with `resumed` it crashed in its fourth epoch and went on from the third's end."""
    facts: dict[str, Any] = {
        "job": "made-up", "arch": "resnet18", "stem": "small", "imageSize": 32, "classes": 10, "trainSamples": 640,
        "valSamples": 160, "epochs": epochs, "stepsPerEpoch": steps, "worldSize": 2, "batchSize": 64, "device": "cpu",
    }  # fmt: skip
    clock = 1_700_000_000.0
    found: list[Event] = [{"time": clock, "kind": "start", **facts}]  # type: ignore[typeddict-item]

    def epoch(number: int, until: int, wobble: float) -> None:
        nonlocal clock
        for step in range((number - 1) * steps + 1, (number - 1) * steps + until + 1):
            clock += 1
            loss = 2.3 / (1 + step / 15) + wobble
            rate = 0.1 * (1 - step / (epochs * steps + 1))
            found.append(
                {"time": clock, "kind": "step", "epoch": number, "step": step, "loss": round(loss, 4),
                 "lr": round(rate, 5), "imagesPerSecond": 60.0 + step % 7}
            )  # fmt: skip
        if until == steps:
            clock += 2
            found.append(
                {"time": clock, "kind": "epoch", "epoch": number, "step": number * steps,
                 "trainLoss": round(2.0 / number, 4), "valLoss": round(1.8 / number + 0.1, 4),
                 "top1": round(1 - 0.6 / number, 4), "top5": round(1 - 0.2 / number, 4)}
            )  # fmt: skip

    for number in range(1, epochs + 1):
        if resumed and number == 4:
            epoch(number, steps // 2, 0.5)  # lost
            clock += 100
            found.append(
                {"time": clock, "kind": "resume", "checkpoint": f"step-{3 * steps:08d}", "epoch": 3,
                 "step": 3 * steps, **facts}  # type: ignore[typeddict-item]
            )  # fmt: skip
        epoch(number, steps, 0.0)
    return found


def picture(seed: int, alt: str, size: int = 96) -> Picture:
    """Coarse colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return embedded(Image.fromarray(colours).resize((size, size)), alt)


def made_up(
    count: int = 10, *, each: int = 20, name: str = "made-up", seed: int = 0, pictures: bool = True, **spec: Any
) -> RunReport:
    """A whole report of `count` classes; `spec` are values of spec.train."""
    classes = names(count)
    answers = evaluation(classes, each, seed)
    measures = measure(answers)

    def example(index: int) -> Example:
        actual, predicted = classes[answers.labels[index]], classes[answers.predicted[index]]
        shown = [picture(index * 3 + part, f"{actual} {part}") for part in range(3)] if pictures else [None] * 3
        return Example(answers.pictures[index], actual, predicted, float(answers.confidence[index]), *shown)

    pairs = []
    for pair in measures.confused[:10]:
        wrong = [
            index for index in measures.worst
            if classes[answers.labels[index]] == pair.actual and classes[answers.predicted[index]] == pair.predicted
        ]  # fmt: skip
        mistakes = tuple(example(index) for index in wrong[:4])
        pairs.append(PairExamples(pair.actual, pair.predicted, pair.count, pair.share, mistakes, mistakes[0]))
    told = history(events())
    classifier = Classifier.model_validate(
        {"metadata": {"name": name}, "spec": {"data": {"path": "/data/<b>flowers"}, "train": {"epochs": 6, **spec}}}
    )
    filters = picture(1, "filters", 200)
    return RunReport(
        facts=Facts(name, "Succeeded", Path("output"), classifier, created=1_700_000_000.0, restarts=1, uid="u-1"),
        history=told,
        settings=origin.settings(classifier, told),
        evaluation=answers,
        measures=measures,
        asked="validation pictures of the training",
        own_validation=True,
        pairs=tuple(pairs),
        worst=tuple(example(index) for index in worst_of(answers, measures)),
        cam_words="Grad-CAM on layer4.",
        first_layer=FirstLayer(filters, filters, filters, "64 filters of 3 x 3 pixels") if pictures else None,
        data=DataFacts(
            "/data/<b>flowers",
            True,
            640,
            160,
            tuple((label, 64, 16) for label in classes),
            "32 px",
            {"JPEG": 500},
            500,
            (("a/<i>.png", "truncated: the file ends too early"),),
        ),
        model={"network": "resnet18"},
        environment={"trained on": "CPU"},
        lineage={"run": name, "weights digest (sha256)": "d" * 64},
        missing=("One thing that is missing <b>.",),
    )
