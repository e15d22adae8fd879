"""The Client as a program uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import trainserve
from support import published
from support.tiny import tiny_run
from trainserve import Client
from trainserve.client.follow import Outcome
from trainserve.client.listener import Lines, Listener
from trainserve.client.values import ServeValues, TrainValues
from trainserve.errors import DataError, EnvironmentProblem, RunFailed, SpecError, UserError
from trainserve.machine.usage import size_words
from trainserve.observe.events import Event
from trainserve.observe.summary import summarize
from trainserve.spec.classifier import Classifier
from trainserve.spec.flags import FILES, REPEATED, SECTIONS, flag_fields
from trainserve.train.get_sources import SOURCES


def test_the_package_is_cheap_and_knows_its_client() -> None:
    program = "import sys, trainserve; print(sorted(m for m in sys.modules if m.startswith(('trainserve.', 'typing'))))"
    source = {"PYTHONPATH": str(Path(trainserve.__file__).parents[1])}
    words = [sys.executable, "-S", "-c", program]
    done = subprocess.run(words, env=source, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert trainserve.Client is Client
    with pytest.raises(AttributeError, match="has no attribute 'Clinet'"):
        trainserve.Clinet  # noqa: B018


@pytest.mark.parametrize(
    ("values", "sections"), [(TrainValues, ["data", "model", "train", "pod"]), (ServeValues, ["serve"])]
)
def test_keywords_are_the_flags_with_their_types(values: type, sections: list[str]) -> None:
    """A new field of the spec is one more line in client/values.py."""
    hints = get_type_hints(values)
    fields = {flag[2:].replace("-", "_"): info for flag, (_, info) in flag_fields(sections).items()}
    assert list(hints) == list(fields)
    of_types = {section: get_type_hints(SECTIONS[section]) for section in sections}
    loose: dict[str, Any] = {"data": str | Path, "weights": str | Path}
    paths = {flag[2:].replace("-", "_"): dotted for flag, (dotted, _) in flag_fields(sections).items()}
    for word, info in fields.items():
        dotted = paths[word]
        if dotted in REPEATED or dotted in FILES:  # a program gives any mapping or list
            assert get_origin(get_args(hints[word])[0]) in (Mapping, Sequence), word
            continue
        section = of_types.get(dotted.split(".")[1], {})
        kind = loose.get(word, section.get(word, info.annotation))
        assert hints[word] == kind | None, word


def test_plan_takes_a_classifier_a_file_and_keywords(home: Path, tmp_path: Path) -> None:
    client = Client()
    first = client.plan(data=tmp_path / "flowers", nodes=2, crop_scale=(0.5, 1.0), sets=["serve.topK=3"])
    spec = first.classifier
    assert (spec.metadata.name, spec.spec.train.nodes, spec.spec.serve.top_k) == ("flowers", 2, 3)
    assert spec.spec.data.augment.crop_scale == (0.5, 1.0)
    again = client.plan(spec, name="other", epochs=3)
    assert again.classifier.spec.train.epochs == 3
    assert again.classifier.spec.data == spec.spec.data
    assert [each["kind"] for each in again.manifests()] == ["Classifier", "PyTorchJob"]
    (tmp_path / "spec.yaml").write_text("spec: {data: {path: flowers}, train: {lr: 0.5}}\n")
    assert client.plan(str(tmp_path / "spec.yaml")).classifier.spec.train.lr == 0.5
    assert not home.exists()


def test_wrong_values_are_errors_with_the_keyword(home: Path) -> None:
    with pytest.raises(UserError, match="no such value 'bacth_size', did you mean 'batch_size'"):
        Client().plan(data="x", bacth_size=4)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"epochs: spec.train.epochs: 0 is not allowed"):
        Client().plan(data="x", epochs=0)
    with pytest.raises(DataError, match="nowhere does not exist"):
        Client().train(data="nowhere")


@pytest.mark.parametrize(
    ("code", "error"), [(1, RunFailed), (2, UserError), (65, DataError), (3, EnvironmentProblem), (130, RunFailed)]
)
def test_a_run_that_does_not_end_well_is_an_error(code: int, error: type[Exception], tmp_path: Path) -> None:
    bad = Outcome(summarize("mine", "Failed", None, []), tmp_path, code, cause="rank 1: oh")
    with pytest.raises(error, match="mine: Failed: rank 1: oh"):
        bad.check()
    good = Outcome(summarize("mine", "Succeeded", None, []), tmp_path, 0)
    assert good.check() is good


def test_a_whole_run(home: Path) -> None:
    said: list[str] = []
    tiny_run("mine", "print('hello')")
    client = Client(Lines(said.append))
    outcome = client.resume("mine")
    assert (outcome.name, outcome.state, outcome.code) == ("mine", "Succeeded", 0)
    assert [line.text for line in client.logs("local://mine", follow=True)] == ["hello"]
    assert client.wait("mine")["state"] == client.status("mine")["state"] == "Succeeded"
    assert [run["name"] for run in client.runs()] == ["mine"]
    assert client.servers() == []
    with pytest.raises(UserError, match="nothing to resume"):
        client.resume("mine")


@pytest.mark.slow
def test_a_failed_run_raises_and_detached_ones_are_cancelled_together(home: Path) -> None:
    tiny_run("bad", "import sys; print('oh'); sys.exit(65)")
    client = Client()
    with pytest.raises(DataError, match=r"bad: Failed: .*exit code 65"):
        client.resume("bad")
    for name in ("one", "two"):
        tiny_run(name, "import time; time.sleep(60)")
        assert client.resume(name, detach=True).code == 0
    with pytest.raises(UserError, match=r"no such run 'tow'.*did you mean 'two'"):
        client.cancel("one", "tow")
    assert client.status("one")["state"] not in ("Suspended", "Interrupted"), "stopped although a name was wrong"
    assert [run["state"] for run in client.cancel("one", "two", "one", now=True)] == ["Suspended", "Suspended"]


def test_lines_tell_an_event_in_a_line_and_few_of_the_steps() -> None:
    said: list[str] = []
    clock = iter([0.0, 0.0, 5.0, 11.0, 11.0])
    lines = Lines(said.append, clock=lambda: next(clock))
    lines.event(
        {"time": 0, "kind": "resume", "checkpoint": "step-1", "epoch": 1, "step": 1, "epochs": 2, "stepsPerEpoch": 5}
    )
    for step in (2, 3, 4):
        event: Event = {"time": 0, "kind": "step", "epoch": 1, "step": step, "loss": 0.5, "imagesPerSecond": 8}
        lines.event(event)
    lines.event({"time": 0, "kind": "checkpoint", "step": 4})
    assert said == [
        "going on from step-1 (epoch 1, step 1)",
        "epoch 1/2  step 2/10  loss 0.5000  8 images/s  ETA -",
        "epoch 1/2  step 4/10  loss 0.5000  8 images/s  ETA -",
    ]


def test_downloads_are_heard(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = published.TINY["cifar10"]()
    ((name, data),) = files.items()

    class Heard(Listener):
        def downloading(self, file: str, done: int, total: int) -> None:
            heard.append((file, done, total))

    heard: list[tuple[str, int, int]] = []
    said: list[str] = []
    with published.serving(files) as server:
        monkeypatch.setitem(SOURCES, "cifar10", published.source("cifar10", files, server.url))
        Client(Heard()).get_data("cifar10", tmp_path / "one")
        assert heard[-1] == (name, len(data), len(data))
        (home / "downloads" / name).unlink()
        Client(Lines(said.append)).get_data("cifar10", tmp_path / "two")
    assert said == [f"downloading {name}, {size_words(len(data))}"]


def test_a_classifier_is_what_a_file_is(home: Path, tmp_path: Path) -> None:
    spec = Classifier.model_validate({"metadata": {"name": "a"}, "spec": {"data": {"path": str(tmp_path)}}})
    assert Client().plan(spec).classifier == spec
