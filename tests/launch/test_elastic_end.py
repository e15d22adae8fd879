"""How the agent of an elastic node ends where the nodes do not meet."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

from trainserve.errors import EXIT_PEER_LOST
from trainserve.kube import names
from trainserve.launch import elastic


def test_a_meeting_place_that_is_not_there_is_a_lost_peer_and_not_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(config: object, program: str) -> object:
        def run(*words: str) -> None:
            assert os.environ[elastic.OWN_STORE] == "1"
            try:
                raise OSError("timed out after 60000ms while trying to connect\nframe #0")
            except OSError as error:
                raise RendezvousConnectionError("The connection to the C10d store has failed.") from error

        return run

    monkeypatch.setattr(elastic, "elastic_launch", launch)
    for name, value in {
        names.ENV_PET_NNODES: "2:4",
        names.ENV_PET_RDZV_ENDPOINT: "elastic-worker-0:23456",
        names.ENV_TERMINATION_LOG: str(tmp_path / "message"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(names.ENV_LIFELINE_FD, raising=False)
    monkeypatch.setenv(names.ENV_OMP_NUM_THREADS, "1")
    monkeypatch.setenv(elastic.OWN_STORE, "0")  # so that it is as before at the end
    assert elastic.run(["-m", "trainserve.launch.work"]) == EXIT_PEER_LOST
    told = json.loads((tmp_path / "message").read_text())
    assert told["exitCode"] == EXIT_PEER_LOST
    assert told["message"] == (
        "the other nodes are not met at elastic-worker-0:23456: "
        "RendezvousConnectionError: timed out after 60000ms while trying to connect"
    )
