"""What a model's process does with a batch, with a handler of the test's; and how the two sides talk."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from trainserve.serve.native import wire
from trainserve.serve.native.process import WorkerDied, WorkerProcess, environment
from trainserve.serve.native.worker import answer


class Handler:
    """Answers the length of `body`; 400 for an empty one; raises for one that says so."""

    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        self.seen = data
        for index, item in enumerate(data):
            context.set_response_content_type(index, "text/plain")
            if item["body"] == b"crash":
                raise RuntimeError("secret path /home")
            if not item["body"]:
                context.set_response_status(400, "Bad Request", index)
                context.set_response_header(index, "x-why", context.get_all_request_header(index)["why"])
        return [str(len(item["body"])).encode() for item in data]


def ask(handler: Handler, *bodies: bytes, kind: str = "image/png") -> list[tuple[int, bytes]]:
    items = [{"headers": {"why": "empty"}, "fields": [["body", kind]]} for _ in bodies]
    replies, answers = answer(handler, items, list(bodies))
    return [(reply["status"], body) for reply, body in zip(replies, answers, strict=True)]


def test_each_request_gets_its_own_status() -> None:
    assert ask(Handler(), b"abc", b"", b"a") == [(200, b"3"), (400, b"0"), (200, b"1")]


def test_what_the_handler_did_not_expect_fails_one_request_only(capfd: pytest.CaptureFixture[str]) -> None:
    one, two, three = ask(Handler(), b"abc", b"crash", b"")
    assert (one, three) == ((200, b"3"), (400, b"0"))
    assert two[0] == 500
    assert "failed on this picture (RuntimeError)" in json.loads(two[1])["message"]
    assert b"secret" not in two[1]
    assert "secret path" in capfd.readouterr().err  # for the log


def test_a_handler_that_answers_too_few_fails_them_and_not_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    class Short(Handler):
        def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
            return super().handle(data, context)[1:]

    assert [status for status, _ in ask(Short(), b"abc", b"a")] == [500, 500]
    assert "0 answers to 1 requests" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_decoded_where_it_can_be(kind: str) -> None:
    handler = Handler()
    ask(handler, b'{"data": "x"}', kind=kind)
    assert handler.seen == [{"body": {"data": "x"}}]
    for broken in (b"{", b"\xff", b"[" * 100_000):
        ask(handler, broken, kind=kind)
        assert handler.seen == [{"body": broken}]


def test_frames_arrive_whole_both_ways() -> None:
    head, blobs = {"id": 7, "text": "ü"}, [b"", bytes(300_000), b"x"]

    async def read(ours: socket.socket) -> wire.Frame:
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.writelines(wire.encode(head, blobs))
            await writer.drain()
            return await wire.receive_async(reader)
        finally:
            writer.close()

    ours, theirs = socket.socketpair()
    with theirs:

        def echo() -> None:
            wire.send(theirs, *wire.receive(theirs))

        async def both() -> wire.Frame:
            thread = asyncio.create_task(asyncio.to_thread(echo))
            frame = await read(ours)
            await thread
            return frame

        assert asyncio.run(both()) == (head, blobs)
        with pytest.raises(wire.Closed):
            wire.receive(theirs)  # the end, not an endless wait


def test_a_model_s_process_is_no_rank_and_has_one_thread() -> None:
    found = environment({"RANK": "3", "WORLD_SIZE": "4", "OMP_NUM_THREADS": "16", "HOME": "/root"})
    assert found == {"HOME": "/root", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def test_a_process_that_cannot_be_started_is_a_failed_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The keeper tries it again then; an OSError would have ended the keeper, and the model for good."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(WorkerDied, match="cannot be started: No such file"):
        asyncio.run(WorkerProcess.start("m", tmp_path, batch_size=1, threads=1, timeout_s=5))
