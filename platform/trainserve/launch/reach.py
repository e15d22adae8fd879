"""Inside of a helper pod that mounts a claim: `python -m trainserve.launch.reach hold|serve FOLDER`.

`hold` is the pod's own process: it ends when nobody has asked for anything for a while, so that a pod whose command
died ends by itself. `serve` is what `kubectl exec` would start: it answers on stdin and stdout, for one command.

A request is a line of JSON, then `bytes` bytes of data; its answer is the same, in the order of the requests:

    {"op": "list", "prefix"}                {"items": [[name, bytes, version], ...]}
    {"op": "head", "name"}                  {"size", "version"}; {"absent": true}
    {"op": "get", "name", "start", "most"}  {"bytes"} and so many bytes, "most" at most; {"absent": true}
    {"op": "put", "name", "bytes"}          {}: whole under its name, or not there
    {"op": "remove", "name"}                {}
    {"op": "alive"}                         {}
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from trainserve.errors import EXIT_OK, EXIT_TIMEOUT, EXIT_USER, UserError
from trainserve.kube.names import HELPER_IDLE_S
from trainserve.machine.bucket.filesystems import UNFINISHED

CHUNK = 2**20
MOST = 16 * 2**20  # bytes of an answer
LONGEST = 64 * 1024  # bytes of a request's line
SIGN = Path("/tmp/trainserve-reach")  # noqa: S108  touched with every request; /tmp is the pod's own

Request = dict[str, Any]


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    if len(argv) != 2 or argv[0] not in {"hold", "serve"}:
        sys.stderr.write("python -m trainserve.launch.reach hold|serve FOLDER\n")
        return EXIT_USER
    if argv[0] == "hold":
        return hold(SIGN, HELPER_IDLE_S)
    serve(sys.stdin.buffer, sys.stdout.buffer, Path(argv[1]), SIGN)
    return EXIT_OK


def hold(sign: Path, idle_s: float) -> int:
    """Wait until `sign` has not been touched for `idle_s`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_OK))  # process 1 has no default
    sign.touch()
    while time.time() - sign.stat().st_mtime < idle_s:
        time.sleep(1)
    sys.stderr.write(f"nobody has asked for anything for {idle_s:.0f} s\n")
    return EXIT_TIMEOUT


def serve(source: IO[bytes], target: IO[bytes], root: Path, sign: Path) -> None:
    """Answer until `source` ends."""
    while line := source.readline(LONGEST):
        sign.touch()
        request: Request = json.loads(line)
        try:
            answer, data = _answer(request, source, root, sign)
        except (OSError, UserError) as error:
            words = error.message if isinstance(error, UserError) else error.strerror or str(error)
            answer, data = {"error": words, "errno": getattr(error, "errno", None)}, None
        target.write(json.dumps(answer).encode() + b"\n")
        target.write(data or b"")
        target.flush()


def _answer(request: Request, source: IO[bytes], root: Path, sign: Path) -> tuple[Request, bytes | None]:
    op = request["op"]
    if op == "list":
        return {"items": _listed(root, str(request["prefix"]))}, None
    if op == "alive":
        return {}, None
    if op == "put":
        return _put(source, root, request, sign), None
    path = _inside(root, request["name"])
    if op == "remove":
        path.unlink(missing_ok=True)
        return {}, None
    if not path.is_file():
        return {"absent": True}, None
    if op == "head":
        stat = path.stat()
        return {"size": stat.st_size, "version": str(stat.st_mtime_ns)}, None
    with path.open("rb") as file:
        file.seek(int(request["start"]))
        data = file.read(min(int(request["most"]), MOST))
    return {"bytes": len(data)}, data


def _put(source: IO[bytes], root: Path, request: Request, sign: Path) -> Request:
    """The data is read to its end, whatever goes wrong with the disk: the next request follows it."""
    left = int(request["bytes"])
    problem: OSError | UserError | None = None
    draft = path = None
    try:
        path = _inside(root, request["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}{UNFINISHED}{secrets.token_hex(4)}")
        out: IO[bytes] | None = draft.open("xb")
    except (OSError, UserError) as error:
        problem, out = error, None
    while left:
        piece = source.read(min(CHUNK, left))
        if not piece:
            if out is not None:
                out.close()
            if draft is not None:
                draft.unlink(missing_ok=True)
            sys.exit(EXIT_OK)  # the command is gone
        left -= len(piece)
        sign.touch()  # a large file may take longer than the pod waits for a request
        try:
            if out is not None and problem is None:
                out.write(piece)
        except OSError as error:
            problem = error
    try:
        if out is not None:
            with out:
                out.flush()
                os.fsync(out.fileno())
    except OSError as error:
        problem = problem or error
    if problem is not None:
        if draft is not None:
            draft.unlink(missing_ok=True)
        raise problem
    assert draft is not None
    assert path is not None
    draft.replace(path)
    return {}


def _listed(root: Path, prefix: str) -> list[list[Any]]:
    found = []
    for path in _inside(root, prefix).rglob("*") if prefix else root.rglob("*"):
        if UNFINISHED not in path.name and path.is_file():
            stat = path.stat()
            found.append([path.relative_to(root).as_posix(), stat.st_size, str(stat.st_mtime_ns)])
    return found


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if name.startswith("/") or ".." in Path(name).parts or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{name!r} leads out of the folder")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
