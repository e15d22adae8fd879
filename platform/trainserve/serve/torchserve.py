"""Serve .mar files with TorchServe on this machine, and leave nothing behind.

The processes: this one, a guard (guard.py), TorchServe's Java frontend, its Python workers. This one holds the write
end of a pipe that the guard reads: stopping is closing it, and dying in any way closes it too.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import EnvironmentProblem, RunFailed
from trainserve.machine import cgroup
from trainserve.machine.ports import LOOPBACK
from trainserve.machine.temporary import own_folder
from trainserve.package.mar import MarInfo
from trainserve.serve import guard, servers
from trainserve.serve.archives import ModelRef, max_upload_mib, read_models
from trainserve.serve.config import (
    ServerSettings,
    config_properties,
    java_command,
    log4j_xml,
    server_environment,
    worker_failure,
)
from trainserve.serve.java import Java, find_java
from trainserve.serve.ports import Ports, chosen_ports
from trainserve.serve.readiness import await_ready, worker_pids
from trainserve.serve.servers import ServerRecord

log = logging.getLogger(__name__)

STARTUP_TIMEOUT_S = 180.0
START_ATTEMPTS = 3  # only where a port we chose was taken between choosing and binding
WORKER_MODULES = ("torch", "torchvision", "safetensors", "yaml", "psutil", "PIL")
FOLDER_PREFIX = "trainserve-serving-"
LOG, JAVA_LOG = "torchserve.log", "java.log"
# A worker's Unix socket is <folder>/tmp/.ts.sock.<port>, and a socket's path has at most 107 bytes.
LONGEST_FOLDER = 80


@dataclass(frozen=True)
class Server:
    """A TorchServe that is ready. Ends with the `with` block that made it."""

    name: str
    models: dict[str, MarInfo]
    ports: Ports
    log: Path
    java_pid: int
    process: subprocess.Popen[str]  # the guard, which ends when TorchServe has

    @property
    def rest_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.rest}"

    @property
    def grpc_target(self) -> str:
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def management_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.management}"

    def worker_pids(self) -> list[int]:
        """Process ids of all workers."""
        return [pid for name in self.models for pid in worker_pids(self.management_url, name)]

    def check_alive(self) -> None:
        """Raises EnvironmentProblem, with what TorchServe said last, when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise EnvironmentProblem(
                f"TorchServe ended with code {code}: {_last_words(self.log)}", hint=f"log: {self.log}"
            )

    def wait(self) -> None:
        """Block until TorchServe ends by itself, which it should not: raises RunFailed then."""
        code = self.process.wait()
        raise RunFailed(f"TorchServe ended with code {code}: {_last_words(self.log)}", hint=f"log: {self.log}")


@contextmanager
def running(
    models: Sequence[ModelRef],
    *,
    name: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    management_port: int | None = None,
    startup_timeout_s: float = STARTUP_TIMEOUT_S,
    on_start: Callable[[], object] | None = None,
) -> Iterator[Server]:
    """TorchServe with these models, ready; stopped, with all its processes, when the block ends.

    `name` is what `predict NAME` finds it by (default: the first model's). Ports are free ones unless given. Raises
    UserError for a wrong archive or a name that is taken, EnvironmentProblem for no Java, a port in use, a model that
    does not load. `on_start` is called once everything that was asked for is checked, before the first process.
    """
    archives = read_models(models)
    given = {"rest": port, "grpc": grpc_port, "management": management_port}
    java, site = find_java(), _torchserve_site()
    with servers.claim(next(iter(archives)) if name is None else name) as record_path, ExitStack() as stack:
        server = None
        for attempt in range(START_ATTEMPTS):
            with ExitStack() as starting:
                ports = starting.enter_context(chosen_ports(given))
                if on_start is not None and attempt == 0:
                    on_start()
                server = starting.enter_context(_process(record_path.parent, archives, ports, java, site))
                try:
                    _await(server, startup_timeout_s)
                except EnvironmentProblem:
                    if attempt + 1 < START_ATTEMPTS and _port_was_taken(server.log):
                        log.warning("a port was taken while TorchServe started; trying others")
                        continue
                    raise
                stack.enter_context(starting.pop_all())
                break
        assert server is not None
        servers.write_record(record_path, _record(server))
        yield server


def _await(server: Server, timeout_s: float) -> None:
    await_ready(
        server.models,
        rest_url=server.rest_url,
        management_url=server.management_url,
        log=server.log,
        check_alive=server.check_alive,
        timeout_s=timeout_s,
    )


@contextmanager
def _process(place: Path, models: dict[str, MarInfo], ports: Ports, java: Java, site: Path) -> Iterator[Server]:
    """TorchServe started, not yet ready; every process of it gone afterwards. `place`: the server's folder."""
    note = place / "folder"
    _remove_leftover(note)
    with ExitStack() as stack:
        stack.callback(note.unlink, missing_ok=True)
        folder = stack.enter_context(own_folder(FOLDER_PREFIX, LONGEST_FOLDER))
        note.write_text(str(folder), encoding="utf-8")
        log_file, output = place / LOG, place / JAVA_LOG
        for leftover in place.glob(f"{LOG}*"):
            leftover.unlink()
        command = _prepare(folder, models, ports, java, site, log_file)
        read_end, write_end = os.pipe()
        try:
            guarded = [sys.executable, "-m", guard.__name__, str(read_end), str(folder), "--", *command]
            with output.open("wb") as stderr:
                process = subprocess.Popen(
                    guarded,
                    cwd=folder,
                    env=server_environment(os.environ, folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    pass_fds=(read_end,),
                    start_new_session=True,  # Ctrl-C is for this process, which then stops the server in order
                )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        java_pid = 0
        try:
            assert process.stdout is not None
            with process.stdout:
                first = process.stdout.readline()
            if not first:
                raise EnvironmentProblem(f"TorchServe could not be started: {_last_words(output)}")
            java_pid = int(first)
            yield Server(place.name, models, ports, log_file, java_pid, process)
        finally:
            _stop(process, write_end, java_pid)


def _remove_leftover(note: Path) -> None:
    """Remove the folder of a server of this name whose process and guard were both killed.

    The caller holds the server's lock, so nothing uses it any more.
    """
    folder = Path(_read(note).strip() or "/nowhere")
    if folder.name.startswith(FOLDER_PREFIX) and folder.is_absolute():
        shutil.rmtree(folder, ignore_errors=True)
    note.unlink(missing_ok=True)


def _stop(process: subprocess.Popen[str], write_end: int, java_pid: int) -> None:
    """Let the guard stop everything; do it ourselves where the guard is gone or does not manage."""
    os.close(write_end)
    try:
        process.wait(timeout=guard.GRACE_S + 10)
    finally:
        # After a second Ctrl-C too.
        if process.poll() is None:
            process.kill()
            process.wait()
        if java_pid and process.returncode == -signal.SIGKILL:  # the guard could not tidy up
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(java_pid, signal.SIGKILL)


def _prepare(
    folder: Path, models: Mapping[str, MarInfo], ports: Ports, java: Java, site: Path, log_file: Path
) -> list[str]:
    """Fill the server's folder and return its command."""
    for sub in ("store", "tmp", "logs"):
        (folder / sub).mkdir()
    files = {}
    for served, mar in models.items():
        files[served] = f"{served}.mar"
        shutil.copyfile(mar.path, folder / "store" / files[served])
    settings = ServerSettings(
        ports,
        store=folder / "store",
        workers=cgroup.cores(),
        max_upload_mib=max_upload_mib(models),
    )
    (folder / "config.properties").write_text(config_properties(settings), encoding="ascii")
    (folder / "log4j2.xml").write_text(log4j_xml(), encoding="utf-8")
    return java_command(java.executable, site, folder, Path(sys.executable), log_file, files)


def _torchserve_site() -> Path:
    """The folder that holds the package `ts`. Raises EnvironmentProblem when something of serving is not installed."""
    hint = "pip install 'trainserve[serve]'"
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem("TorchServe is not installed (no package ts)", hint=hint)
    site = Path(next(iter(spec.submodule_search_locations))).parent
    if not (site / "ts" / "frontend" / "model-server.jar").is_file():
        raise EnvironmentProblem(f"{site / 'ts'} is not TorchServe: it has no frontend", hint=hint)
    missing = [module for module in WORKER_MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise EnvironmentProblem(f"not installed, but needed by TorchServe's workers: {', '.join(missing)}", hint=hint)
    return site


def _record(server: Server) -> ServerRecord:
    return ServerRecord(
        name=server.name,
        pid=os.getpid(),
        rest_url=server.rest_url,
        grpc_target=server.grpc_target,
        management_url=server.management_url,
        models={served: mar.version for served, mar in server.models.items()},
        max_upload_mib=max_upload_mib(server.models),
        log=str(server.log),
    )


def _port_was_taken(log_file: Path) -> bool:
    said = _read(log_file) + _read(log_file.with_name(JAVA_LOG))
    return "Address already in use" in said


def _last_words(log_file: Path) -> str:
    """A worker's traceback, or else the last lines that hold a reason."""
    lines = _read(log_file).splitlines()
    failure = worker_failure(lines)
    if failure is not None:
        return failure
    lines = lines or _read(log_file.with_name(JAVA_LOG)).splitlines()
    errors = [line for line in lines if "[ERROR]" in line or "Exception" in line or "Error:" in line]
    return "\n".join((errors or lines)[-3:]) or "it said nothing"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
