"""What `platform train` says before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from support import pictures
from trainserve.cli.train import train_command
from trainserve.client import train
from trainserve.client.follow import Outcome
from trainserve.observe.summary import summarize


@pytest.mark.parametrize(("words", "times"), [([], 0), (["--detach"], 1)])
def test_what_was_ignored_is_said_once(
    words: list[str], times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IMG-01: by the run's own events, or here where nobody follows these."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(train, "go", lambda run, *_, **__: Outcome(summarize("x", "Succeeded", {}, []), run.path, 0))
    pictures.write_classes(tmp_path / "data", {"a": 40, "b": 40, ".hidden": 1})
    done = CliRunner().invoke(train_command, ["--data", str(tmp_path / "data"), *words])
    assert done.exception is None
    assert done.stderr.count("ignored 1 hidden or system folder (.hidden)") == times
