"""Readers of both cgroup versions, on trees as they look in a container and on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainserve.machine import cgroup


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "low 0\noom 5\noom_kill 3\n"},
        {"proc/self/cgroup": "0::/kube/pod1\n", "sys/fs/cgroup/kube/pod1/memory.events": "oom_kill 3\n"},
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        },
        {
            "proc/self/cgroup": "5:memory:/user/x\n",
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 99\n",
            "sys/fs/cgroup/memory/user/x/memory.oom_control": "oom_kill 3\n",
        },
    ],
)
def test_oom_kills(tmp_path: Path, files: dict[str, str]) -> None:
    assert cgroup.oom_kills(tree(tmp_path, files)) == 3


def test_no_cgroup_counts_nothing(tmp_path: Path) -> None:
    assert cgroup.oom_kills(tmp_path) is None


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
        {
            "proc/self/cgroup": "2:cpu,cpuacct:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "90000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_cpu_limit_below_one_core_is_one_core(tmp_path: Path, files: dict[str, str]) -> None:
    assert cgroup.cores(tree(tmp_path, files)) == 1


def test_no_cpu_limit_is_the_affinity(tmp_path: Path) -> None:
    unlimited = cgroup.cores(tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}))
    assert unlimited == cgroup.cores(tmp_path / "nothing") >= 1
