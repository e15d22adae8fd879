"""Damaged runs: each verb gives its answer, or one error with what helps; a bug would be a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.damage import damage
from support.here import Here
from support.runs import wait_until
from support.tiny import tiny_run
from trainserve.client.client import Client

RUNS = 60
VERBS = (
    ["list", "-o", "json"],
    ["status", "mine", "-o", "json"],
    ["status", "mine"],
    ["logs", "mine", "--rank", "0"],
    ["wait", "mine", "--for", "ended"],
    ["why", "mine", "-o", "json"],
    ["cancel", "mine", "-o", "json"],
    ["resume", "mine", "--dry-run"],
    ["gc", "--older-than", "0s", "-o", "json"],
    ["rm", "mine"],
)
TRAINING = """\
import json, os, time
with open(os.environ["EVENTS"], "w") as file:
    for kind, more in (("start", {"epochs": 2, "stepsPerEpoch": 3}), ("step", {"epoch": 1, "step": 2, "loss": 0.5})):
        file.write(json.dumps({"time": time.time(), "kind": kind, **more}) + "\\n")
raise SystemExit("enough")
"""


@pytest.mark.slow
def test_whatever_is_damaged_each_verb_answers_or_says_what_helps(home: Path, here: Here, tmp_path: Path) -> None:
    run = tiny_run("mine", TRAINING, env={"EVENTS": str(home / "runs" / "mine" / "output" / "events.jsonl")})
    run.write_spec("metadata: {name: mine}\nspec: {data: {path: /pictures}}\n")
    Client().resume("mine", must_succeed=False)
    wait_until(lambda: not run.alive(), "it has ended")
    assert run.state() == "Failed"
    whole = run.path.rename(tmp_path / "whole")
    for seed in range(RUNS):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(whole, run.path)
        what = damage(run.path, seed)
        for words in VERBS:
            said = here(*words)  # an exception that is no error of ours comes through, with its traceback
            told = f"{what}: {' '.join(words)}: exit code {said.code}\n{said.err}"
            assert said.code in (0, 1, 2, 3), told
            if said.code:
                assert said.err.startswith("error: "), told
                assert "hint: " in said.err, told
            elif "json" in words:
                json.loads(said.out, parse_constant=lambda constant: pytest.fail(f"{constant} in {told}"))  # noqa: B023
