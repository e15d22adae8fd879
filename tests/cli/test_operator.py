"""`platform operator run`: what it refuses before it begins, and what the environment can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from support.here import Here
from trainserve.cli.operator import operator_command, run_command
from trainserve.operator import process
from trainserve.operator.lease import Timing
from trainserve.operator.settings import Address, Settings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers", "0"], "--workers: 0 is not a whole number from 1 to 256"),
        (["--workers", "many"], "--workers: 'many' is not a whole number from 1 to 256"),
        (["--resync", "0"], "--resync 0s: must be at least 1s"),
        (["--resync", "soon"], "'soon' is no length of time"),
        (["--namespace", "Team"], "--namespace 'Team': a namespace's name has"),
        (["--leader-elect-namespace", "a,b"], "the Lease is in one"),
        (["--leader-elect-lease-duration", "10s"], "--leader-elect-lease-duration (10 s) must be longer"),
        (["--leader-elect-retry-period", "1m"], "longer than --leader-elect-retry-period (60 s)"),
        (["--metrics-address", "8080"], "--metrics-address '8080': expected HOST:PORT"),
        (["--kubeconfig", "no-such"], "--kubeconfig no-such: no such file"),
        (["--log-format", "xml"], "--log-format: 'xml' is not one of 'text', 'json'"),
        (["--gang", "kube"], "--gang: 'kube' is not one of 'auto', 'kubernetes', 'volcano'"),
        (["--qps", "5"], "no such option --qps"),
    ],
)
def test_a_wrong_option_is_refused_with_2_and_a_hint(here: Here, words: list[str], says: str) -> None:
    said = here("operator", "run", *words)
    assert said.code == 2, said.err
    assert says in said.err
    assert "hint: " in said.err


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--workers", "many", ": 'many' is not a whole number from 1 to 256"),
        ("--resync", "soon", ": 'soon' is no length of time"),
        ("--resync", "0", " 0s: must be at least 1s"),
        ("--namespace", "Team", " 'Team': a namespace's name has"),
        ("--leader-elect", "perhaps", ": 'perhaps' is not a valid boolean"),
        ("--leader-elect-namespace", "a,b", " a,b: the Lease is in one"),
        ("--leader-elect-lease-duration", "10s", " (10 s) must be longer than --leader-elect-renew-deadline (10 s)"),
        ("--leader-elect-renew-deadline", "1s", " (1 s), and that longer than --leader-elect-retry-period (2 s)"),
        ("--leader-elect-retry-period", "1m", " (60 s)"),
        ("--metrics-address", "8080", " '8080': expected HOST:PORT"),
        ("--progress", "ask", ": 'ask' is not one of"),
        ("--gang", "kube", ": 'kube' is not one of"),
        ("--kubeconfig", "no-such", " no-such: no such file"),
        ("--log-format", "xml", ": 'xml' is not one of"),
        ("--log-level", "loud", ": 'loud' is not one of"),
    ],
)
def test_a_wrong_variable_is_named_and_not_the_flag_that_nobody_typed(
    here: Here, monkeypatch: pytest.MonkeyPatch, flag: str, value: str, says: str
) -> None:
    variable = f"PLATFORM_OPERATOR_{flag[2:].replace('-', '_').upper()}"
    monkeypatch.setenv(variable, value)
    said = here("operator", "run")
    assert said.code == 2, said.err
    assert f"{variable}{says}" in said.err
    assert f"{flag} " not in said.err.split("hint: ")[0].replace(variable, "")


def test_so_it_is_where_the_machine_says_no(here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]}
    contexts = {"contexts": [{"name": "x", "context": {"cluster": "c"}}], "current-context": "x"}
    config.write_text(json.dumps({**cluster, **contexts}))
    monkeypatch.setenv("PLATFORM_OPERATOR_METRICS_ADDRESS", "[2001:db8::1]:8080")
    said = here("operator", "run", "--kubeconfig", config)
    assert said.code == 3, said.err
    assert "error: PLATFORM_OPERATOR_METRICS_ADDRESS [2001:db8::1]:8080: " in said.err


def test_a_value_that_was_typed_is_told_by_its_flag_whatever_the_environment_says(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_OPERATOR_WORKERS", "3")
    said = here("operator", "run", "--workers", "many")
    assert "operator run: --workers: 'many' is not a whole number from 1 to 256" in said.err


def test_no_cluster_is_3(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = here("operator", "run", "--metrics-address", "0")
    assert said.code == 3
    assert f"no Kubernetes cluster is known here: {tmp_path / 'none'}" in said.err


def settled(monkeypatch: pytest.MonkeyPatch, *words: str, env: dict[str, str] | None = None) -> Settings:
    """What the process would be started with."""
    found: list[Settings] = []

    def run(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr(process, "run", run)
    done = CliRunner().invoke(operator_command, ["run", *words], env=env, standalone_mode=False)
    assert done.exception is None, done.exception
    return found[0]


def test_what_is_meant_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(monkeypatch) == Settings(metrics=Address("127.0.0.1", 8080))


def test_flags_and_environment_say_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    values: dict[str, Any] = {
        "--kubeconfig": str(kubeconfig),
        "--context": "prod",
        "--namespace": "a,b",
        "--workers": "3",
        "--resync": "1h",
        "--leader-elect-namespace": "system",
        "--leader-elect-lease-duration": "30s",
        "--leader-elect-renew-deadline": "20s",
        "--leader-elect-retry-period": "5s",
        "--metrics-address": "0.0.0.0:9090",
        "--progress": "proxy",
        "--gang": "volcano",
    }
    wanted = Settings(
        kubeconfig=str(kubeconfig),
        context="prod",
        namespaces=("a", "b"),
        workers=3,
        resync_s=3600.0,
        lease=Timing(30, 20, 5),
        lease_namespace="system",
        metrics=Address("0.0.0.0", 9090),
        progress="proxy",
        gang="volcano",
    )
    words = [word for flag, value in values.items() for word in (flag, value)]
    env = {f"PLATFORM_OPERATOR_{flag[2:].replace('-', '_').upper()}": value for flag, value in values.items()}
    assert settled(monkeypatch, *words) == wanted
    assert settled(monkeypatch, env=env) == wanted
    assert settled(monkeypatch, "--workers", "4", "--namespace", "c", env=env).workers == 4
    assert settled(monkeypatch, "--no-leader-elect").lease is None
    assert settled(monkeypatch, env={"PLATFORM_OPERATOR_LEADER_ELECT": "false"}).lease is None
    assert settled(monkeypatch, "--namespace", "a", "--namespace", "b,a").namespaces == ("a", "b")


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {str(parameter.envvar): "" for parameter in run_command.params}
    assert len(env) >= 15
    assert settled(monkeypatch, env=env) == settled(monkeypatch)


def test_help_names_every_variable() -> None:
    text = CliRunner().invoke(operator_command, ["run", "--help"], terminal_width=300).output
    for parameter in run_command.params:
        assert f"PLATFORM_OPERATOR_{str(parameter.name).upper()}" in text


@pytest.mark.parametrize(
    "words", [["operator", "run"], ["operator", "adopt"], ["node", "run", "--all-namespaces", "--allow-root"]]
)
def test_a_kubeconfig_that_is_not_there_is_said_alike_everywhere(here: Here, tmp_path: Path, words: list[str]) -> None:
    for path in (tmp_path, tmp_path / "none"):
        said = here(*words, "--kubeconfig", path)
        assert said.code == 2, said.err
        assert f"--kubeconfig {path}: no such file" in said.err
        assert "hint: leave it out to use $KUBECONFIG" in said.err
