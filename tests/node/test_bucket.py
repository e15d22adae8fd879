"""Pictures pushed to a bucket of a server that speaks S3, trained from there, and the results in a bucket too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.kubectl import as_text
from support.nodecluster import RunningCluster
from support.nodeconfig import OUTSIDE
from support.nodedigits import SHORT, succeeded
from support.nodeteam import NodeTeam
from support.s3server import S3Server
from trainserve.package.description import WEIGHTS

BUCKET = "pictures"


@pytest.fixture
def s3(cluster: RunningCluster, tmp_path: Path) -> Iterator[S3Server]:
    """At the address of this machine that pods reach."""
    found = S3Server(OUTSIDE, tmp_path)
    found.start()
    try:
        found.create_bucket(BUCKET)
        yield found
    finally:
        found.stop()


def test_pictures_come_from_a_bucket_and_results_go_to_one(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = make()
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    pushed = json.loads(team.said("data", "push", few_digits, f"s3://{BUCKET}/data", "-o", "json"))
    assert pushed["pictures"] == 200
    again = json.loads(team.said("data", "push", few_digits, f"s3://{BUCKET}/data", "-o", "json"))
    assert again == {**pushed, "sent": 0}
    secret = {"metadata": {"name": "bucket"}, "stringData": dict(s3.environment)}
    team.kubectl("apply", "-f", "-", stdin=as_text({"apiVersion": "v1", "kind": "Secret", **secret}))
    words = team.train("few", *SHORT, "--env-from", "bucket", "--data-digest", pushed["digest"])
    words[words.index("pvc://pictures")] = pushed["url"]
    words[words.index("pvc://runs")] = f"s3://{BUCKET}/runs"
    team.said(*words, "--detach")
    succeeded(team, "few")
    left = s3.keys(BUCKET, "runs/few/")
    assert [key for key in left if key.endswith(".mar")], left
    (weights,) = [key for key in left if key.endswith(WEIGHTS)]
    assert hashlib.sha256(s3.get(BUCKET, weights)).hexdigest() == wanted
    assert list(team.output.iterdir()) == []  # nothing came to the claim
    team.kubectl("delete", "pods", "--all", timeout_s=120)
    run = f"k8s://{team.namespace}/few"
    kept = team.said("logs", run)
    for rank in range(3):
        assert f"rank {rank} of 3" in kept, kept
