"""What is meant by "evaluate this"; the same numbers by each way."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from support import bundles
from support.answering import answering, of_bundle
from support.threads import one_thread  # noqa: F401  a fixture
from trainserve.client.evaluate import evaluate
from trainserve.client.listener import Listener
from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.evaluate.measures import measure
from trainserve.local import rundir
from trainserve.package.bundle import read_bundle, write_bundle
from trainserve.serve.servers import ServerRecord, claim, write_record
from trainserve.spec.classifier import Classifier
from trainserve.train.imagefolder import scan_for


class Heard(Listener):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.done: list[tuple[int, int]] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def pictures_checked(self, done: int, total: int) -> None:
        self.done.append((done, total))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits.mar`, its bundle, and labelled pictures."""
    folder = tmp_path_factory.mktemp("models")
    bundles.mar(folder)
    for number in range(10):
        file = folder / "data" / ("1", "10", "2")[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundles.picture(number))
    return folder


@pytest.fixture
def run(home: Path, models: Path) -> rundir.RunDir:
    """A run with a bundle, as far as evaluation looks."""
    made = rundir.create("digits")
    os.symlink(models / "bundle", made.output / "bundle")
    return made


@contextmanager
def serving(name: str, url: str) -> Iterator[None]:
    """A record of a running server, as `platform serve` leaves one."""
    with claim(name) as path:
        write_record(path, ServerRecord(name, os.getpid(), url, "", "", {"digits": "1.0"}, 16, ""))
        yield


@pytest.mark.slow
def test_run_bundle_archive_and_server_give_the_same_numbers(models: Path, run: rundir.RunDir) -> None:
    data, heard = models / "data", Heard()
    with answering(of_bundle(read_bundle(models / "bundle"))) as url:
        found = [
            evaluate(word, data, heard)
            for word in (
                "digits",
                "local://digits",
                models / "bundle",
                models / "digits.mar",
                f"{url}/predictions/digits",
            )
        ]
    for one in found[1:]:
        assert (one.classes, one.pictures) == (found[0].classes, found[0].pictures)
        assert one.labels.tolist() == found[0].labels.tolist()
        np.testing.assert_allclose(one.probabilities, found[0].probabilities, atol=1e-5)
    assert len({(measure(one).top1, measure(one).top5) for one in found}) == 1
    assert heard.notices == [f"10 pictures: all pictures, in {data}"] * 5
    assert heard.done == [(10, 10)] * 5


def test_a_run_goes_before_a_server_of_its_name_and_that_is_said(models: Path, run: rundir.RunDir) -> None:
    def nothing(picture: bytes, top: int) -> list[dict[str, object]]:
        raise AssertionError("the server was asked")

    with answering(nothing) as url, serving("digits", url):
        heard = Heard()
        assert evaluate("digits", models / "data", heard).source == "digits"
        assert heard.notices[0].startswith("digits is a server too")


def test_a_server_by_its_name_or_its_model_s(models: Path, home: Path) -> None:
    with answering(of_bundle(read_bundle(models / "bundle"))) as url, serving("shop", url):
        for word in ("shop", "digits"):
            assert len(evaluate(word, models / "data", Listener()).pictures) == 10


def test_a_refused_picture_is_left_out_with_the_servers_reason(models: Path, home: Path) -> None:
    answer = of_bundle(read_bundle(models / "bundle"))
    refused = (models / "data" / "2" / "05.png").read_bytes()

    def moody(picture: bytes, top: int) -> list[dict[str, object]]:
        if picture == refused:
            raise ValueError("too many colours")
        return answer(picture, top)

    with answering(moody) as url:
        found = evaluate(f"{url}/predictions/digits", models / "data", Listener())
    assert found.skipped == (("2/05.png", "refused: too many colours"),)
    assert len(found.pictures) == len(found.labels) == 9
    assert "2/05.png" not in found.pictures


def test_where_no_server_answers(models: Path, home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/predictions/digits"
    with pytest.raises(EnvironmentProblem, match="no server answers"):
        evaluate(url, models / "data", Listener())


def test_a_server_that_gets_another_model_meanwhile(models: Path, home: Path) -> None:
    answer, asked = of_bundle(read_bundle(models / "bundle")), []

    def other_model(picture: bytes, top: int) -> list[dict[str, object]]:
        asked.append(picture)
        return answer(picture, top) if len(asked) < 4 else answer(picture, top)[:2]

    with answering(other_model) as url, pytest.raises(EnvironmentProblem, match="classes have changed meanwhile"):
        evaluate(f"{url}/predictions/digits", models / "data", Listener())


def test_servers_that_cannot_be_evaluated(models: Path, home: Path) -> None:
    def best(picture: bytes, top: int) -> list[dict[str, object]]:
        return [{"class": "cat", "index": 7, "probability": 0.9}]

    with answering(best) as url:
        with pytest.raises(UserError, match="no model 'dogs' there"):
            evaluate(f"{url}/predictions/dogs", models / "data", Listener())
        with pytest.raises(UserError, match="which model"):
            evaluate(url, models / "data", Listener())
        with pytest.raises(UserError, match="no model 'cats' there"):
            evaluate(url, models / "data", Listener(), served="cats")
        with pytest.raises(EnvironmentProblem, match="it answers 1 with indexes up to 7"):
            evaluate(f"{url}/predictions/digits", models / "data", Listener())
        with pytest.raises(UserError, match="which pictures"):
            evaluate(f"{url}/predictions/digits", None, Listener())
        with pytest.raises(UserError, match="decides on its batches and device"):
            evaluate(f"{url}/predictions/digits", models / "data", Listener(), batch_size=3)


@pytest.mark.slow
def test_the_pictures_of_the_training_given_as_a_folder(home: Path, tmp_path: Path) -> None:
    """A folder means all that is in it, whichever way the model is asked; that some are no test of it is said."""
    folder = tmp_path / "then"
    for number in range(12):
        file = folder / ("1", "10", "2")[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundles.picture(number))
    classifier = Classifier.model_validate({"metadata": {"name": "m"}, "spec": {"data": {"path": str(folder)}}})
    listing = scan_for(classifier)
    spec = classifier.spec.model_dump(mode="json", by_alias=True)
    spec["train"]["amp"] = "bf16"
    lineage = {"spec": spec, "dataDigest": listing.digest}
    bundle = write_bundle(bundles.checkpoint(), sorted(folder.rglob("*.png")), tmp_path / "bundle", lineage)
    held_out = tuple(sample.path for sample in listing.val)
    heard = Heard()
    assert evaluate(bundle, None, heard).pictures == held_out
    assert heard.notices[1:] == ["asked in float32, the training measured in bf16: the last digits may differ"]
    folder.rename(tmp_path / "now")
    with pytest.raises(DataError, match=r"then any more\nhint: .*--data FOLDER --split val"):
        evaluate(bundle, None, Listener())
    assert evaluate(bundle, tmp_path / "now", Listener(), split="val").pictures == held_out
    heard = Heard()
    with answering(of_bundle(read_bundle(bundle))) as url:
        by_bundle, by_server = (
            evaluate(word, tmp_path / "now", heard) for word in (bundle, f"{url}/predictions/digits")
        )
    assert by_bundle.pictures == by_server.pictures
    assert len(by_bundle.pictures) == 12
    seen = f"{len(listing.train)} of these the model was trained with; --split val asks only about the others"
    assert heard.notices.count(seen) == 1


def test_wrong_words(models: Path, run: rundir.RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such run 'digts'.*did you mean 'digits'"):
        evaluate("digts", models / "data", Listener())
    with pytest.raises(UserError, match=r"gone\.mar: no such file"):
        evaluate("gone.mar", models / "data", Listener())
    (tmp_path / "text").write_text("x")
    with pytest.raises(UserError, match=r"not a \.mar"):
        evaluate(tmp_path / "text", models / "data", Listener())
    with pytest.raises(UserError, match="neither a run nor a bundle"):
        evaluate(tmp_path, models / "data", Listener())
    with pytest.raises(UserError, match="is no server"):
        evaluate("digits", models / "data", Listener(), served="digits")
    with pytest.raises(UserError, match="which pictures"):  # this bundle does not say what it was trained with
        evaluate("digits", None, Listener())
