"""Data out of a bucket and output into one, on a real S3 server: agents as pods run them, the command as people do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import pictures, s3server
from support.s3server import S3
from trainserve import __version__
from trainserve.client.cluster.push import push
from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.machine.bucket.store import open_bucket, read
from trainserve.machine.bucket.words import Absent
from trainserve.train.fetch import fetch

HOST = "127.93.8.72"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3server.serving(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3.bucket(f"b{abs(hash(request.node.name)) % 10**9}")


def test_objects_small_and_in_parts_come_back_as_they_went(bucket: str, tmp_path: Path) -> None:
    there = open_bucket(f"{bucket}/some/folder")
    large = tmp_path / "large"
    large.write_bytes(os.urandom(20_000_000))
    there.send(large, "a/large")
    there.write("a/ä b+%20.png", b"small")
    assert {item.name: item.size for item in there.list()} == {"a/large": 20_000_000, "a/ä b+%20.png": 5}
    assert b"".join(there.stream("a/large", 12_345_678)) == large.read_bytes()[12_345_678:]
    assert read(there, "a/ä b+%20.png", 10) == b"small"
    there.remove(["a/large", "nothing"])
    assert there.head("a/large") is None


def test_what_is_wrong_is_told_in_words(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Absent, match=r"s3://nobody-has-this/x cannot be listed: there is no such bucket"):
        list(open_bucket("s3://nobody-has-this/x").list())
    with pytest.raises(Absent, match="there is nothing of this name"):
        read(open_bucket(bucket), "nothing", 10)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(EnvironmentProblem, match="the credentials are refused") as caught:
        open_bucket(bucket).write("x", b"x")
    assert "spec.pod.envFrom" in str(caught.value.hint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"].replace("http:", "https:"))
    with pytest.raises(EnvironmentProblem, match="does not speak TLS"):
        list(open_bucket(bucket).list())


def test_a_push_that_is_killed_goes_on_and_what_was_pushed_is_fetched(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers = pictures.write_classes(tmp_path / "flowers", {"rose": 150, "tulip": 150})
    with s3server.faulty(s3.port) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3server.environment(port)["AWS_ENDPOINT_URL"])
        command = [sys.executable, "-m", "trainserve", "data", "push", str(flowers), f"{bucket}/sets"]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sum(1 for _ in (s3.folder / bucket.removeprefix("s3://")).rglob("*.png")) < 30:
            assert first.poll() is None
            time.sleep(0.01)
        first.kill()
        first.wait()
        there = {item.name for item in open_bucket(f"{bucket}/sets").list()}
        assert 30 <= len(there) < 301
        assert not any(name.endswith("manifest.json") for name in there)
        said: list[str] = []
        listener = Listener()
        listener.notice = said.append  # type: ignore[method-assign]
        found = push(flowers, f"{bucket}/sets", None, listener)
        assert found.sent < found.bytes
        assert any("of 300 pictures are there already" in text for text in said)
        fetched = fetch(found.url, tmp_path / "cache", digest=found.digest, say=said.append)
    assert fetched.pictures == 300
    assert {path.name: path.read_bytes() for path in fetched.path.rglob("*.png")} == {
        path.name: path.read_bytes() for path in flowers.rglob("*.png")
    }


class Gang:
    """Two nodes of one rank each, as the controller and `cluster_job` would have them."""

    def __init__(self, folder: Path, spec: dict[str, object], store: str, generation: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.nodes = [self._node(node, spec, store, generation) for node in range(2)]

    def _node(self, node: int, spec: dict[str, object], store: str, generation: int) -> subprocess.Popen[bytes]:
        own = {**spec, "data": {**spec["data"], "cache": str(self.folder.parent / f"cache-{node}")}}  # type: ignore[dict-item]
        classifier = {
            "apiVersion": "trainserve.dev/v1alpha1",
            "kind": "Classifier",
            "metadata": {"name": "flowers"},
            "spec": own,
        }
        env = {
            **os.environ,
            names.ENV_SPEC: json.dumps(classifier),
            names.ENV_JOB: "team/flowers",
            names.ENV_JOB_UID: "uid-1",
            names.ENV_GENERATION: str(generation),
            names.ENV_VERSION: __version__,
            names.ENV_MASTER_ADDR: HOST,
            names.ENV_MASTER_PORT: "23987",
            names.ENV_PET_NNODES: "2",
            names.ENV_PET_NODE_RANK: str(node),
            names.ENV_RANK: str(node),
            names.ENV_PET_NPROC_PER_NODE: "1",
            names.ENV_HOST_NODES: "2",
            names.ENV_TERMINATION_LOG: str(self.folder / f"termination-{node}"),
        }
        if node == 0:
            env |= {names.ENV_OUTPUT: str(self.folder / "output"), names.ENV_STORE: store}
        with (self.folder / f"log-{node}").open("wb") as log:
            command = [sys.executable, "-m", "trainserve.launch", "-m", "trainserve.launch.work"]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def log(self, node: int) -> str:
        return (self.folder / f"log-{node}").read_text()

    def ended(self, timeout_s: float = 280) -> list[int]:
        try:
            return [node.wait(timeout_s) for node in self.nodes]
        finally:
            for node in self.nodes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(node.pid, signal.SIGKILL)  # its ranks too
                node.wait()


@pytest.mark.training
def test_a_run_is_trained_from_a_bucket_stopped_and_ends_elsewhere_with_all_of_it_in_the_bucket(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers = pictures.write_classes(tmp_path / "flowers", {"rose": 20, "tulip": 20})
    store = f"{bucket}/out/flowers"
    objects = s3.folder / bucket.removeprefix("s3://") / "out" / "flowers"
    with s3server.faulty(s3.port) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3server.environment(port)["AWS_ENDPOINT_URL"])
        pushed = push(flowers, f"{bucket}/sets", None, Listener())
        spec = {
            "data": {"path": pushed.url, "digest": pushed.digest},
            "train": {"epochs": 3, "batchSize": 8, "device": "cpu", "keepLast": 1},
        }
        first = Gang(tmp_path / "first", spec, store, 1)
        try:
            while not list(objects.glob("checkpoints/*/meta.json")):
                assert all(node.poll() is None for node in first.nodes), first.log(0) + first.log(1)
                time.sleep(0.05)
            for node in first.nodes:
                node.send_signal(signal.SIGTERM)
        finally:
            codes = first.ended()
        assert codes == [143, 143], first.log(0)
        assert f"fetched 40 pictures of {pushed.url}" in first.log(0)
        last = max(path.name for path in (tmp_path / "first" / "output" / "checkpoints").glob("step-*"))
        assert (objects / "checkpoints" / last / "meta.json").is_file()
        shutil.rmtree(tmp_path / "first" / "output")  # the pod is gone
        second = Gang(tmp_path / "second", spec, store, 2)
        assert second.ended() == [0, 0], second.log(0) + second.log(1)
    assert f"checkpoint {last} is brought back from {store}" in second.log(0)
    assert "is in the cache: 40 pictures" in second.log(1)
    events = [json.loads(line) for line in (objects / "events.jsonl").read_text().splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds.count("start") == 1
    assert {"stopped", "resume"} <= set(kinds)
    assert kinds[-1] == "done"
    output = tmp_path / "second" / "output"
    for path in (path for path in output.rglob("*") if path.is_file() and not path.name.startswith(".")):
        assert (objects / path.relative_to(output)).read_bytes() == path.read_bytes()
    for generation in (1, 2):
        for pod, rank in (("flowers-master-0", 0), ("flowers-worker-0", 1)):
            assert f"rank {rank} of 2" in (objects / "logs" / f"g{generation}" / f"{pod}-rank{rank}.log").read_text()
    here = {path.name for path in (output / "checkpoints").iterdir() if not path.name.startswith(".")}
    assert {path.name for path in (objects / "checkpoints").iterdir()} == here


@pytest.mark.training
def test_a_result_that_cannot_be_stored_fails_the_run_with_its_reason(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import pathlib, os; pathlib.Path(os.environ['TRAINSERVE_OUTPUT'], 'x.mar').write_text('x')")
    (tmp_path / "output").mkdir()
    env = {
        **os.environ,
        names.ENV_OUTPUT: str(tmp_path / "output"),
        names.ENV_STORE: "s3://nobody-has-this/out",
        names.ENV_TERMINATION_LOG: str(tmp_path / "termination"),
    }
    code = (
        "import sys; from trainserve.launch import store; store.LAST_S = 0.1; store.RETRY_S = 0.1; "
        "from trainserve.launch.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(program)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    said = json.loads((tmp_path / "termination").read_text())
    assert "the result cannot be stored" in said["message"]
    assert "there is no such bucket" in said["message"]
