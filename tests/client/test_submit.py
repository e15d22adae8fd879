"""What is sent to a cluster, as far as no cluster is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.pictures import write_classes
from trainserve.client.cluster import checks, push, submit
from trainserve.client.cluster.connect import Place
from trainserve.client.cluster.push import Pushed
from trainserve.client.cluster.run import ClusterRun
from trainserve.client.cluster.submit import ClusterPlan, Submitted
from trainserve.client.context import Context
from trainserve.client.listener import Listener
from trainserve.errors import DataError, SpecError
from trainserve.spec.classifier import Classifier

LAB = Context("lab", "kubernetes", kube_context="prod", namespace="team", image="trainer:1", output="pvc://runs")


def _plan(data: str, context: Context = LAB, **fields: Any) -> ClusterPlan:
    flags = {"spec.data.path": ("--data", data)}
    flags |= {f"spec.{path.replace('__', '.')}": (f"--{path}", value) for path, value in fields.items()}
    return submit.plan(None, (), flags, context=context)


def _pod(plan: ClusterPlan) -> dict[str, Any]:
    (job,) = plan.manifests()
    return dict(job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"])


def test_a_context_gives_what_nothing_else_says() -> None:
    plan = _plan("pvc://pictures/My Flowers")
    assert plan.place == Place("prod", "team")
    assert plan.classifier.metadata.name == "my-flowers"
    assert plan.name_is_free_to_change
    assert _pod(plan)["containers"][0]["image"] == "trainer:1"
    mine = _plan("pvc://pictures", pod__image="mine:1", train__output="s3://b/x")
    assert _pod(mine)["containers"][0]["image"] == "mine:1"
    assert mine.classifier.spec.train.output == "s3://b/x"


def test_a_file_goes_before_the_context_and_a_flag_before_both(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("metadata: {name: x, namespace: files}\nspec: {data: {path: pvc://a}, train: {output: pvc://b}}\n")
    plan = submit.plan(file, (), {}, context=LAB)
    assert (plan.place.namespace, plan.classifier.spec.train.output) == ("files", "pvc://b")
    assert not plan.name_is_free_to_change
    plan = submit.plan(file, (), {}, context=LAB, namespace="flags", kube_context="other")
    assert (plan.place.context, plan.place.namespace) == ("other", "flags")


def test_a_folder_is_pushed_before_the_job_and_a_dry_run_says_where_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path / "flowers", {"a": 3, "b": 3})
    asked: list[tuple[Any, ...]] = []

    def pushed(folder: Path, store: str, place: Place, listener: Listener, *, image: str | None) -> Pushed:
        asked.append((folder, store, place, image))
        return Pushed(f"{store}/sha256-{'0' * 64}", f"sha256:{'0' * 64}", 6, 600, 600)

    def created(plan: ClusterPlan, **options: Any) -> Submitted:
        asked.append((plan.classifier.spec.data.path, options))
        return Submitted(ClusterRun(plan.place, "flowers"), plan.manifests()[0])

    monkeypatch.setattr(push, "push", pushed)
    monkeypatch.setattr(submit, "_create", created)
    bucket = Context("lab", "kubernetes", namespace="team", output="pvc://runs", data_store="s3://bucket/data")
    plan = _plan(str(tmp_path / "flowers"), bucket)
    assert plan.classifier.metadata.name == "flowers"
    dry = submit.settled(plan, Listener(), send=False)
    assert asked == []
    assert dry.classifier.spec.data.path.startswith("s3://bucket/data/sha256-")
    assert dry.classifier.spec.data.digest == dry.classifier.spec.data.path.rpartition("/")[2].replace("-", ":")
    sent = submit.settled(plan, Listener())
    assert sent.classifier.spec.data.path == f"s3://bucket/data/sha256-{'0' * 64}"
    tried, (folder, store, place, image) = asked
    assert tried == ("s3://bucket/data", {"dry_run": True})
    assert (folder, store, place, image) == (tmp_path / "flowers", "s3://bucket/data", plan.place, None)
    assert submit.settled(sent, Listener()) is sent


def test_a_folder_that_is_no_data_set_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    bucket = Context("lab", "kubernetes", namespace="team", output="pvc://runs", data_store="s3://bucket")
    plan = _plan(str(tmp_path / "nix"), bucket)
    with pytest.raises(DataError, match="nix does not exist"):
        submit.settled(plan, Listener(), send=False)


def test_a_folder_without_a_store_is_refused_with_the_rest() -> None:
    with pytest.raises(SpecError) as caught:
        _plan("/flowers", train__nodes=3, pod__env={"RANK": "1"})
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == [
        "spec.train.batchSize",
        "spec.data.path",
        "spec.pod.env",
    ]


@pytest.mark.parametrize(
    ("modes", "fields", "wrong", "notice"),
    [
        (["ReadWriteMany"], {"nodes": 4}, "", ""),
        (["ReadOnlyMany"], {"nodes": 4}, "spec.train.output: claim all cannot be written to: it is ReadOnlyMany", ""),
        (["ReadWriteOnce"], {"nodes": 1}, "", ""),
        (["ReadWriteOnce"], {"nodes": 4}, "", "spec.data.path: claim all is ReadWriteOnce: all 4 pods have to fit"),
        (["ReadWriteOncePod"], {"nodes": 4}, "spec.data.path: claim all is ReadWriteOncePod, but 4 pods use it", ""),
        (["ReadWriteOnce"], {"nodes": "2:4", "batchSize": 48}, "of the 4 pods of an elastic run", "have to fit"),
    ],
)
def test_which_claims_fit(modes: list[str], fields: dict[str, Any], wrong: str, notice: str) -> None:
    spec = {"data": {"path": "pvc://all"}, "train": {"output": "pvc://all", **fields}}
    classifier = Classifier.model_validate({"metadata": {"name": "x"}, "spec": spec})
    claim = {"metadata": {"name": "all"}, "spec": {"accessModes": modes}, "status": {"phase": "Bound"}}
    found = [checks.misfit(use, claim) for use in checks.uses(classifier)]
    assert wrong in "\n".join(each or "" for each, _ in found)
    assert bool(wrong) == any(each for each, _ in found)
    assert notice in "\n".join(each or "" for _, each in found)
    assert bool(notice) == any(each for _, each in found)


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"metadata": {"deletionTimestamp": "now"}, "spec": {}}, "is being deleted"),
        ({"metadata": {}, "spec": {}, "status": {"phase": "Lost"}}, "has lost its volume"),
    ],
)
def test_a_claim_that_goes_or_is_empty(claim: dict[str, Any], says: str) -> None:
    wrong, _ = checks.misfit(checks.Use("spec.data.path", "pictures", 1, writes=False), claim)
    assert wrong == f"spec.data.path: claim pictures {says}"
