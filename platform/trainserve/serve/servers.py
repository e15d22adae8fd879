"""The servers that run on this machine: `$TRAINSERVE_HOME/serving/<name>.json`, so that `predict NAME` finds them.

A record counts only while its server holds the lock beside it, `<name>.lock` (flock): the kernel drops the lock however
the process ends, so no record can be stale, and no process id can be mistaken for another's.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from trainserve.errors import UserError
from trainserve.kube.names import ENV_HOME
from trainserve.package.mar import check_name
from trainserve.package.publish import write_file


@dataclass(frozen=True)
class ServerRecord:
    """One running server."""

    name: str
    pid: int  # of the process that holds the lock
    rest_url: str
    grpc_target: str
    management_url: str
    models: dict[str, str]  # name -> version
    max_upload_mib: int
    log: str


@dataclass(frozen=True)
class Endpoint:
    """Where to send pictures. What is not known of a server elsewhere is None or empty."""

    rest_url: str | None
    grpc_target: str | None
    models: tuple[str, ...] = ()
    model: str | None = None  # the one that was meant
    max_upload_mib: int | None = None

    def pick_model(self, asked: str | None) -> str:
        """The model to ask. Raises UserError that lists the models where the choice is not clear."""
        serves = f"it serves {', '.join(self.models)}" if self.models else "its models are not known here"
        where = self.rest_url or self.grpc_target
        wanted = asked or self.model or (self.models[0] if len(self.models) == 1 else None)
        if wanted is None:
            raise UserError(f"{where}: which model? {serves}", hint="say --model NAME, or URL/predictions/NAME")
        if self.models and wanted not in self.models:
            raise UserError(f"{where}: no model {wanted!r}; {serves}")
        return check_name(wanted)


def serving_folder() -> Path:
    """`$TRAINSERVE_HOME/serving`, made if missing."""
    home = os.environ.get(ENV_HOME)
    folder = (Path(home) if home else Path.home() / ".trainserve") / "serving"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def claim(name: str) -> Iterator[Path]:
    """Hold the server name `name`; gives the path of its record. Raises UserError while another process holds it."""
    check_name(name, "server name")
    record = serving_folder() / f"{name}.json"
    # Never deleted: two processes would otherwise lock two files of one name.
    descriptor = os.open(_lock_file(record), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor):
            running = _read(record)
            where = f" at {running.rest_url} (process {running.pid})" if running else ", just starting"
            raise UserError(f"a server named {name!r} runs already{where}", hint="stop it or give another --name")
        record.unlink(missing_ok=True)  # of a server that was killed
        try:
            yield record
        finally:
            record.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_record(path: Path, record: ServerRecord) -> None:
    """Publish a server, once it is ready."""
    write_file(path, json.dumps(asdict(record), indent=1).encode() + b"\n")


def running_servers() -> list[ServerRecord]:
    """All servers of this user that run now, by name."""
    found = []
    for path in sorted(serving_folder().glob("*.json")):
        record = _read(path) if _held(path) else None
        if record is not None:
            found.append(record)
    return found


def find_server(name_or_url: str) -> Endpoint:
    """A running server by its name, by a model it serves, or any server by URL.

    URLs: `http[s]://host:port[/predictions/MODEL]`, `grpc://host:port`. Raises UserError for what is neither.
    """
    servers = running_servers()
    if "://" in name_or_url:
        return _by_url(name_or_url, servers)
    for server in servers:
        if server.name == name_or_url:
            return _endpoint(server, name_or_url if name_or_url in server.models else None)
    serving = [server for server in servers if name_or_url in server.models]
    if len(serving) == 1:
        return _endpoint(serving[0], name_or_url)
    known = sorted({name for server in servers for name in (server.name, *server.models)})
    if serving:
        names = ", ".join(server.name for server in serving)
        raise UserError(f"model {name_or_url!r} is served by {names}", hint="give the server's name, and --model")
    close = get_close_matches(name_or_url, known, n=1)
    said = f", did you mean {close[0]!r}?" if close else f"; running: {', '.join(known) or 'none'}"
    raise UserError(f"no server named {name_or_url!r} runs here{said}", hint="start one with `platform serve`")


def _by_url(text: str, servers: list[ServerRecord]) -> Endpoint:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise UserError(f"{text}: not a URL: {error}") from None
    parts = [part for part in url.path.split("/") if part]
    if url.scheme not in {"http", "https", "grpc"} or not url.hostname or url.query or url.fragment:
        raise UserError(f"{text}: not a server's URL", hint="http://host:port, http://host:port/predictions/MODEL")
    if url.scheme == "grpc":
        if port is None or parts:
            raise UserError(f"{text}: a gRPC address is grpc://host:port")
        target = f"{url.hostname}:{port}"
        same = [server for server in servers if server.grpc_target == target]
        return _endpoint(same[0], None) if same else Endpoint(None, target)
    if parts and (len(parts) != 2 or parts[0] != "predictions"):
        raise UserError(f"{text}: the path is not /predictions/MODEL")
    base = f"{url.scheme}://{url.netloc}"
    model = parts[1] if parts else None
    local = base.replace("//localhost:", "//127.0.0.1:")
    same = [server for server in servers if server.rest_url == local]
    return _endpoint(same[0], model) if same else Endpoint(base, None, model=model)


def _endpoint(server: ServerRecord, model: str | None) -> Endpoint:
    return Endpoint(server.rest_url, server.grpc_target, tuple(server.models), model, server.max_upload_mib)


def _lock(descriptor: int) -> bool:
    """Take the lock; a moment of patience, because readers hold it for an instant in `_held`."""
    for attempt in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02 * attempt)
        else:
            return True
    return False


def _lock_file(record: Path) -> Path:
    return record.with_suffix(".lock")


def _held(record: Path) -> bool:
    """Whether a process holds the lock of this record."""
    try:
        descriptor = os.open(_lock_file(record), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(path: Path) -> ServerRecord | None:
    try:
        return ServerRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # not written yet, or by another version
