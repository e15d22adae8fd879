"""What is wrong with a kubeconfig, in words that name file, field and value: pure, on the files as YAML gives them.

The official client reads a kubeconfig; what it says of a wrong one is the last line of a traceback, or nothing, and
then it works as nobody. The format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from trainserve.errors import EnvironmentProblem

_LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_SERVER = re.compile(r"https?://[^/\s?#@]+(/[^\s?#]*)?")
_PEM = {
    "certificate-authority-data": b"CERTIFICATE-----",
    "client-certificate-data": b"CERTIFICATE-----",
    "client-key-data": b"PRIVATE KEY-----",
}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_NOT_IN_A_TOKEN = re.compile(r"[\s\x00-\x1f\x7f]")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SCHEME = re.compile(r"^[Bb]earer ")
_HINT = "kubectl config view --kubeconfig FILE shows what is in it"


@dataclass(frozen=True)
class Chosen:
    """What a context stands for: cluster and user, files that they name made findable from here, and whence each is."""

    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    server: str
    authority: str
    credentials: str
    namespace: str = ""  # of the context; "" where it names none


def check(files: Mapping[str, object], context: str | None) -> Chosen:
    """`files`: path -> content, as they are merged: of one name the first counts. `context` None: the current one.

    Raises EnvironmentProblem for what no request can be made with.
    """
    found: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {field: {} for field in _LISTS}
    current = context
    for path, content in files.items():
        if not isinstance(content, Mapping):
            raise _problem(path, f"expected a mapping with {', '.join(_LISTS)} and current-context")
        for field, inner in _LISTS.items():
            for name, entry in _entries(path, field, inner, content.get(field)):
                found[field].setdefault(name, (path, entry))
        if context is None and content.get("current-context"):
            current = str(content["current-context"])
    where = ":".join(files)
    if not current:
        raise _problem(where, "current-context is not set, and no --context is given", _choice(found["contexts"]))
    which = "current-context" if context is None else "--context"
    path, chosen = _named(where, found["contexts"], "contexts", current, which)
    parts: dict[str, tuple[str, Mapping[str, Any]]] = {"user": (path, {})}
    for field in ("cluster", "user"):
        name = str(chosen.get(field) or "")
        if field == "user" and not name:  # a server may ask for none
            continue
        parts[field] = _named(where, found[f"{field}s"], f"{field}s", name, f"context {current!r}: {field}")
    _check_cluster(*parts["cluster"])
    _check_pem(parts["user"][0], "users.user", parts["user"][1])
    _check_user(*parts["user"])
    if not _NAMESPACE.fullmatch(str(chosen.get("namespace") or "x")):
        raise _problem(
            path, f"contexts.context.namespace {chosen['namespace']!r:.80}: expected small letters, digits and -"
        )
    return Chosen(
        _from_here(*parts["cluster"]),
        _from_here(*parts["user"]),
        server=f"clusters.cluster.server of {parts['cluster'][0]}",
        authority=_authority(*parts["cluster"]),
        credentials=f"users.user {chosen.get('user')!r} of {parts['user'][0]}"
        if chosen.get("user")
        else f"none: context {current!r} of {path} names no user",
        namespace=str(chosen.get("namespace") or ""),
    )


def _from_here(path: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the files that it names relative to its own file's folder."""
    relative = {field: str(PurePath(path).parent / str(entry[field])) for field in _FILES if entry.get(field)}
    return {**entry, **relative}


def _authority(path: str, cluster: Mapping[str, Any]) -> str:
    """Where the CA is that the server's certificate is measured by: data go before a file."""
    for field in ("certificate-authority-data", "certificate-authority"):
        if cluster.get(field):
            return f"clusters.cluster.{field} of {path}"
    return f"this system's own: clusters.cluster of {path} has no certificate-authority"


def check_token(token: str) -> None:
    """The value of a request's header, as a file or a command gave it. Raises EnvironmentProblem; shows none of it."""
    # The client library writes "bearer" for a pod's own account, and "Bearer" for a kubeconfig's.
    if _NOT_IN_A_TOKEN.search(_SCHEME.sub("", token)):
        raise EnvironmentProblem(
            "the token for the API server has blanks or control characters in it, and no header can carry it",
            hint="a token is one word: was it copied with a line's end?",
        )


def no_credentials(user: Mapping[str, Any]) -> EnvironmentProblem:
    """Where the command of `user` has given none: without them, requests would be made as system:anonymous."""
    command = (user.get("exec") or {}).get("command")
    return EnvironmentProblem(
        f"users.user.exec.command {command!r} of the kubeconfig has given no credentials",
        hint="it has to be in PATH and end with 0; try it by hand, or log in anew",
    )


def _entries(path: str, field: str, inner: str, listed: object) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(listed, list | None):
        raise _problem(path, f"{field}: expected a list")
    entries = []
    for number, each in enumerate(listed or []):
        if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
            raise _problem(path, f"{field}[{number}]: expected a mapping with a name")
        entry = each.get(inner)
        if not isinstance(entry, Mapping | None):
            raise _problem(path, f"{field}[{number}].{inner}: expected a mapping")
        entries.append((each["name"], entry or {}))
    return entries


def _named(
    where: str, known: Mapping[str, tuple[str, Mapping[str, Any]]], field: str, name: str, which: str
) -> tuple[str, Mapping[str, Any]]:
    if name not in known:
        raise _problem(where, f"{which} {name!r} is not among its {field}", _choice(known))
    return known[name]


def _choice(known: Mapping[str, object]) -> str:
    return f"it has: {', '.join(sorted(known))}" if known else "it has none"


def _check_cluster(path: str, cluster: Mapping[str, Any]) -> None:
    server = cluster.get("server")
    if not isinstance(server, str) or not _is_address(server):
        shown = "(with a password in it)" if "@" in str(server) else repr(server)
        raise _problem(path, f"clusters.cluster.server {shown}: expected https://HOST:PORT or https://[IPV6]:PORT")
    _check_pem(path, "clusters.cluster", cluster)


def _check_user(path: str, user: Mapping[str, Any]) -> None:
    """Shows no value of it: any may be a secret."""
    for field in ("token", "tokenFile", "username", "password"):
        if not isinstance(user.get(field), str | None):
            raise _problem(path, f"users.user.{field}: expected a text")
    if (user.get("username") or user.get("password")) and not (user.get("token") or user.get("exec")):
        raise _problem(path, "users.user.username: API servers take no passwords any more", "log in anew, for a token")
    if "exec" not in user:
        return
    plugin = user["exec"]
    if not isinstance(plugin, Mapping):
        raise _problem(path, "users.user.exec: expected a mapping with apiVersion and command")
    for field in ("apiVersion", "command"):
        if not isinstance(plugin.get(field), str) or not plugin[field]:
            raise _problem(path, f"users.user.exec.{field}: expected a text")
    args, env = plugin.get("args"), plugin.get("env")
    if args is not None and not (isinstance(args, list) and all(isinstance(each, str) for each in args)):
        raise _problem(path, "users.user.exec.args: expected a list of texts")
    if env is not None and not (isinstance(env, list) and all(_is_pair(each) for each in env)):
        raise _problem(path, "users.user.exec.env: expected a list of mappings with name and value")


def _is_pair(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(field), str) for field in ("name", "value"))


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return bool(
            _SERVER.fullmatch(server) and parts.hostname and parts.port != 0
        )  # port raises for one that is none
    except ValueError:
        return False


def _check_pem(path: str, where: str, entry: Mapping[str, Any]) -> None:
    for field, holds in _PEM.items():
        if field not in entry:
            continue
        try:
            data = base64.b64decode(str(entry[field]), validate=False)
        except (binascii.Error, ValueError):
            data = b""
        if holds not in data:
            what = "private key" if field.endswith("key-data") else "certificate"
            raise _problem(path, f"{where}.{field}: expected a {what} in PEM form, in base64")


def _problem(path: str, what: str, hint: str = _HINT) -> EnvironmentProblem:
    return EnvironmentProblem(f"no Kubernetes cluster is known here: {path}: {what}", hint=hint)
