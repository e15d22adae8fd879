"""TorchServe's files and command line as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainserve.kube.names import ENV_OMP_NUM_THREADS
from trainserve.machine.ports import LOOPBACK
from trainserve.machine.usage import MIB
from trainserve.serve.ports import Ports

# TorchServe takes bodies up to so many times the upload limit and the handler refuses what is above the limit: with
# 413 and the limit in words, where TorchServe itself would answer nothing or reset the connection. It also leaves room
# for base64 and multipart around a picture of the largest size.
TRANSPORT_FACTOR = 2
JOB_QUEUE_SIZE = 100

# Variables that would change TorchServe behind our configuration, or make its workers believe they are ranks.
FOREIGN_ENV = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class ServerSettings:
    """What `config.properties` says beyond what is fixed."""

    ports: Ports
    store: Path  # the only folder models come from
    workers: int  # a model, unless its own settings say
    max_upload_mib: int  # of a picture


def config_properties(settings: ServerSettings) -> str:
    """`config.properties`.

    Everything listens on loopback only. TorchServe's tokens are off: they are random, expire and cannot be set, and
    on loopback they protect from nobody. Models cannot be added over the API and come from the store only.
    """
    ports = settings.ports
    limit = str(settings.max_upload_mib * MIB * TRANSPORT_FACTOR)
    lines = {
        "inference_address": f"http://{LOOPBACK}:{ports.rest}",
        "management_address": f"http://{LOOPBACK}:{ports.management}",
        "metrics_address": f"http://{LOOPBACK}:{ports.metrics}",
        "grpc_inference_address": LOOPBACK,
        "grpc_inference_port": str(ports.grpc),
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": str(ports.grpc_management),
        "disable_token_authorization": "true",
        "enable_model_api": "false",
        "allowed_urls": f"file://{_regex_quoted(settings.store)}/[^/]*",
        "install_py_dep_per_model": "false",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        "default_workers_per_model": str(settings.workers),
        "job_queue_size": str(JOB_QUEUE_SIZE),
        # One limit for REST and gRPC.
        "max_request_size": limit,
        "max_response_size": limit,
    }
    return "".join(f"{key}={_property(value)}\n" for key, value in lines.items())


def _regex_quoted(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9/_-]", lambda match: f"\\{match.group()}", str(path))


def _property(value: str) -> str:
    """A value in Java's properties format: backslash doubled, Latin-1 only."""
    escaped = value.replace("\\", "\\\\")
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[index : index + 2], "big") for index in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def log4j_xml() -> str:
    """log4j2.xml: one file of at most 3 x 10 MiB, its path in the Java property `trainserve.log`."""
    return """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="${sys:trainserve.log}" filePattern="${sys:trainserve.log}.%i">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c{1} - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="io.netty" level="error"/>
    <Logger name="ACCESS_LOG" level="warn"/>
    <Root level="info"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""


def java_command(
    java: Path, site: Path, folder: Path, python: Path, log: Path, models: Mapping[str, str], heap_mib: int = 512
) -> list[str]:
    """TorchServe's frontend itself, not its Python launcher, which would orphan it on SIGTERM.

    `site` holds the package `ts`; `folder` is the working directory with `config.properties`, `log4j2.xml`, `tmp` and
    `store`; `models` maps a model's name to its file in the store. `-ncs`: no snapshots, so that a restart does not
    bring back models of before.
    """
    command: list[str] = [str(java), f"-Xmx{heap_mib}m", f"-Dmodel_server_home={site}"]
    command += [f"-Djava.io.tmpdir={folder / 'tmp'}", f"-Dtrainserve.log={log}"]
    command += [f"-Dlog4j.configurationFile={(folder / 'log4j2.xml').as_uri()}", "-cp", f"{site}/ts/frontend/*"]
    command += ["org.pytorch.serve.ModelServer", "--python", str(python)]
    command += ["-f", "config.properties", "-s", "store", "-ncs", "-m"]
    return command + [f"{name}={file}" for name, file in models.items()]


def server_environment(inherited: Mapping[str, str], folder: Path, threads: int = 1) -> dict[str, str]:
    """Environment of TorchServe and its workers: `threads` of torch each, files only below `folder`."""
    kept = {name: value for name, value in inherited.items() if FOREIGN_ENV.fullmatch(name) is None}
    places = {
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        "TEMP": str(folder / "tmp"),
    }
    return {**kept, **places, "TMPDIR": str(folder / "tmp"), ENV_OMP_NUM_THREADS: str(threads)}


def worker_failure(log_lines: Sequence[str]) -> str | None:
    """The last traceback that a worker printed, without TorchServe's prefixes, or None.

    Workers print to the frontend's log: `<time> [INFO ] W-9000-<model>_<version>-stdout MODEL_LOG - <line>`.
    """
    lines = [_WORKER_LINE.sub("", line) for line in log_lines if _WORKER_LINE.match(line)]
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    for start in reversed(starts):
        block = [lines[start]]
        for line in lines[start + 1 :]:
            block.append(line)
            if line and not line.startswith((" ", "Traceback", "\t")):
                break  # the exception itself
        if "Unknown exception" not in block[-1]:  # TorchServe raises this again in place of the real one
            return "\n".join(block)
    return None


_WORKER_LINE = re.compile(r"^\S+ \[\w+ *\] W-\S*-std(?:out|err) MODEL_LOG - ")
