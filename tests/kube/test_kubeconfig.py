from __future__ import annotations

import asyncio
import base64
import copy
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainserve.client.cluster.connect import default_namespace
from trainserve.errors import EnvironmentProblem
from trainserve.kube import kubeconfig
from trainserve.kube.client import connect

GOOD: dict[str, Any] = {
    "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:6443"}}],
    "users": [{"name": "me", "user": {"token": "abc"}}],
    "contexts": [{"name": "work", "context": {"cluster": "here", "user": "me"}}],
    "current-context": "work",
}
NO_PEM = base64.b64encode(b"hello").decode()


def changed(field: str, value: object) -> dict[str, Any]:
    """The good one, but for the value at `field`."""
    content = copy.deepcopy(GOOD)
    *way, last = field.split(".")
    inner: Any = content
    for part in way:
        inner = inner[0][part] if isinstance(inner, list) else inner[part]
    inner = inner[0] if isinstance(inner, list) else inner
    inner[last] = value
    return content


def test_a_good_one_gives_its_user_and_of_several_files_the_first_counts() -> None:
    other = changed("users.user", {"token": "other"})
    assert kubeconfig.check({"a": GOOD, "b": other}, None).user == {"token": "abc"}
    assert kubeconfig.check({"a": {"current-context": ""}, "b": GOOD}, "work").user == {"token": "abc"}
    nobody = changed("contexts.context", {"cluster": "here"})
    assert kubeconfig.check({"a": nobody}, None).user == {}  # a user is no must
    assert kubeconfig.check({"a": nobody}, None).credentials == "none: context 'work' of a names no user"


@pytest.mark.parametrize(
    "server",
    ["https://[::1]:6443", "https://[2001:db8::7]", "http://127.0.0.1:80", "https://host.example:6443/clusters/one/"],
)
def test_addresses_of_servers(server: str) -> None:
    assert kubeconfig.check({"f": changed("clusters.cluster.server", server)}, None).cluster["server"] == server


@pytest.mark.parametrize(
    "server",
    [
        "",
        "https://",
        "https://[::1",
        "https://::1:6443",
        "https://:6443",
        "https://host:99999",
        "https://host:x",
        "https://host:0",
        "https://host?x=1",
        "https://host#x",
        "https://host ",
        "ftp://host",
        "host:6443",
        "https://[",
    ],
)
def test_what_is_no_address_of_a_server_is_told_before_it_is_asked(server: str) -> None:
    with pytest.raises(EnvironmentProblem, match="expected https://HOST:PORT or https://\\[IPV6\\]:PORT") as refused:
        kubeconfig.check({"f": changed("clusters.cluster.server", server)}, None)
    assert f"f: clusters.cluster.server {server!r}" in refused.value.message


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(EnvironmentProblem) as refused:
        kubeconfig.check({"f": changed("clusters.cluster.server", "https://me:secret@host")}, None)
    assert "secret" not in refused.value.message


def test_files_that_it_names_are_those_beside_it() -> None:
    one = changed("clusters.cluster", {"server": "https://h", "certificate-authority": "ca.pem"})
    other = changed("users.user", {"client-certificate": "../c.pem", "client-key": "/abs/k.pem", "tokenFile": "t"})
    chosen = kubeconfig.check({"/a/one": {**one, "users": []}, "b/other": other}, None)
    assert chosen.cluster["certificate-authority"] == "/a/ca.pem"
    assert chosen.user == {"client-certificate": "b/../c.pem", "client-key": "/abs/k.pem", "tokenFile": "b/t"}
    assert chosen.authority == "clusters.cluster.certificate-authority of /a/one"
    assert chosen.credentials == "users.user 'me' of b/other"


def test_a_pipe_is_read_once_also_when_the_credentials_are_read_again(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(yaml.safe_dump(GOOD),))
    writing.start()

    async def twice() -> None:
        async with connect(str(pipe)) as cluster:
            assert cluster._reload is not None
            await (await cluster._reload())[0].close()

    asyncio.run(asyncio.wait_for(twice(), 20))
    writing.join()


def test_a_pipe_is_enough_for_all_that_a_command_asks_of_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(yaml.safe_dump(GOOD),))
    writing.start()

    async def connected() -> None:
        async with connect(str(pipe)):
            pass

    default_namespace(None, str(pipe))
    for _ in range(2):
        asyncio.run(asyncio.wait_for(connected(), 20))
    writing.join()


def test_a_context_without_a_user_is_one_with_tls_too(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({**changed("contexts.context", {"cluster": "here"}), "users": None}))
    asyncio.run(_connect(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text", "expected a mapping"),
        (None, "expected a mapping"),
        (changed("clusters", "x"), "clusters: expected a list"),
        (changed("users.name", 3), r"users\[0\]: expected a mapping with a name"),
        (changed("contexts.context", "x"), r"contexts\[0\].context: expected a mapping"),
        (changed("current-context", None), "current-context is not set"),
        (changed("current-context", "play"), "current-context 'play' is not among its contexts"),
        (changed("users", []), "context 'work': user 'me' is not among its users"),
        (changed("contexts.context.cluster", "there"), "context 'work': cluster 'there' is not among its clusters"),
        (changed("clusters.cluster", {}), "clusters.cluster.server None: expected https://HOST:PORT"),
        (changed("clusters.cluster.server", "127.0.0.1:6443"), "server '127.0.0.1:6443': expected https://"),
        (changed("clusters.cluster.certificate-authority-data", "!!!"), "certificate-authority-data: expected a cert"),
        (changed("clusters.cluster.certificate-authority-data", NO_PEM), "certificate-authority-data: expected a cert"),
        (changed("users.user.client-key-data", NO_PEM), "users.user.client-key-data: expected a private key"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(content: object, says: str) -> None:
    with pytest.raises(EnvironmentProblem, match=says) as refused:
        kubeconfig.check({"some/file": content}, None)
    assert "some/file" in refused.value.message
    assert refused.value.hint


def test_a_context_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(EnvironmentProblem, match="--context 'play' is not among its contexts") as refused:
        kubeconfig.check({"some/file": GOOD}, "play")
    assert refused.value.hint == "it has: work"


async def _connect(path: Path) -> None:
    async with connect(str(path)):
        pass


def test_a_token_of_two_lines_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(changed("users.user.token", "secret\nmore")))
    with pytest.raises(EnvironmentProblem, match="control characters") as refused:
        asyncio.run(_connect(path))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("command", ["false", "no-such-command-of-anybody"])
def test_a_command_without_credentials_ends_it_and_nobody_works_as_anonymous(tmp_path: Path, command: str) -> None:
    path = tmp_path / "config"
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"}
    path.write_text(yaml.safe_dump(changed("users.user", {"exec": login})))
    with pytest.raises(EnvironmentProblem, match=f"exec.command '{command}'"):
        asyncio.run(_connect(path))


@pytest.mark.parametrize("token", ["", "abc", "Bearer abc", "bearer abc"])  # the last is a pod's own account
def test_a_token_is_taken_with_the_scheme_before_it(token: str) -> None:
    kubeconfig.check_token(token)


@pytest.mark.parametrize("token", ["a b", "Bearer a b", "bearer abc\n", "bearer bearer abc"])
def test_a_token_of_two_words_is_refused(token: str) -> None:
    with pytest.raises(EnvironmentProblem, match="blanks or control"):
        kubeconfig.check_token(token)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"token": ["secret"]}, "users.user.token: expected a text"),
        ({"tokenFile": 3}, "users.user.tokenFile: expected a text"),
        ({"username": "me", "password": "secret"}, "users.user.username: API servers take no passwords"),
        ({"exec": None}, "users.user.exec: expected a mapping"),
        ({"exec": ["secret"]}, "users.user.exec: expected a mapping"),
        ({"exec": {}}, "users.user.exec.apiVersion: expected a text"),
        ({"exec": {"apiVersion": "v1", "command": ""}}, "users.user.exec.command: expected a text"),
        ({"exec": {"apiVersion": "v1", "command": "x", "args": 5}}, "users.user.exec.args: expected a list of texts"),
        (
            {"exec": {"apiVersion": "v1", "command": "x", "args": [{}]}},
            "users.user.exec.args: expected a list of texts",
        ),
        (
            {"exec": {"apiVersion": "v1", "command": "x", "env": [{"secret": 1}]}},
            "users.user.exec.env: expected a list",
        ),
    ],
)
def test_a_user_that_would_be_nobody_is_told_without_its_secrets(user: dict[str, Any], says: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        kubeconfig.check({"f": changed("users.user", user)}, None)
    assert f"f: {says}" in caught.value.message
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["A b", "../x", "\x1b[31m", ["x"], "x" * 64])
def test_a_namespace_that_can_be_none_is_told_by_its_file(namespace: object) -> None:
    content = changed("contexts.context", {"cluster": "here", "user": "me", "namespace": namespace})
    with pytest.raises(EnvironmentProblem, match=r"f: contexts\.context\.namespace"):
        kubeconfig.check({"f": content}, None)


DAMAGE = ["[" * 1500, "a: " + "9" * 5000, "a: 2020-13-45", "a: &a [*a]", "\t", "\x00", "? [a]\n: b"]


@pytest.mark.parametrize("text", DAMAGE, ids=range(len(DAMAGE)))
def test_any_damage_of_a_file_is_told_by_its_name(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(file))

    async def connected() -> None:
        default_namespace(None)
        async with connect():
            pass

    with pytest.raises(EnvironmentProblem, match=str(file)) as caught:
        asyncio.run(connected())
    assert caught.value.hint


def test_the_home_of_a_user_that_is_not_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "~nobody-of-this-name/config")
    assert default_namespace(None) == "default"
