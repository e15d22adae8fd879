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
from support.s3server import S3, serving
from trainserve.package.description import WEIGHTS


@pytest.fixture
def s3(cluster: RunningCluster, tmp_path: Path) -> Iterator[S3]:
    """At the address of this machine that pods reach, which is there with the cluster."""
    with serving(tmp_path, OUTSIDE) as found:
        yield found


def test_pictures_come_from_a_bucket_and_results_go_to_one(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = make()
    bucket = s3.bucket("pictures")
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    pushed = json.loads(team.said("data", "push", few_digits, f"{bucket}/data", "-o", "json"))
    assert pushed["pictures"] == 200
    again = json.loads(team.said("data", "push", few_digits, f"{bucket}/data", "-o", "json"))
    assert again == {**pushed, "sent": 0}
    secret = {"metadata": {"name": "bucket"}, "stringData": dict(s3.env)}
    team.kubectl("apply", "-f", "-", stdin=as_text({"apiVersion": "v1", "kind": "Secret", **secret}))
    words = team.train("few", *SHORT, "--env-from", "bucket", "--data-digest", pushed["digest"])
    words[words.index("pvc://pictures")] = pushed["url"]
    words[words.index("pvc://runs")] = f"{bucket}/runs"
    team.said(*words, "--detach")
    succeeded(team, "few")
    left = s3.folder / "pictures/runs/few"
    assert list(left.rglob("*.mar")), sorted(left.rglob("*"))
    (weights,) = left.rglob(WEIGHTS)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == wanted
    assert list(team.output.iterdir()) == []  # nothing came to the claim
    team.kubectl("delete", "pods", "--all", timeout_s=120)
    run = f"k8s://{team.namespace}/few"
    kept = team.said("logs", run)
    for rank in range(3):
        assert f"rank {rank} of 3" in kept, kept
