from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainserve.serve.config import (
    ServerSettings,
    config_properties,
    java_command,
    log4j_xml,
    server_environment,
    worker_failure,
)
from trainserve.serve.ports import Ports

PORTS = Ports(rest=21000, grpc=21001, management=21002, metrics=21003, grpc_management=21004)


def test_config_properties_whole() -> None:
    text = config_properties(ServerSettings(PORTS, Path("/tmp/ts-1/store"), workers=2, max_upload_mib=16))
    assert text.splitlines() == [
        "inference_address=http://127.0.0.1:21000",
        "management_address=http://127.0.0.1:21002",
        "metrics_address=http://127.0.0.1:21003",
        "grpc_inference_address=127.0.0.1",
        "grpc_inference_port=21001",
        "grpc_management_address=127.0.0.1",
        "grpc_management_port=21004",
        "disable_token_authorization=true",
        "enable_model_api=false",
        "allowed_urls=file:///tmp/ts-1/store/[^/]*",
        "install_py_dep_per_model=false",
        "disable_system_metrics=true",
        "metrics_mode=prometheus",
        "default_workers_per_model=2",
        "job_queue_size=100",
        "max_request_size=33554432",
        "max_response_size=33554432",
    ]


@pytest.mark.parametrize("store", ["/tmp/a.b c+ü/store", "/tmp/back\\slash/store", "/tmp/\U0001f600/store"])
def test_odd_folders_reach_java_as_they_are(store: str) -> None:
    text = config_properties(ServerSettings(PORTS, Path(store), workers=1, max_upload_mib=1))
    assert text.isascii()
    (line,) = [line for line in text.splitlines() if line.startswith("allowed_urls=")]
    # What Java's Properties.load makes of it.
    units = [
        int(match.group(1), 16) if match.group(1) else ord(match.group(2) or match.group(0))
        for match in re.finditer(r"\\u([0-9a-f]{4})|\\(.)|.", line.removeprefix("allowed_urls="))
    ]
    pattern = b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be")
    assert re.fullmatch(pattern, f"file://{store}/digits.mar")
    assert not re.fullmatch(pattern, f"file://{store}/../secret.mar")
    assert not re.fullmatch(pattern, "file:///etc/passwd")


def test_command_starts_java_itself_without_snapshots() -> None:
    command = java_command(
        Path("/java"), Path("/site"), Path("/f"), Path("/python"), Path("/log"), {"a": "a.mar", "b": "b.mar"}
    )
    assert command[0] == "/java"
    assert "-ncs" in command
    assert command[-3:] == ["-m", "a=a.mar", "b=b.mar"]
    assert command[command.index("-s") + 1] == "store"


def test_foreign_variables_do_not_reach_the_server() -> None:
    inherited = {
        "TS_CONFIG_FILE": "/x",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "RANK": "3",
        "PATH": "/bin",
        "HOME": "/h",
    }
    inherited |= {"LOG_LOCATION": "/y", "TMPDIR": "/z", "OMP_NUM_THREADS": "16", "CUDA_VISIBLE_DEVICES": "0"}
    assert server_environment(inherited, Path("/f")) == {
        "PATH": "/bin",
        "HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "1",
        "LOG_LOCATION": "/f/logs",
        "METRICS_LOCATION": "/f/logs",
        "TEMP": "/f/tmp",
        "TMPDIR": "/f/tmp",
    }


def test_log_configuration_is_xml_with_a_bound() -> None:
    root = ElementTree.fromstring(log4j_xml())
    assert root.find(".//SizeBasedTriggeringPolicy").attrib == {"size": "10 MB"}  # type: ignore[union-attr]


LOG = """\
2026-11-25T10:50:24,900 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - Torch worker started.
2026-11-25T10:50:25,000 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - Traceback (most recent call last):
2026-11-25T10:50:25,001 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG -   File "a.py", line 1, in load
2026-11-25T10:50:25,002 [INFO ] epollEventLoopGroup-5-1 WorkerThread - 9000 Worker disconnected. WORKER_STARTED
2026-11-25T10:50:25,003 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG -     refuse()
2026-11-25T10:50:25,004 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - ValueError: golden picture 00.png: logits differ
2026-11-25T10:50:25,005 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - more
"""
AGAIN = """\
2026-11-25T10:50:25,006 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - Traceback (most recent call last):
2026-11-25T10:50:25,007 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG -   File "model_service_worker.py", line 2
2026-11-25T10:50:25,008 [INFO ] W-9000-digits_1.0-stdout MODEL_LOG - RuntimeError: 500 - Unknown exception
"""
CAUSE = """\
Traceback (most recent call last):
  File "a.py", line 1, in load
    refuse()
ValueError: golden picture 00.png: logits differ"""


def test_worker_failure_is_the_traceback_without_prefixes() -> None:
    assert worker_failure(LOG.splitlines()) == CAUSE


def test_worker_failure_is_the_real_one_not_what_torchserve_raises_after_it() -> None:
    assert worker_failure((LOG + AGAIN).splitlines()) == CAUSE


def test_no_failure() -> None:
    assert worker_failure(LOG.splitlines()[:1]) is None
    assert worker_failure([]) is None
