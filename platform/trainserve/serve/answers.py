"""What a server answers, as types, and its refusals as errors: the same for REST and gRPC. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from stat import S_ISREG
from typing import Any

from trainserve.errors import EnvironmentProblem, PlatformError, UserError
from trainserve.machine.usage import MIB

LONGEST_MESSAGE = 500  # letters of a refusal that are shown
ROUNDING = 1e-3  # of a probability in float32, or in half of that
MAX_PICTURE_MIB = 1024  # the largest serve.maxUploadMib


@dataclass(frozen=True)
class ClassProbability:
    """One class of an answer."""

    name: str
    index: int  # of the logit
    probability: float  # 0 to 1


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture, best first; at least one."""

    model: str
    version: str
    classes: tuple[ClassProbability, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the server's answer; a probability that is no number (NaN) is null, which JSON has."""
        predictions = [
            {
                "class": item.name,
                "index": item.index,
                "probability": None if isnan(item.probability) else item.probability,
            }
            for item in self.classes
        ]
        return {"model": self.model, "version": self.version, "predictions": predictions}


@dataclass(frozen=True)
class Answer:
    """What became of one picture: exactly one of `prediction` and `error`."""

    picture: Path
    prediction: Prediction | None = None
    error: UserError | None = None


def parse_answer(data: bytes, *, label: str, model: str) -> Prediction:
    """The answer for the picture `label`.

    A refusal may come as an answer that looks successful: over gRPC TorchServe loses the status. Raises what `refusal`
    gives, and EnvironmentProblem for an answer that is not this platform's.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict) and isinstance(values.get("code"), int):
        raise refusal(int(values["code"]), data, label=label, model=model)
    try:
        classes = tuple(
            ClassProbability(str(item["class"]), int(item["index"]), float(item["probability"]))
            for item in values["predictions"]
        )
        _check(classes)
        return Prediction(str(values["model"]), str(values["version"]), classes)
    except (TypeError, KeyError, ValueError, OverflowError):
        shown = data[:80].decode("utf-8", "replace")
        raise EnvironmentProblem(
            f"model {model}: its answer is not one of this platform's: {shown!r}", hint="is it another model server?"
        ) from None


def _check(classes: tuple[ClassProbability, ...]) -> None:
    """Raises ValueError for what no handler of ours answers; a probability may be NaN, of a model that has diverged."""
    indexes, names = {item.index for item in classes}, {item.name for item in classes}
    if not classes or len(indexes) < len(classes) or len(names) < len(classes) or min(indexes) < 0:
        raise ValueError("no class, or one twice")
    if any(not -ROUNDING <= item.probability <= 1 + ROUNDING for item in classes if not isnan(item.probability)):
        raise ValueError("a probability below 0 or above 1")


def refusal(code: int, body: bytes, *, label: str, model: str) -> PlatformError:
    """The error that an HTTP status and its body mean."""
    message = _message(body)
    if code == 404:
        return UserError(f"no model {model!r} there: {message}", hint="say another --model, or URL/predictions/NAME")
    if code == 413:
        return UserError(f"{label}: too large: {message or 'more than the server accepts'}")
    if code in {408, 429}:  # not this picture's fault
        return EnvironmentProblem(f"model {model} could not answer (status {code}): {message}", hint="try again later")
    if 300 <= code < 400:
        return EnvironmentProblem(
            f"model {model}: it sends elsewhere (status {code}), and is not followed",
            hint="give the address that it leads to; a model server has no redirects",
        )
    if 400 <= code < 500:
        return UserError(f"{label}: refused: {message or f'status {code}'}")
    reason = "it is out of memory or its worker died" if code == 507 else message or "no reason given"
    return EnvironmentProblem(f"model {model} could not answer (status {code}): {reason}", hint="see the server's log")


def _message(body: bytes) -> str:
    """What a refusal says, as one line without a terminal's control characters."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text[:LONGEST_MESSAGE]).strip()


def check_size(data: bytes, label: str, max_upload_mib: int | None) -> None:
    """Raises UserError for a picture above the server's limit, where it is known, before anything is sent."""
    if max_upload_mib is not None and len(data) > max_upload_mib * MIB:
        raise UserError(
            f"{label}: too large: {len(data):,} bytes is more than the server's limit of {max_upload_mib} MiB",
            hint="package the model with a larger serve.maxUploadMib",
        )


def predict_files(
    predict: Callable[[bytes, str], Prediction], pictures: Iterable[Path], *, concurrency: int = 8
) -> Iterator[Answer]:
    """Answers in the order of the pictures, up to `concurrency` of them being asked at a time.

    `predict` takes bytes and a label. A picture that cannot be read or is refused has its error in its Answer; an
    EnvironmentProblem (the server is gone) is raised and ends it all.
    """

    def ask(picture: Path) -> Answer:
        try:
            return Answer(picture, prediction=predict(read_picture(picture), str(picture)))
        except UserError as error:
            return Answer(picture, error=error)

    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        try:
            yield from pool.map(ask, pictures)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_picture(picture: Path) -> bytes:
    """The file's bytes. Raises UserError."""
    try:
        status = picture.stat()
        if not S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise UserError(f"{picture}: a folder, pipe or device, not a file")
        if status.st_size > MAX_PICTURE_MIB * MIB:
            raise UserError(
                f"{picture}: too large: {status.st_size:,} bytes; no server takes more than {MAX_PICTURE_MIB} MiB"
            )
        return picture.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{picture}: no such picture") from None
    except OSError as error:
        raise UserError(f"{picture}: cannot be read: {error.strerror}") from None
