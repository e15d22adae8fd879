"""A folder behind the streams of an exec: the program in the helper pod, run here as a process of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.pipes import Pipe
from trainserve.client.cluster.remote import Remote
from trainserve.errors import EnvironmentProblem
from trainserve.launch import reach
from trainserve.machine.bucket.words import Absent


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def remote(loop, tmp_path):
    (tmp_path / "volume").mkdir()

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c",
            "import sys; from pathlib import Path; from trainserve.launch.reach import serve; "
            "serve(sys.stdin.buffer, sys.stdout.buffer, Path(sys.argv[1]), Path(sys.argv[2]))",
            str(tmp_path / "volume"), str(tmp_path / "sign"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    process = run(start())

    async def connect() -> Remote:
        return Remote("pvc://claim", Pipe(process), loop)

    found = run(connect())
    found.process = process  # type: ignore[attr-defined]
    yield found
    process.stdin.close()
    run(process.wait())


@pytest.mark.slow
def test_files_go_there_and_come_back(remote, tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 40_000)
    remote.send(file, "a/large")
    remote.write("a/small", b"hello")
    remote.write("top", b"")
    assert {item.name: item.size for item in remote.list()} == {"a/large": 10_240_000, "a/small": 5, "top": 0}
    assert [item.name for item in remote.list("a")] != []
    assert b"".join(remote.stream("a/large")) == file.read_bytes()
    assert b"".join(remote.stream("a/large", 10_000_000)) == file.read_bytes()[10_000_000:]
    assert b"".join(remote.stream("top")) == b""
    assert (remote.head("a/small").size, remote.head("nothing")) == (5, None)
    with pytest.raises(Absent):
        b"".join(remote.stream("nothing"))
    remote.remove(["a/small", "nothing"])
    assert remote.head("a/small") is None
    assert (tmp_path / "sign").exists()


@pytest.mark.slow
def test_many_at_a_time_are_answered_each_with_its_own(remote, tmp_path):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: remote.write(f"f/{number}", str(number).encode() * 1000), range(200)))
        found = list(pool.map(lambda number: b"".join(remote.stream(f"f/{number}")), range(200)))
    assert found == [str(number).encode() * 1000 for number in range(200)]


@pytest.mark.slow
def test_nothing_outside_of_the_folder_is_touched_and_what_fails_is_said(remote, tmp_path):
    for name in ("../out", "/etc/passwd"):
        with pytest.raises(EnvironmentProblem, match="leads out of the folder"):
            remote.write(name, b"x")
        with pytest.raises(EnvironmentProblem, match="leads out of the folder"):
            b"".join(remote.stream(name))
    (tmp_path / "volume" / "link").symlink_to("/etc")
    with pytest.raises(EnvironmentProblem, match="leads out of the folder"):
        b"".join(remote.stream("link/passwd"))
    remote.write("a", b"a file")
    with pytest.raises(EnvironmentProblem, match=r"pvc://claim/a/b cannot be written: .*"):
        remote.write("a/b", b"below a file" * 1000)
    assert b"".join(remote.stream("a")) == b"a file"  # the connection is in step
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_that_ends_is_told_to_all_who_wait(remote):
    remote.process.kill()
    with pytest.raises(EnvironmentProblem, match=r"has ended|broke off"):
        remote.write("a", b"x")
    with pytest.raises(EnvironmentProblem, match=r"has ended|broke off"):
        list(remote.list())


def test_half_a_put_leaves_nothing(tmp_path):
    import io

    source = io.BytesIO(b'{"op": "put", "name": "a/b", "bytes": 100}\nonly half of it')
    with pytest.raises(SystemExit):
        reach.serve(source, io.BytesIO(), tmp_path, tmp_path / "sign")
    assert [path.name for path in (tmp_path / "a").iterdir()] == []


def test_nobody_asking_ends_the_pod(tmp_path):
    assert reach.hold(tmp_path / "sign", 0.0) != 0
