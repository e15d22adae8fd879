"""`make images`: which engine, with which words."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from support.imageprograms import program
from trainserve import __version__
from trainserve.kube import names

ROOT = Path(__file__).parents[2]
build = program("build")
install = program("install")


def _engine(folder: Path, name: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)


def test_the_names_are_those_that_jobs_ask_for() -> None:
    made = build.Build("podman", build.PREFIX, __version__, __version__, "unknown")
    assert [made.name(role) for role in build.ROLES] == [names.image_for(role) for role in build.ROLES]


def test_the_version_is_written_in_one_place() -> None:
    assert install.version_of_tree() == __version__
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    for dockerfile in (ROOT / "manifests/images").glob("*/Dockerfile"):
        assert __version__ not in re.sub(r"ARG BASE=.*", "", dockerfile.read_text())


@pytest.mark.parametrize(
    ("here", "broken", "chosen"),
    [
        (("docker", "podman", "buildah"), (), "docker"),
        (("docker", "podman", "buildah"), ("docker",), "podman"),
        (("docker", "buildah"), ("docker",), "buildah"),
        (("buildah",), (), "buildah"),
    ],
)
def test_the_first_engine_that_works_is_used(
    tmp_path: Path, here: tuple[str, ...], broken: tuple[str, ...], chosen: str
) -> None:
    for name in here:
        _engine(tmp_path, name, code=1 if name in broken else 0)
    assert build.find_engine("", str(tmp_path)) == chosen


def test_no_engine_is_said_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(build.Refused, match="none of docker, podman, buildah is on PATH") as refused:
        build.find_engine("", str(tmp_path))
    assert "buildah" in refused.value.hint
    _engine(tmp_path, "docker", code=1)
    with pytest.raises(build.Refused, match="its daemon does not answer"):
        build.find_engine("", str(tmp_path))
    with pytest.raises(build.Refused, match="--engine podman: there is no such program"):
        build.find_engine("podman", str(tmp_path))


def test_the_words_for_the_engine() -> None:
    made = build.Build(
        engine="buildah",
        prefix="registry.example/team",
        tag="t",
        version="1.2.3",
        revision="abc",
        base="localhost/base:1",
        torch_index="https://wheels.example/cpu",
        pip_conf="/etc/my pip.conf",
        more=("--network=host",),
    )
    assert made.command("trainer") == [
        *("buildah", "build", "--layers", "--format", "docker", "--file", "manifests/images/trainer/Dockerfile"),
        *("--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc", "--build-arg", "BASE=localhost/base:1"),
        *("--build-arg", "TORCH_INDEX=https://wheels.example/cpu"),
        *("--secret", "id=pip.conf,src=/etc/my pip.conf"),
        *("--tag", "registry.example/team/trainer:t", "--network=host", "."),
    ]


def test_what_is_given_reaches_a_dockerfile() -> None:
    filled = dict.fromkeys(build.Build.__dataclass_fields__, "x")
    made = build.Build(**{**filled, "engine": "podman", "more": ()})
    command = made.command("server")
    text = (ROOT / "manifests/images/server/Dockerfile").read_text()
    given = [
        word.partition("=")[0] for word, before in zip(command[1:], command, strict=False) if before == "--build-arg"
    ]
    assert len(given) == 6
    assert [name for name in given if not re.search(rf"(?m)^ARG {name}\b", text)] == []
    assert set(re.findall(r"type=secret,id=([\w.]+)", text)) == {"pip.conf", "ca"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], "no such image 'train'"),
        (["--ca", "/nowhere/ca.crt"], "--ca: /nowhere/ca.crt is no file"),
        (["--pip-conf", "/nowhere/pip.conf"], "--pip-conf: /nowhere/pip.conf is no file"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_CERT", raising=False)
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    assert build.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert "\nhint: " in said.err


def test_a_dry_run_prints_the_words_and_runs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(tmp_path, "buildah", code=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main(["server", "--dry-run", "--", "--isolation", "chroot"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("buildah build ")
    assert line.endswith(f"--tag {names.image_for('server')} --isolation chroot .")


def test_a_build_that_fails_is_told_and_the_next_is_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(tmp_path, "buildah", code=7)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("is not built: buildah ended with 7") == 1


def test_a_tree_that_differs_from_its_commit_says_so(tmp_path: Path) -> None:
    assert build.revision(tmp_path) == "unknown"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    assert re.fullmatch(r"[0-9a-f]{40}", build.revision(tmp_path))
    (tmp_path / "file").touch()
    assert build.revision(tmp_path).endswith("-dirty")


@pytest.mark.parametrize("words", [["project", "9.9.9"], ["project"], ["packages", "gpu"], ["nothing"], []])
def test_a_step_with_wrong_words_ends_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_run", lambda command: None)
    assert install.main(words) == 2
    assert capsys.readouterr().err


def test_torch_of_another_index_is_taken_from_there_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(install, "_run", lambda command: None)
    monkeypatch.setattr(install, "_install", lambda text, *options, **_: asked.append((text, options)))
    monkeypatch.setenv("TORCH_INDEX", "https://wheels.example/cpu")
    assert install.main(["packages", "train"]) == 0
    (torch, options), (rest, _) = asked
    assert [line.partition("==")[0] for line in torch.splitlines()] == ["torch", "torchvision"]
    assert options == ("--index-url", "https://wheels.example/cpu", "--no-deps")
    assert "TORCH_HASHES" in capsys.readouterr().err
    assert not re.search(r"(?m)^(torch|torchvision|nvidia-\S+|triton)==", rest)
    assert "numpy==" in rest

    asked.clear()
    monkeypatch.setenv("TORCH_HASHES", "sha256:aa sha256:bb")
    assert install.main(["packages", "train"]) == 0
    assert all(line.endswith(" --hash=sha256:aa --hash=sha256:bb") for line in asked[0][0].splitlines())
    assert asked[0][1][-1] == "--require-hashes"
    assert "TORCH_HASHES" not in capsys.readouterr().err


def test_an_index_of_torch_for_an_image_without_is_said_to_have_no_effect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_run", lambda command: None)
    monkeypatch.setattr(install, "_install", lambda text, *options, **_: None)
    monkeypatch.setenv("TORCH_INDEX", "https://wheels.example/cpu")
    assert install.main(["packages", "operator"]) == 0
    assert "TORCH_INDEX has no effect" in capsys.readouterr().err
