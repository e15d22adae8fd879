"""Commands that need an API server to begin, and one that does not take them, or is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.here import Here
from support.playedserver import WRONG, kubeconfig, wrong
from trainserve.machine.ports import Reserved


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("words", [["operator", "adopt"], ["node", "run", "--all-namespaces", "--allow-root"]])
def test_a_command_that_cannot_begin_says_what_is_wrong_and_where(
    here: Here, tmp_path: Path, words: list[str], name: str
) -> None:
    root = ["--root", tmp_path / "node"] if words[0] == "node" else []
    with wrong(name, tmp_path) as (path, says, hints):
        said = here(*words, *root, "--kubeconfig", path)
    assert said.code == 3, said.err
    assert says in said.err
    assert f"hint: {hints}" in said.err or (name == "expired" and hints in said.err)
    assert "is it running" not in said.err


@pytest.mark.parametrize("words", [["operator", "adopt"], ["node", "run", "--all-namespaces", "--allow-root"]])
def test_a_server_that_is_away_is_said_with_where_its_address_stands(
    here: Here, tmp_path: Path, words: list[str]
) -> None:
    root = ["--root", tmp_path / "node"] if words[0] == "node" else []
    ports = Reserved()
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig({"server": f"http://127.0.0.1:{ports.port('nobody')}"})))
    said = here(*words, *root, "--kubeconfig", path)
    ports.release_all()
    assert said.code == 3, said.err
    assert "error: the API server does not answer: " in said.err
    assert f"hint: is it running? its address is clusters.cluster.server of {path}" in said.err
