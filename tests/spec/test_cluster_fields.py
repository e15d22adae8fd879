"""Fields of a spec that are for a cluster: locations, ranges of nodes, amounts, and their flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainserve.errors import SpecError, UserError
from trainserve.kube.combinations import on_cluster
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier, node_range
from trainserve.spec.flags import flag_fields, typed
from trainserve.spec.load import load
from trainserve.spec.location import Claim, Folder, HostPath, Url, name_of, parse


@pytest.mark.parametrize(
    ("text", "found", "name"),
    [
        ("flowers", Folder("flowers"), "flowers"),
        ("/a/flowers/", Folder("/a/flowers/"), "flowers"),
        ("pvc://pictures", Claim("pictures", ""), "pictures"),
        ("pvc://pictures/", Claim("pictures", ""), "pictures"),
        ("pvc://pictures//2024/./flowers/", Claim("pictures", "2024/flowers"), "flowers"),
        ("hostpath:///mnt/flowers", HostPath("/mnt/flowers"), "flowers"),
        ("s3://bucket/a/flowers.tar.gz", Url("s3://bucket/a/flowers.tar.gz"), "flowers"),
        (f"s3://bucket/flowers/sha256-{'a' * 64}", Url(f"s3://bucket/flowers/sha256-{'a' * 64}"), "flowers"),
        (f"pvc://data/sha256-{'a' * 64}", Claim("data", f"sha256-{'a' * 64}"), "data"),
        ("gs://bucket", Url("gs://bucket"), "bucket"),
        ("https://host/flowers.zip?token=1", Url("https://host/flowers.zip?token=1"), "flowers"),
        ("abfs://container@account/x", Url("abfs://container@account/x"), "x"),
    ],
)
def test_a_location(text: str, found: Any, name: str) -> None:
    assert parse(text) == found
    assert name_of(parse(text)) == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pvc://", "no name of a claim"),
        ("pvc://Pictures", "no name of a claim"),
        ("pvc:///x", "no name of a claim"),
        (f"pvc://{'a' * 300}", "no name of a claim"),
        ("pvc://a/../b", "'..' is not allowed"),
        ("hostpath://mnt/x", "is not absolute"),
        ("hostpath:///", "the whole disk"),
        ("hostpath:///a/../../etc", "'..' is not allowed"),
        ("PVC://a", "did you mean pvc://"),
        ("hostpaht:///a", "did you mean hostpath://"),
        ("s3:///key", "names no bucket or host"),
        ("s3://me:secret@host/x", "holds credentials"),
        ("https://token@host/x", "holds credentials"),
        ("https://[::1", "is no URL"),
        ("s3://bucket/a\nb", "control characters"),
        ("pvc://claim/\x1b[31m", "control characters"),
    ],
)
def test_a_location_that_is_none_is_told_in_words(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_location_or_refused_in_words(text: str) -> None:
    for word in (text, f"pvc://{text}", f"hostpath://{text}", f"s3://{text}"):
        try:
            found = parse(word)
        except ValueError:
            continue
        if isinstance(found, Claim | HostPath):
            path = found.sub if isinstance(found, Claim) else found.path
            assert ".." not in path.split("/")


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        (1, (1, 1)),
        ("2:4", (2, 4)),
        ("3:3", (3, 3)),
        ("4", (0, 0)),
        (":4", (0, 0)),
        ("2:", (0, 0)),
        ("²:4", (0, 0)),
        (True, (0, 0)),
        ("2:4:6", (0, 0)),
        (None, (0, 0)),
        ("1:99999999999", (0, 0)),
    ],
)
def test_a_range_of_nodes(nodes: Any, found: tuple[int, int]) -> None:
    assert node_range(nodes) == found


def _load(**fields: Any) -> Classifier:
    given = {"metadata.name": ("--name", "x"), "spec.data.path": ("--data", "x")}
    return load(
        flags=given | {f"spec.{path.replace('__', '.')}": (f"--{path}", value) for path, value in fields.items()}
    )


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("train__nodes", "4:2", 'MIN:MAX such as "2:4"'),
        ("train__nodes", "0:2", "'0:2' is not allowed"),
        ("train__nodes", "2:2000", "'2:2000' is not allowed"),
        ("train__nodes", 1.5, "1.5 is not allowed"),
        ("train__output", "runs", "pvc://CLAIM"),
        ("train__output", "hostpath:///x", "pvc://CLAIM"),
        ("data__path", "pvcs://x", "did you mean pvc://"),
        ("data__digest", "md5:0", "sha256"),
        ("data__cache", "s3://x/y", "hostpath:///abs/path"),
        ("data__cache", "x/y", "hostpath:///abs/path"),
        ("pod__cpu", 0, "an amount above 0"),
        ("pod__cpu", "-1", "an amount above 0"),
        ("pod__memory", "64GB", "an amount above 0"),
        ("pod__memory", "0Gi", "an amount above 0"),
        ("pod__sharedMemory", "much", "an amount above 0"),
        ("pod__gpus", 0, ">= 1"),
        ("pod__gpuResource", "gpu", "the name of a device"),
        ("pod__nodeSelector", {"a b": "c"}, "'a b' is no name of a label"),
        ("pod__nodeSelector", {"a": "b c"}, "'b c' is no value of a label"),
        ("pod__tolerations", [{"key": "a", "operator": "Is"}], "spec.pod.tolerations.0.operator"),
        ("pod__tolerations", [{"kee": "a"}], "spec.pod.tolerations.0.kee: no such field"),
        ("pod__priorityClass", "High", "small letters"),
        ("pod__pullSecrets", ["a", "a"], "a name stands twice"),
        ("pod__env", {"A=B": "c"}, "is no name of a variable"),
        ("pod__env", {"A": 3}, "spec.pod.env"),
        ("pod__envFrom", ["pod/x"], "configmap/NAME"),
        ("pod__overlay", ["x"], "spec.pod.overlay"),
        ("pod__image", "a b", "such as registry.example/team/trainer:1.0"),
        ("pod__image", "\x1b[31m", "such as registry.example/team/trainer:1.0"),
        ("pod__image", "$(HOME)", "such as registry.example/team/trainer:1.0"),
        ("pod__image", "a:" + "1" * 3000, "such as registry.example/team/trainer:1.0"),
        ("pod__image", "https://registry.example/x", "such as registry.example/team/trainer:1.0"),
        ("pod__tolerations", [{"key": "a", "effect": "x"}], "one of NoSchedule, PreferNoSchedule, NoExecute"),
        ("pod__tolerations", [{"key": ""}], "no name of a taint"),
        ("pod__tolerations", [{"effect": "NoSchedule"}], "key is required"),
        ("pod__tolerations", [{"key": "a", "value": "b c"}], "no value of a taint"),
        ("pod__tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "has no effect"),
        ("pod__tolerations", [{"key": "a", "tolerationSeconds": 3}], "NoExecute only"),
        ("pod__env", {"A": 3}, "a text, in quotes"),
        ("pod__env", {"A": "x" * 200_000}, "A: a value of 200,000 bytes is not allowed"),
        ("pod__env", {"A": "x\0"}, "A: a value with a zero byte is not allowed"),
        ("pod__env", {"str": 3}, "spec.pod.env.str: 3 is not allowed"),
        ("pod__cpu", True, "spec.pod.cpu: true is not allowed; allowed: an amount above 0"),
        ("pod__memory", [1], "spec.pod.memory: [1] is not allowed; allowed: an amount above 0"),
        ("pod__affinity", {"a": [{"b": float("nan")}]}, "a[0].b: nan is not allowed; allowed: a finite number"),
        ("pod__overlay", {"spec": {"priority": 10**30}}, "spec.priority: 1000000000000000000000000000000 is not"),
        ("pod__queue", "", "small letters"),
    ],
)
def test_a_wrong_value_is_told_with_its_field(path: str, value: Any, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        _load(**{path: value})
    assert f"spec.{path.replace('__', '.')}" in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize("amount", [2, 0.5, "500m", "64Gi", "1e3", ".5", "1.5Gi"])
def test_amounts(amount: Any) -> None:
    assert _load(pod__memory=amount).spec.pod.memory == str(amount)


def test_the_batch_has_to_fit_every_number_of_nodes() -> None:
    with pytest.raises(SpecError, match=r"not a multiple of 3 nodes x 1 processes = 3 \(elastic: 2:4\)") as caught:
        _load(train__nodes="2:4", train__batchSize=64)
    assert caught.value.hint == "use --batch-size 60 or 72"
    spec = _load(train__nodes="2:4", train__batchSize=48).spec
    assert (derive.nodes(spec), derive.world_size(spec), derive.per_process_batch(spec)) == ((2, 4), 4, 12)
    with pytest.raises(SpecError) as caught:
        _load(train__nodes="1:1024")
    assert caught.value.hint == "choose a narrower range of nodes"


def test_processes_are_the_gpus_unless_said_otherwise() -> None:
    assert derive.processes_per_node(_load(pod__gpus=8).spec) == 8
    assert derive.processes_per_node(_load(pod__gpus=8, train__nprocPerNode=2).spec) == 2
    assert derive.processes_per_node(_load().spec) == 1


def test_several_mistakes_between_fields_are_listed() -> None:
    with pytest.raises(SpecError) as caught:
        _load(train__nodes=3, train__amp="fp16", train__device="cpu")
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == [
        "spec.train.batchSize",
        "spec.train.amp",
    ]


def test_a_default_is_below_everything_else() -> None:
    flags = {"metadata.name": ("--name", "x"), "spec.data.path": ("--data", "x")}
    defaults = {"spec.train.output": ("context lab", "pvc://runs")}
    assert load(flags=flags, defaults=defaults).spec.train.output == "pvc://runs"
    assert load(sets=["train.output=pvc://mine"], flags=flags, defaults=defaults).spec.train.output == "pvc://mine"
    assert load(sets=["train.output=null"], flags=flags, defaults=defaults).spec.train.output is None
    with pytest.raises(SpecError, match=r"context lab: spec\.train\.output: 'nix' is not allowed"):
        load(flags=flags, defaults={"spec.train.output": ("context lab", "nix")})


def _typed(flag: str, value: Any) -> Any:
    dotted, info = flag_fields(["pod"])[flag]
    return typed(flag, dotted, value, info)


def test_flags_mean_what_a_file_says(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("spec: {schedulerName: mine}\n")
    assert _typed("--overlay", str(overlay)) == {"spec": {"schedulerName": "mine"}}
    assert _typed("--node-selector", ("zone=a", "empty=")) == {"zone": "a", "empty": ""}
    assert _typed("--env", ("A=b=c",)) == {"A": "b=c"}
    assert _typed("--toleration", ("gpu", "gpu:NoSchedule", "a=b", "a=b:NoExecute")) == [
        {"key": "gpu", "operator": "Exists"},
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "operator": "Equal", "value": "b"},
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"},
    ]
    assert _typed("--pull-secret", ("a", "b")) == ["a", "b"]
    assert _typed("--memory", "64Gi") == "64Gi"
    assert _typed("--image", "1") == "1"
    assert _typed("--priority-class", "010") == "010"


@pytest.mark.parametrize("text", ["A", "=b"])
def test_a_pair_without_a_name_or_a_value(text: str) -> None:
    with pytest.raises(UserError, match=r"--env .*: expected NAME=VALUE"):
        _typed("--env", (text,))


@pytest.mark.parametrize(
    "image",
    [
        "trainer",
        "mine:1",
        "team/trainer:1.0-rc.1",
        "localhost:5000/trainer",
        "[::1]:5000/a/b__c:x",
        "registry.example.com/Team".lower() + f"/x:1@sha256:{'a' * 64}",
        "ghcr.io/trainserve/trainer:0.1.0.dev3",
    ],
)
def test_a_name_of_an_image(image: str) -> None:
    assert _load(pod__image=image).spec.pod.image == image


def test_what_may_be_a_password_in_an_images_name_is_not_repeated() -> None:
    with pytest.raises(SpecError) as caught:
        _load(pod__image="https://me:secret@registry.example/x")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("field", ["pod__overlay", "pod__affinity"])
@pytest.mark.parametrize("depth", [101, 500])
def test_what_is_nested_too_deeply_is_told_by_its_field(field: str, depth: int) -> None:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    with pytest.raises(SpecError, match="nested more than 100 deep") as caught:
        _load(**{field: value})
    assert f"spec.{field.replace('__', '.')}" in caught.value.message


@pytest.mark.parametrize("weights", ["pvc://", "pvc://a/../b", "hostpath://x", "https://[::1", "file:///x", "/x.pth"])
def test_weights_that_no_pod_sees_are_told_with_what_is_allowed(weights: str) -> None:
    found = on_cluster(_load(data__path="pvc://a", train__output="pvc://b", model__weights=weights))
    assert [each.message.partition(":")[0] for each in found] == ["spec.model.weights"]
    assert found[0].hint


@pytest.mark.parametrize("flag", ["--overlay", "--affinity"])
@pytest.mark.parametrize("path", ["", "/nowhere/at/all.yaml", "/"])
def test_a_flags_file_that_is_none_is_told_by_the_flag(flag: str, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        _typed(flag, path)
    assert caught.value.message.startswith(flag)
    assert flag in (caught.value.hint or "")


def test_an_empty_toleration_is_not_every_taint() -> None:
    with pytest.raises(UserError, match="names no taint"):
        _typed("--toleration", [""])


def test_a_wrong_pair_shows_nothing_of_its_value() -> None:
    with pytest.raises(UserError) as caught:
        _typed("--env", ["=secret"])
    assert "secret" not in str(caught.value)
    assert caught.value.hint


def test_json_is_yaml_also_where_it_writes_a_letter_as_two_halves(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    spec = {"data": {"path": "pvc://a"}, "pod": {"env": {"A": "\U0001f98a", "B": "x"}}}
    file.write_text(json.dumps({"metadata": {"name": "x"}, "spec": spec}))
    assert load(file).spec.pod.env == {"A": "\U0001f98a", "B": "x"}


@pytest.mark.parametrize("half", [r"\ud800", r"\udc80", r"\udd8a\ud83e"])
@pytest.mark.parametrize("where", ['{"A": "HALF"}', '{"HALF": "x"}'])
def test_half_a_letter_is_told_by_its_field(half: str, where: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        f"metadata: {{name: x}}\nspec: {{data: {{path: pvc://a}}, pod: {{env: {where.replace('HALF', half)}}}}}\n"
    )
    with pytest.raises(SpecError, match=r"spec\.yaml:2: spec\.pod\.env\.") as caught:
        load(file)
    caught.value.message.encode()


def test_a_field_of_several_kinds_is_one_mistake() -> None:
    with pytest.raises(SpecError) as caught:
        _load(pod__cpu={"a": 1})
    assert len(caught.value.message.splitlines()) == 1


def test_bytes_that_are_no_letters_are_told_with_their_flag() -> None:
    with pytest.raises(SpecError, match=r"^--pod__env: spec\.pod\.env\.A: b'\\xff' is not UTF-8"):
        _load(pod__env={"A": "\udcff"})


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"labels": {"a b": "c"}}, "metadata.labels.a b: is no name of one"),
        ({"labels": {"a": "b c"}}, "metadata.labels.a: 'b c' is no value of a label"),
        ({"labels": {"trainserve.dev/classifier": "y"}}, "metadata.labels.trainserve.dev/classifier: is set by"),
        (
            {"labels": {"training.kubeflow.org/job-name": "y"}},
            "metadata.labels.training.kubeflow.org/job-name: is set by",
        ),
        ({"annotations": {"trainserve.dev/version": "9"}}, "metadata.annotations.trainserve.dev/version: is set by"),
        ({"annotations": {"a b": "c"}}, "metadata.annotations.a b: is no name of one"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations: 300,001 bytes are too many"),
    ],
)
def test_what_no_object_can_be_called_is_told_before_a_cluster_is_asked(metadata: dict[str, Any], says: str) -> None:
    spec = {"data": {"path": "pvc://a"}, "train": {"output": "pvc://b"}}
    (found,) = on_cluster(Classifier.model_validate({"metadata": {"name": "x", **metadata}, "spec": spec}))
    assert found.message.startswith(says)
    assert found.hint


def test_two_claims_of_one_name_in_a_pod_are_told() -> None:
    fields = {"data__path": "pvc://a", "train__output": "pvc://b"}
    (found,) = on_cluster(_load(**fields, pod__resourceClaimTemplates=["gpu.big", "gpu-big"]))
    assert found.message.startswith("spec.pod.resourceClaimTemplates: gpu.big and gpu-big are both gpu-big")
    assert on_cluster(_load(**fields, pod__resourceClaimTemplates=["gpu.big", "gpu.small"])) == []


def test_a_wrong_set_shows_nothing_of_its_value() -> None:
    with pytest.raises(SpecError) as caught:
        load(sets=["pod.env.A=x", "pod.env.A.b=secret"])
    assert "--set pod.env.A.b: " in caught.value.message
    assert "secret" not in str(caught.value)
