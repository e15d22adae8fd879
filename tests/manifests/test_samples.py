"""Every sample is whole, its README's commands are commands, and its PyTorchJob is what its command sends."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.schemas import unsafe
from trainserve.cli.main import VERBS
from trainserve.spec.pytorchjob import validate

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples"
ROOT = SAMPLES.parents[1]
NAMES = ["01-digits", "02-claim", "03-bucket", "04-gpus", "05-elastic", "06-kueue", "07-dra"]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("samples_generate", SAMPLES / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _objects(sample: str, file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((SAMPLES / sample / file).read_text(encoding="utf-8")))


def _commands(sample: str) -> list[list[str]]:
    """What the README types."""
    text = (SAMPLES / sample / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def test_the_index_has_every_sample() -> None:
    assert sorted(path.name for path in SAMPLES.iterdir() if path.is_dir() and path.name[0].isdigit()) == NAMES
    index = (SAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"(samples/{name}/README.md)" not in index] == []


@pytest.mark.parametrize("sample", NAMES)
def test_a_sample_has_its_files_and_tells_of_each(sample: str) -> None:
    readme = (SAMPLES / sample / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in (SAMPLES / sample).iterdir() if path.is_file()} - {"README.md"}
    assert there >= {"classifier.yaml", "cluster.yaml", "pytorchjob.yaml"}
    assert [name for name in sorted(there) if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("sample", NAMES)
def test_what_a_readme_types_is_there(sample: str) -> None:
    commands = _commands(sample)
    assert {words[0] for words in commands} <= {"platform", "kubectl", "export"}
    assert [words for words in commands if words[0] == "platform" and words[1] not in VERBS] == []
    files = [word for words in commands for word in words if word.startswith("manifests/")]
    assert f"manifests/samples/{sample}/cluster.yaml" in files
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_each_pytorchjob_is_what_the_readmes_command_sends() -> None:
    generator = _generator()
    wrong = [
        sample.name
        for sample in generator.samples()
        if (sample / generator.JOB).read_text(encoding="utf-8") != generator.rendered(sample)
    ]
    assert wrong == [], "make generate writes them anew"


@pytest.mark.parametrize("sample", NAMES)
def test_jobs_are_valid_and_pods_are_restricted(sample: str) -> None:
    (job,) = _objects(sample, "pytorchjob.yaml")
    validate(job)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        assert unsafe(replica["template"]["spec"]) == []


@pytest.mark.parametrize("sample", NAMES)
def test_what_a_job_uses_is_among_the_objects(sample: str) -> None:
    """Claims, Secrets, templates of resource claims, queues."""
    objects = _objects(sample, "cluster.yaml")
    made = {(each["kind"], each["metadata"]["name"]) for each in objects}
    (job,) = _objects(sample, "pytorchjob.yaml")
    assert ("Namespace", job["metadata"]["namespace"]) in made
    used = set()
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        spec = replica["template"]["spec"]
        claims = [each["persistentVolumeClaim"] for each in spec["volumes"] if "persistentVolumeClaim" in each]
        used |= {("PersistentVolumeClaim", each["claimName"]) for each in claims}
        used |= {("Secret", each["secretRef"]["name"]) for each in spec["containers"][0].get("envFrom") or []}
        templates = [each["resourceClaimTemplateName"] for each in spec.get("resourceClaims") or []]
        used |= {("ResourceClaimTemplate", name) for name in templates}
    labels = job["metadata"]["labels"]
    queue, priority = labels.get("kueue.x-k8s.io/queue-name"), labels.get("kueue.x-k8s.io/priority-class")
    used |= {("LocalQueue", queue), ("WorkloadPriorityClass", priority)} if queue else set()
    assert used <= made
    assert used, "a job without data or output"
