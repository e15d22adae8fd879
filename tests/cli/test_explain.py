"""`platform explain`."""

from __future__ import annotations

import json
import re

import pytest

from support.here import Here
from trainserve.spec.explain import APIS, explain, leaves
from trainserve.spec.load import fields


@pytest.mark.parametrize("path", ["train.batchSize", "spec.train.batchSize", "classifier.spec.train.batch_size"])
def test_a_field(path: str, here: Here) -> None:
    said = here("explain", path)
    assert said.code == 0
    assert said.out.splitlines() == [
        "Classifier, trainserve.dev/v1alpha1",
        "spec.train.batchSize  <integer>",
        "",
        "  Global batch: pictures a step over all processes. The share of a process is derived.",
        "",
        "  allowed  an integer >= 1",
        "  unit     pictures a step",
        "  default  64",
        "  flag     train --batch-size",
    ]


def test_a_section_and_the_whole(here: Here) -> None:
    section = here("explain", "model").out
    assert "  arch  <word>  one of resnet18, resnet34" in section
    assert "default resnet18" in section
    whole = here("explain").out
    assert re.search(r"^spec\.data\.path +text +required +train --data$", whole, re.MULTILINE)
    assert here("explain", "train.nodes", "-o", "name").out == "spec.train.nodes\n"
    found = json.loads(here("explain", "train.nodes", "-o", "json").out)
    assert (found["path"], found["type"], found["default"], found["unit"]) == (
        "spec.train.nodes",
        "integer or text",
        1,
        "nodes",
    )


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["batchsiz"], "spec.train.batchSize"),
        (["model.epochs"], "spec.train.epochs"),
        (["trian.lr"], "spec.train.lr"),
        (["--api", "pytorchjob", "backoffLimit"], "spec.runPolicy.backoffLimit"),
    ],
)
def test_an_unknown_field_gets_the_nearest(words: list[str], guess: str, here: Here) -> None:
    said = here("explain", *words)
    assert said.code == 2
    assert f"did you mean {guess}?" in said.err


def test_every_field_of_both_apis_is_explained() -> None:
    assert [leaf.path for leaf in leaves(explain())] == [".".join(map(str, path)) for path, _ in fields()]
    for api in APIS:
        every = list(leaves(explain(api=api)))
        assert len(every) > 25
        unsaid = [leaf.path for leaf in every if not leaf.meaning and not leaf.path.startswith("status.")]
        assert [path for path in unsaid if path.count(".") > 0] == []
        for leaf in every:
            assert explain(leaf.path, api) == leaf
    master = explain("pytorchReplicaSpecs.Master.restartPolicy", "pytorchjob")
    assert master.default == "OnFailure"
    assert explain("elasticPolicy.rdzvConf", "pytorchjob").type == "list of fields"
