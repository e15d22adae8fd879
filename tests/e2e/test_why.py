"""Accidents that really happen, and `platform why` of each: the cause, who began it, and one thing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accidents import Accident, end_all, shown


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    end_all()


# What one rank of two does -> the cause, what the sentence has, what the advice has.
CAUSES: dict[str, tuple[str, str, str, str]] = {
    "exception": ("def mine(x):\n    return 1 / x\nmine(0)", "exception", "ZeroDivisionError", "repair the line"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "segfault", "SIGSEGV", "stack"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL", "dmesg"),
    "bus-error": ("os.kill(os.getpid(), signal.SIGBUS)", "shared-memory", "/dev/shm", "/dev/shm"),
    "memory": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\nx = bytearray(2**30)",
        "out-of-memory-refused",
        "MemoryError",
        "memory",
    ),
    "disk": ("open('/dev/full', 'w').write('x' * 99999)", "disk-full", "No space left on device", "df -h"),
    "file-size": (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "with open('out', 'wb') as f:\n    f.write(b'x' * 99)",
        "disk-full",
        "File too large",
        "platform resume",
    ),
    "files": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "kept = [open(os.devnull) for _ in range(50)]",
        "too-many-open-files",
        "too many files open",
        "ulimit -n",
    ),
    "package": ("import no_such_package_here.part", "package-missing", "no_such_package_here", "pip install"),
    "library": (
        "import ctypes\nopen('broken.so', 'w').write('no library')\nimport importlib.util as u\n"
        "u.module_from_spec(u.spec_from_file_location('broken', os.path.abspath('broken.so')))",
        "library-broken",
        "broken.so",
        "reinstall",
    ),
    "import": ("from json import no_such_name", "import-error", "no_such_name", "version"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_what_a_rank_does(name: str) -> None:
    source, cause, sentence, advice = CAUSES[name]
    body = "\n".join("    " + line for line in source.splitlines())
    found = Accident("run", f"if rank == 1:\n{body}\ntime.sleep(60)\n", nodes=1, nproc=2).over()
    assert found["cause"] == cause, shown(found)
    assert found["rank"] == 1
    assert sentence in found["title"]
    assert advice in found["advice"]
    assert found["state"] == "Failed"
    assert [victim["who"] for victim in found["victims"]] == ["rank 0"]
    assert found["exitCode"] not in (0, None)
