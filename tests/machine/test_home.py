from __future__ import annotations

from pathlib import Path

import pytest

from trainserve.local import rundir
from trainserve.machine.home import home
from trainserve.serve.servers import running_servers, serving_folder


@pytest.mark.parametrize(
    ("given", "expected"), [("rel/here", "cwd/rel/here"), ("~/x", "user/x"), ("", "user/.trainserve")]
)
def test_runs_and_servers_share_one_absolute_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("TRAINSERVE_HOME", given)
    assert home() == tmp_path / expected
    assert serving_folder() == home() / "serving"
    assert (rundir.all_runs(), running_servers()) == ([], [])
    assert not home().exists(), "reading makes no folder"
