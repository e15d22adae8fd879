"""`platform doctor`, whole and its line on torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import platform
from trainserve.client import doctor
from trainserve.kube import names

SEEN = {"torch": "2.6", "torchvision": "0.21", "built": "12.4", "gpus": [], "nccl": None, "gloo": True}


def said(**changes: object) -> str:
    return "a warning of some library\n" + json.dumps({**SEEN, **changes}) + "\n"


def test_torch_and_the_gpus_it_sees() -> None:
    plain = doctor.torch(said(), "", nvidia=False)
    assert [(check.name, check.verdict) for check in plain] == [("torch", "ok"), ("GPU", "ok")]
    unseen = doctor.torch(said(), "", nvidia=True)[1]
    assert (unseen.verdict, unseen.stops) == ("warning", False)
    assert "torch is built for CUDA 12.4" in unseen.found
    card = doctor.torch(said(gpus=[["H100", 80 << 30]], nccl="2.21.5"), "", nvidia=True)[1]
    assert (card.verdict, card.found) == ("ok", "H100 (80.0 GiB); NCCL 2.21.5")
    assert doctor.torch(said(gpus=[["H100", 1 << 30]]), "", nvidia=True)[1].verdict == "warning"
    assert doctor.torch(said(gloo=False), "", nvidia=False)[0].stops


def test_a_torch_that_does_not_import_says_why() -> None:
    found = doctor.torch("", "Traceback\nImportError: libcudart.so.12: cannot open shared object file\n", nvidia=False)
    assert len(found) == 1
    assert found[0].stops
    assert found[0].found == ("import torch, torchvision: ImportError: libcudart.so.12: cannot open shared object file")
    assert doctor.torch("not json", "", nvidia=False)[0].found.endswith("it ended without a word")


@pytest.mark.slow
def test_the_verb_on_this_machine(tmp_path: Path) -> None:
    done = platform("doctor", "-o", "json", home=tmp_path / "home")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["torch"]["status"] == "ok", done.stdout
    assert found["locks"]["status"] == "ok"
    assert found["image"]["found"] == names.image_for("trainer")
    stops = [name for name, each in found.items() if each["required"] and each["status"] == "missing"]
    assert done.returncode == (3 if stops else 0), done.stderr
    assert all(each["fix"] for each in found.values() if each["status"] != "ok")
    assert not (tmp_path / "home").exists(), "looking changes nothing"


def test_what_is_required_and_missing_ends_with_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(doctor, "ASK_TORCH", "raise SystemExit")
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "file" / "home"))
    from click.testing import CliRunner

    from trainserve.cli.doctor import doctor_command

    done = CliRunner().invoke(doctor_command, ["-o", "name"], standalone_mode=False)
    assert done.return_value == 3, done.output
    assert "required and not here: torch, home" in done.output
