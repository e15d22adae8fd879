"""The servers that run on this machine, a folder each below `$TRAINSERVE_HOME/serving`: how `predict NAME` finds them.

    server.json      address and models
    lock             held by the server's process
    torchserve.log   the newest of at most three, .1 and .2 are older; java.log: what the JVM itself says
    folder           where its temporary files are

A record counts only while the lock beside it is held: the kernel drops it however the process ends, so no record can
be stale, and no process id can be mistaken for another's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine import locks
from trainserve.machine.files import write_json
from trainserve.machine.home import home
from trainserve.package.modelname import check_name

RECORD = "server.json"
LOCK = "lock"
URLS = "a server's name, http://HOST:PORT, http://HOST:PORT/predictions/MODEL or grpc://HOST:PORT"


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
    engine: str = "torchserve"  # or native, which has neither gRPC nor management


@dataclass(frozen=True)
class Endpoint:
    """Where to send pictures. What is not known of a server elsewhere is None or empty."""

    rest_url: str | None
    grpc_target: str | None
    models: tuple[str, ...] = ()
    model: str | None = None  # the one that was meant
    max_upload_mib: int | None = None
    engine: str | None = None

    def need_grpc(self) -> str:
        """The gRPC address. Raises UserError that says why there is none."""
        if self.grpc_target is not None:
            return self.grpc_target
        if self.engine == "native":
            raise UserError(
                f"{self.rest_url}: the native engine answers REST only",
                hint="ask without --grpc, or serve with --engine torchserve",
            )
        raise UserError(
            f"{self.rest_url}: its gRPC address is not known here", hint="give it: grpc://HOST:PORT --model NAME"
        )

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
    """`$TRAINSERVE_HOME/serving`, which is there once there was a server."""
    return home() / "serving"


@contextmanager
def claim(name: str) -> Iterator[Path]:
    """Hold the server name `name`; gives the path of its record. Raises UserError while another process holds it."""
    check_name(name, "server name")
    folder = serving_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = locks.take(folder / LOCK)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be written: {error.strerror or error}") from error
    record = folder / RECORD
    if descriptor is None:
        running = _read(record)
        where = f" at {running.rest_url} (process {running.pid})" if running else ", just starting"
        raise UserError(f"a server named {name!r} runs already{where}", hint="stop it or give another --name")
    try:
        record.unlink(missing_ok=True)  # of a server that was killed
        try:
            yield record
        finally:
            record.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_record(path: Path, record: ServerRecord) -> None:
    """Publish a server, once it is ready."""
    write_json(path, asdict(record))


def running_servers() -> list[ServerRecord]:
    """All servers of this user that run now, by name."""
    found = []
    for path in sorted(serving_folder().glob(f"*/{RECORD}")):
        record = _read(path) if locks.is_held(path.with_name(LOCK)) else None
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
        raise UserError(f"{text}: not a URL: {error}", hint=URLS) from None
    parts = [part for part in url.path.split("/") if part]
    if url.scheme not in {"http", "https", "grpc"} or not url.hostname or url.query or url.fragment:
        raise UserError(f"{text}: not a server's URL", hint=URLS)
    if url.scheme == "grpc":
        if port is None or parts:
            raise UserError(f"{text}: a gRPC address is grpc://host:port", hint=URLS)
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        target = f"{host}:{port}"
        same = [server for server in servers if server.grpc_target == target]
        return _endpoint(same[0], None) if same else Endpoint(None, target)
    if parts and (len(parts) != 2 or parts[0] != "predictions"):
        raise UserError(f"{text}: the path is not /predictions/MODEL", hint=URLS)
    base = f"{url.scheme}://{url.netloc}"
    model = parts[1] if parts else None
    local = base.replace("//localhost:", "//127.0.0.1:")
    same = [server for server in servers if server.rest_url == local]
    return _endpoint(same[0], model) if same else Endpoint(base, None, model=model)


def _endpoint(server: ServerRecord, model: str | None) -> Endpoint:
    grpc_target = server.grpc_target or None
    return Endpoint(
        server.rest_url, grpc_target, tuple(server.models), model, server.max_upload_mib, engine=server.engine
    )


def _read(path: Path) -> ServerRecord | None:
    try:
        return ServerRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None  # not written yet, or by another version
