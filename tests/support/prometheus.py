"""Prometheus and promtool: the machine's own, else Debian's package unpacked into the user's cache, where no service of
it starts; and a Prometheus of a test's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.gomodules import kept, lock_of
from support.guarded import Guarded
from support.runs import wait_until
from trainserve.errors import EnvironmentProblem
from trainserve.machine.ports import LOOPBACK, Reserved

RULES = Path(__file__).parents[2] / "helm/platform-operator/rules"
PROGRAMS = ("prometheus", "promtool")
HINT = (
    "install it (Debian, Ubuntu: apt-get install --no-install-recommends prometheus), or put prometheus and promtool "
    "of any version from 2.42 on into PATH"
)
FETCH_S = 300
STARTED_S = 60.0


def programs() -> Path:
    """The folder with both programs in it. Raises EnvironmentProblem where there are none to be had."""
    found = {shutil.which(name) for name in PROGRAMS}
    folders = {Path(path).resolve().parent for path in found if path is not None}
    if len(folders) == 1 and None not in found:
        return folders.pop()
    folder = kept() / "prometheus" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).exists() for name in PROGRAMS):
        lock = lock_of(folder / ".lock")
        try:
            if not all((folder / name).exists() for name in PROGRAMS):
                _fetch(folder)
        finally:
            os.close(lock)
    return folder


def _fetch(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise EnvironmentProblem("no Prometheus is installed here, and the rules are tested with it", hint=HINT)
    print("fetching Debian's package prometheus, once: 20 MB", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        quiet = ("-qq", "-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ("-qq",)
        download = ["apt-get", "download", *quiet, "prometheus"]
        done = _run(download, Path(scratch))
        if done.returncode:  # the lists of packages are out of date, or there are none
            _run(["apt-get", "update", "-qq"], Path(scratch))
            done = _run(download, Path(scratch))
        package = next(Path(scratch).glob("prometheus_*.deb"), None)
        if package is None:
            raise EnvironmentProblem(f"the package prometheus cannot be fetched:\n{done.stderr.strip()}", hint=HINT)
        done = _run(["dpkg-deb", "-x", str(package), "unpacked"], Path(scratch))
        if done.returncode:
            raise EnvironmentProblem(f"{package.name} cannot be unpacked:\n{done.stderr.strip()}", hint=HINT)
        for name in PROGRAMS:
            Path(scratch, "unpacked/usr/bin", name).replace(folder / name)


def series_in(expr: str) -> set[str]:
    """The names of metrics and of recorded series that a query uses."""
    return set(re.findall(r"\b(?:[a-z_]+:)?(?:trainserve|training_operator|process)_[a-z0-9_]+(?::[a-z0-9_]+)?", expr))


def rules(folder: Path = RULES) -> list[dict[str, Any]]:
    """Every rule of the files in the folder."""
    found = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    return [rule for document in found for group in document["groups"] for rule in group["rules"]]


def a_minute_a_second(expr: str) -> str:
    """A query with windows, offsets and thresholds of many seconds divided by 60."""
    expr = re.sub(r"\[(\d+[smh])\]", lambda match: f"[{_scaled(match[1])}]", expr)
    expr = re.sub(r"offset (\d+[smh])", lambda match: f"offset {_scaled(match[1])}", expr)
    return re.sub(r"> (\d{2,})\b", lambda match: f"> {int(match[1]) / 60:g}", expr)


def write_scaled_rules(folder: Path) -> list[Path]:
    """The rule files with a minute as a second, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for path in sorted(RULES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            for rule in group["rules"]:
                rule["expr"] = a_minute_a_second(rule["expr"])
                if "for" in rule:
                    rule["for"] = _scaled(rule["for"])
        made.append(folder / path.name)
        made[-1].write_text(yaml.safe_dump(document, sort_keys=False))
    return made


def _scaled(duration: str) -> str:
    seconds = int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
    return f"{max(1, seconds // 60)}s"


def _run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True, timeout=FETCH_S)


def promtool(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """One run of promtool; stdout and stderr are both in `stdout`."""
    return subprocess.run(
        [programs() / "promtool", *map(str, words)],
        check=False,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


@dataclass
class Prometheus:
    """A server on loopback that scrapes each second what `aim` was last told. Its files lie in `folder`."""

    folder: Path
    rules: Sequence[Path] = ()
    _ports: Reserved = field(default_factory=Reserved)
    _process: Guarded | None = None

    def start(self) -> None:
        """Returns when it answers. Raises EnvironmentProblem."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.aim([])
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in self.rules],
            "scrape_configs": [
                {"job_name": "test", "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "1s"}]}
            ],
        }
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self.url = f"http://{LOOPBACK}:{self._ports.port('prometheus')}"
        words = [
            programs() / "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._process = process = Guarded(words, self.folder / "prometheus.log")
        wait_until(lambda: not process.alive() or self._is_ready(), "Prometheus is ready", STARTED_S)
        assert process.alive(), f"Prometheus has ended:\n{process.tail()}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        self._ports.release_all()

    def aim(self, targets: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Scrape these from now on: `host:port`, and the labels that a scrape adds."""
        entries = [{"targets": [address], "labels": dict(labels)} for address, labels in targets]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(entries))
        fresh.replace(self._targets)

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series that a query gives now: `metric` (labels) and `value` ([time, text])."""
        result: list[dict[str, Any]] = self._get("query", query=text)["result"]
        return result

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts that fire or are about to, with labels and annotations."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    @property
    def _targets(self) -> Path:
        return self.folder / "targets.json"

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, what: str, **arguments: str) -> Any:
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}", timeout=20
        ) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]
