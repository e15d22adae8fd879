"""What a user means by "evaluate this": a run, a bundle, an archive or a server, asked about labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainserve.client.listener import Listener
from trainserve.client.models import bundle_of, cluster_run, find_model
from trainserve.client.runs import CLUSTER_SCHEME
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.local import rundir
from trainserve.serve.answers import Answer, Prediction, predict_files
from trainserve.serve.servers import find_server, running_servers
from trainserve.train.imagecheck import left_out

if TYPE_CHECKING:
    from trainserve.evaluate.evaluation import Evaluation
    from trainserve.evaluate.labelled import Labelled, Split

ALL_CLASSES = 999_999  # as many as an answer may be asked for; a server gives those there are


def evaluate(
    model: str | Path,
    data: Path | None,
    listener: Listener,
    *,
    split: Split | None = None,
    batch_size: int | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    skip_bad: bool = False,
    ignore_unknown: bool = False,
    served: str | None = None,
) -> Evaluation:
    """Ask a model about every picture: a run goes before a running server of the same name.

    `served` is which model of a server is meant, where it has several. Raises UserError for no such model, DataError
    for pictures that cannot be used, EnvironmentProblem for a server that does not answer.
    """
    word = str(model)
    if _is_server(word):
        if batch_size is not None or device is not None:
            raise UserError(
                f"{word} is a server, which decides on its batches and device itself",
                hint="leave --batch-size and --device out",
            )
        return _by_server(word, served, data, listener, split=split, ignore_unknown=ignore_unknown)
    if served is not None:
        raise UserError(f"--model {served}: {word} is no server, but a model itself", hint="leave --model out")
    return _by_bundle(
        word, data, listener, split=split, batch_size=batch_size, device=device, skip_bad=skip_bad,
        ignore_unknown=ignore_unknown,
    )  # fmt: skip


def _is_server(word: str) -> bool:
    if "://" in word:
        return not word.startswith((rundir.SCHEME, CLUSTER_SCHEME))
    if cluster_run(word) is None and _is_model(word):  # what is on a cluster is not fetched to find out
        return False
    return any(word == server.name or word in server.models for server in running_servers())


def _is_model(word: str) -> bool:
    try:
        find_model(word)
    except UserError:
        return False
    return True


def _by_bundle(
    word: str,
    data: Path | None,
    listener: Listener,
    *,
    split: Split | None,
    batch_size: int | None,
    device: Literal["auto", "cpu", "cuda"] | None,
    skip_bad: bool,
    ignore_unknown: bool,
) -> Evaluation:
    source = find_model(word)
    place = source.archive or source.bundle or bundle_of(word)[1]
    from trainserve.evaluate import infer, labelled  # imports torch

    if any(word == server.name for server in running_servers()):
        listener.notice(f"{word} is a server too: to ask that, give its URL (platform list)")
    with infer.opened(place) as bundle:
        description = bundle.description
        bad = left_out(bundle.path.with_name("data-check.json"))
        origin = labelled.trained(description, [picture.path for picture in bad])
        # A folder means all that is in it, as it does for a server, unless a part of the training's is asked for.
        part = origin if data is None or split in ("train", "val") else None
        found = labelled.find(description.classes, data, part, split=split, ignore_unknown=ignore_unknown)
        _tell(found, listener)
        amp = "none" if part is None else part.classifier.spec.train.amp
        if amp != "none":
            listener.notice(f"asked in float32, the training measured in {amp}: the last digits may differ")
        seen = 0 if origin is None or split == "train" else labelled.trained_with(found, origin)
        if seen:
            listener.notice(f"{seen} of these the model was trained with; --split val asks only about the others")
        # What the training left out is left out again, so that the numbers are the training's.
        lenient = skip_bad or (data is None and origin is not None and origin.classifier.spec.data.skip_bad)
        return infer.evaluate_bundle(
            word,
            bundle,
            found,
            batch_size=batch_size or infer.BATCH,
            device=device or "auto",
            skip_bad=lenient,
            progress=listener.pictures_checked,
        )


def _by_server(
    word: str, served: str | None, data: Path | None, listener: Listener, *, split: Split | None, ignore_unknown: bool
) -> Evaluation:
    from trainserve.evaluate import labelled
    from trainserve.serve.client import RestClient

    if data is None:
        raise UserError(f"{word}: which pictures? a server does not say what it was trained with", hint="give --data")
    endpoint = find_server(word)
    name = endpoint.pick_model(served)
    if endpoint.rest_url is None:
        raise UserError(f"{word}: pictures are asked over REST", hint="http://HOST:PORT/predictions/MODEL")
    with RestClient(endpoint.rest_url, max_upload_mib=endpoint.max_upload_mib) as client:

        def ask(picture: bytes, label: str) -> Prediction:
            return client.predict(picture, model=name, top=ALL_CLASSES, label=label)

        classes = _classes(ask(_grey(), "a grey picture"), word)
        found = labelled.find(classes, data, None, split=split, ignore_unknown=ignore_unknown)
        _tell(found, listener)
        return _collected(word, classes, found, ask, listener)


def _tell(found: Labelled, listener: Listener) -> None:
    listener.notice(f"{len(found.pictures)} pictures: {found.what}, in {found.root}")
    for notice in found.notices:
        listener.notice(notice)


def _grey() -> bytes:
    """A picture that every model answers: the answer names its classes."""
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def _classes(answer: Prediction, word: str) -> tuple[str, ...]:
    """All classes by index. Raises EnvironmentProblem for a server that does not answer with all."""
    by_index = {item.index: item.name for item in answer.classes}
    if sorted(by_index) != list(range(len(answer.classes))):
        raise EnvironmentProblem(
            f"{word}: asked for all classes, it answers {len(answer.classes)} with indexes up to {max(by_index)}",
            hint="is it another model server?",
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def _collected(
    word: str,
    classes: tuple[str, ...],
    found: Labelled,
    ask: Callable[[bytes, str], Prediction],
    listener: Listener,
) -> Evaluation:
    import numpy as np

    from trainserve.evaluate.evaluation import Evaluation

    probabilities = np.zeros((len(found.pictures), len(classes)), np.float32)
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    answers = predict_files(ask, [found.root / picture for picture in found.pictures])
    for number, answer in enumerate(answers):
        if answer.prediction is None:
            skipped.append((found.pictures[number], _reason(answer)))
        else:
            for item in _same_classes(answer.prediction, classes, word).classes:
                probabilities[number, item.index] = item.probability
            kept.append(number)
        if (number + 1) % 20 == 0 or number + 1 == len(found.pictures):
            listener.pictures_checked(number + 1, len(found.pictures))
    labels = np.array([found.labels[number] for number in kept], np.int64)
    pictures = tuple(found.pictures[number] for number in kept)
    return Evaluation(word, classes, pictures, found.root, labels, probabilities[kept], tuple(skipped))


def _reason(answer: Answer) -> str:
    """Why it was refused, without the path, which stands beside it."""
    return answer.error.message.removeprefix(f"{answer.picture}: ") if answer.error else ""


def _same_classes(prediction: Prediction, classes: tuple[str, ...], word: str) -> Prediction:
    """The answer, if it is of the model that was asked first: a server may have got another meanwhile."""
    if {(item.index, item.name) for item in prediction.classes} != set(enumerate(classes)):
        raise EnvironmentProblem(f"{word}: its classes have changed meanwhile", hint="evaluate it again")
    return prediction
