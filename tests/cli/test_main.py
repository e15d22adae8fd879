"""The command line as a whole: its speed, its errors, its options."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.command import command, environment, platform
from support.pictures import write_classes
from trainserve.cli.main import VERBS
from trainserve.client.follow import failure_code
from trainserve.kube import names
from trainserve.spec.flags import flag_fields


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["predict", "--help"], ["list"]])
def test_imports_neither_torch_nor_a_kubernetes_client(words: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from trainserve.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, *sorted({'torch', 'kubernetes', 'grpc', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"TRAINSERVE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr.splitlines()[-1] == "0"


def test_help_lists_every_verb_with_its_commands_own_words() -> None:
    text = platform("--help").stdout
    assert "\n  platform data get digits\n" in text
    for verb, (module, line) in VERBS.items():
        command = getattr(importlib.import_module(module), f"{verb}_command")
        assert command.name == verb
        assert command.short_help == line
        assert line in text


def test_no_verbs_help_imports_what_takes_its_time() -> None:
    program = (
        "import sys; from trainserve.cli.main import VERBS, platform_command\n"
        "for verb in VERBS: platform_command.main([verb, '--help'], standalone_mode=False)\n"
        "slow = {'torch', 'sklearn', 'scipy', 'grpc', 'fastapi', 'matplotlib', 'onnx', 'kubernetes', 'tensorboard'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout.count("Usage: ") == len(VERBS)


def test_flags_are_frozen() -> None:
    """A flag that goes away or changes its name breaks scripts: change this list on purpose only."""
    assert list(flag_fields(["data", "model", "train", "pod"])) == [
        "--data",
        "--data-digest",
        "--data-cache",
        "--val-split",
        "--skip-bad",
        "--allow-empty-classes",
        "--max-pixels",
        "--check",
        "--crop-scale",
        "--flip",
        "--jitter",
        "--arch",
        "--stem",
        "--image-size",
        "--weights",
        "--nodes",
        "--nproc-per-node",
        "--output",
        "--epochs",
        "--batch-size",
        "--lr",
        "--momentum",
        "--weight-decay",
        "--schedule",
        "--warmup-epochs",
        "--step-epochs",
        "--label-smoothing",
        "--amp",
        "--device",
        "--seed",
        "--workers",
        "--checkpoint-every-steps",
        "--keep-last",
        "--backoff-limit",
        "--deadline-seconds",
        "--stall-seconds",
        "--image",
        "--image-pull-policy",
        "--gpus",
        "--gpu-resource",
        "--cpu",
        "--memory",
        "--shared-memory",
        "--resource-claim",
        "--node-selector",
        "--toleration",
        "--affinity",
        "--priority-class",
        "--runtime-class",
        "--service-account",
        "--pull-secret",
        "--env",
        "--env-from",
        "--host-network",
        "--overlay",
        "--queue",
        "--gang",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["trian"], 2, "no such verb 'trian', did you mean 'train'?"),
        (["train", "--node", "3"], 2, "--nodes"),
        (["train"], 2, "spec: is required (--data)"),
        (["train", "--data", "no-such"], 65, "no-such does not exist"),
        (["train", "--data", ".", "--nodes", "0", "--epochs", "-1"], 2, "--epochs: spec.train.epochs: -1"),
        (["train", "--data", ".", "--nodes", "3"], 2, "use --batch-size 63 or 66"),
        (["train", "-f", "missing.yaml"], 2, "missing.yaml: no such file"),
        (["train", "--data", ".", "--set", "train.epochs"], 2, "expected FIELD=VALUE"),
        (["train", "--resume", "x", "--epochs", "3"], 2, "cannot be mixed with --epochs"),
        (["train", "--resume", "digts"], 2, "no such run"),
        (["status", "digts"], 2, "no such run"),
        (["why", "digts"], 2, "no such run"),
        (["train", "--data", ".", "--stall-seconds", "0"], 2, "a large number, 1000000, turns it off"),
        (["logs", "digts"], 2, "no such run"),
        (["cancel", "local://digts"], 2, "no such run"),
        (["status", "../../etc"], 2, "../../etc"),
        (["package", "digts"], 2, "no such run"),
        (["serve", "digts"], 2, "no such run"),
        (["serve", "missing.mar"], 2, "missing.mar: no such file"),
        (["predict", "nobody", "x.png"], 2, "no server named 'nobody' runs here"),
    ],
)
def test_wrong_input_is_told_in_words(words: list[str], code: int, says: str, tmp_path: Path) -> None:
    done = platform(*words, home=tmp_path / "home", cwd=tmp_path)
    assert says in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "home" / "runs").exists() or not list((tmp_path / "home" / "runs").iterdir())


def test_dry_run_prints_the_very_objects_and_changes_nothing(tmp_path: Path) -> None:
    done = platform("train", "--data", "pictures", "--nodes", "4", "--dry-run", home=tmp_path / "home", cwd=tmp_path)
    classifier, job = yaml.safe_load_all(done.stdout)
    assert classifier["metadata"]["name"] == job["metadata"]["name"] == "pictures"
    assert classifier["spec"]["data"]["path"] == str(tmp_path / "pictures")
    workers = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    env = {item["name"]: item["value"] for item in workers["template"]["spec"]["containers"][0]["env"]}
    assert workers["replicas"] == 3
    assert json.loads(env[names.ENV_SPEC])["spec"]["train"]["nodes"] == 4
    assert list(tmp_path.iterdir()) == []


def test_what_a_dry_run_prints_is_a_file_that_means_the_same(tmp_path: Path) -> None:
    first = platform("train", "--data", "x", "--set", "serve.topK=3", "--dry-run", home=tmp_path, cwd=tmp_path).stdout
    (tmp_path / "again.yaml").write_text(first.split("---\n")[0])
    again = platform("train", "-f", "again.yaml", "--dry-run", home=tmp_path, cwd=tmp_path).stdout
    assert again == first


def test_what_does_not_fit_the_pictures_is_told_before_there_is_a_run(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", {"a": 6, "b": 6})
    done = platform("train", "--data", "pictures", "--batch-size", 64, home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2
    assert "global batch 64 is more than the 9 training pictures" in done.stderr
    assert not (tmp_path / "home" / "runs").exists()


def test_a_taken_name_is_refused_before_pictures_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "home" / "runs" / "mine" / "output").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    done = platform("train", "--data", "pictures", "--name", "mine", home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2
    assert "a run named 'mine' exists already" in done.stderr
    assert "mine-2" in done.stderr


@pytest.mark.parametrize(
    "option", [["--data", "flowers"], ["--set", "data.path=flowers"], ["--set", "data.path=./flowers"]]
)
def test_a_relative_folder_is_the_commands_own(option: list[str], tmp_path: Path) -> None:
    text = platform("train", *option, "--dry-run", home=tmp_path / "home", cwd=tmp_path).stdout
    (classifier, _) = yaml.safe_load_all(text)
    assert classifier["spec"]["data"]["path"] == str(tmp_path / "flowers")


def test_unreadable_pictures_are_all_listed_and_nothing_starts(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", {"a": 6, "b": 6})
    for name in ("a/zero.png", "b/text.jpg"):
        (tmp_path / "pictures" / name).write_bytes(b"" if "zero" in name else b"hello")
    done = platform("train", "--data", "pictures", home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 65
    assert "2 of 14 pictures" in done.stderr
    assert "a/zero.png: " in done.stderr
    assert "b/text.jpg: " in done.stderr
    assert "--skip-bad" in done.stderr


@pytest.mark.parametrize(
    ("codes", "code"), [([1, 200], 1), ([200, 65, 200], 65), ([2, 200], 2), ([200, 3], 3), ([137, 200], 1), ([], 1)]
)
def test_a_failed_run_ends_with_its_cause(codes: list[int], code: int) -> None:
    pods = [{"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": c}}}]}} for c in codes]
    assert failure_code([*pods, {"status": {}}]) == code


def test_a_spec_from_stdin_means_the_same_as_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("metadata: {name: a}\nspec: {data: {path: flowers}}\n")
    from_file = platform("train", "-f", "job.yaml", "--dry-run", home=tmp_path / "home", cwd=tmp_path).stdout
    with (tmp_path / "job.yaml").open() as text:
        piped = subprocess.run(
            command("train", "-f", "-", "--dry-run"),
            stdin=text,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=environment(tmp_path / "home"),
        )
    assert piped.stdout == from_file


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("httpx", ["serve", "x.mar"], "serve"),
        ("httpx", ["predict", "http://127.0.0.1:9", "x.png", "--model", "m"], "serve"),
        ("grpc", ["predict", "grpc://127.0.0.1:9", "x.png", "--model", "m"], "serve"),
        ("torch", ["train", "--data", "pictures"], "train"),
        ("tensorboard", ["train", "--data", "pictures"], "train"),
        ("sklearn", ["data", "get", "digits"], "train"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    missing: str, words: list[str], extra: str, tmp_path: Path
) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from trainserve.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(tmp_path / "home"),
    )
    assert "Traceback" not in done.stderr
    assert f"hint: pip install 'trainserve[{extra}]'" in done.stderr
    assert done.returncode == 3
    assert not (tmp_path / "home" / "runs").exists()
