"""Four ranks: with more than two, the order in which gradients are summed matters to the last bit."""

from __future__ import annotations

import signal

import pytest

from support import pictures
from support.ranks import Ranks, classifier
from trainserve.errors import EXIT_OK, EXIT_PEER_LOST
from trainserve.train.checkpoint import load, weights_digest

pytestmark = pytest.mark.slow


def test_ddp_06_four_ranks_killed_and_resumed_end_with_the_same_weights(tmp_path):
    folder = pictures.write_classes(tmp_path / "data", {"red": 21, "blue": 21}, size=8)
    train = {"epochs": 2, "batchSize": 16, "lr": 0.02, "checkpointEverySteps": 1}
    spec = classifier(folder, model={"imageSize": 8}, train=train)

    def last(ranks: Ranks) -> str:
        return weights_digest(load(sorted((ranks.output / "checkpoints").glob("step-*"))[-1]).weights)

    with Ranks(spec, tmp_path / "straight", 4) as straight:
        assert straight.codes() == [EXIT_OK] * 4, straight.log()
    with Ranks(spec, tmp_path / "killed", 4) as ranks:
        ranks.wait_for(lambda: ranks.events("checkpoint"))
        ranks.kill(signal.SIGKILL, ranks=(2,))
        codes = ranks.codes(30)
        assert codes[2] == -signal.SIGKILL
        assert {code for rank, code in enumerate(codes) if rank != 2} <= {EXIT_PEER_LOST}, ranks.log()
    with Ranks(spec, tmp_path / "killed", 4) as ranks:
        assert ranks.codes() == [EXIT_OK] * 4, ranks.log()
    assert ranks.events("resume")
    assert last(ranks) == last(straight)
