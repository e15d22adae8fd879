"""What the shell completes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import environment
from support.here import Here
from trainserve.local import rundir

SHELLS = ["bash", "zsh", "fish"]


def completed(line: str, home: Path) -> list[str]:
    """The words that bash is given for the last word of `line`."""
    words = line.split(" ")
    program = (
        "import sys; from trainserve.__main__ import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'sklearn', 'grpc', 'kubernetes'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={
            **environment(home),
            "_PLATFORM_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    assert done.stderr == ""
    return [item.split(",", 1)[1] for item in done.stdout.splitlines() if item]


def test_names_are_completed(home: Path) -> None:
    for name in ("digits", "digits-2", "flowers"):
        rundir.create(name)
    assert completed("platform ca", home) == ["cancel"]
    assert completed("platform status d", home) == ["digits", "digits-2"]
    assert completed("platform cancel digits f", home) == ["flowers"]
    assert completed("platform train --set train.ep", home) == ["train.epochs="]
    assert completed("platform explain train.we", home) == ["train.weightDecay"]
    assert completed("platform list -o j", home) == ["json"]
    assert completed("platform wait --fo", home) == ["--for"]
    assert completed("platform nonsense x", home) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_what_the_shells_read(shell: str, here: Here, tmp_path: Path) -> None:
    said = here("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert f"_PLATFORM_COMPLETE={shell}_complete" in said.out
    if shutil.which(shell):
        (tmp_path / "script").write_text(said.out)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["completion", "bsh"], "did you mean bash?"),
        (["list", "-o", "jsno"], "did you mean json?"),
        (["wait", "x", "--for", "Suceeded"], "did you mean Succeeded?"),
        (["explain", "--api", "pytorch"], "did you mean pytorchjob?"),
        (["data", "gte", "digits"], "did you mean get?"),
        (["data", "get", "digit"], "did you mean digits?"),
        (["lsit"], "did you mean 'list'?"),
        (["status"], "missing argument 'RUN'"),
        (["status", "a", "b"], "unexpected extra argument (b)"),
        (["wait", "x", "--timeout", "soon"], "'soon' is no length of time; allowed: such as 90s, 5m"),
    ],
)
def test_wrong_words_get_the_nearest_that_is_known(words: list[str], says: str, here: Here) -> None:
    said = here(*words)
    assert said.code == 2
    assert says in said.err
    assert said.err.startswith("error: ")
    assert "\nhint: platform " in said.err
