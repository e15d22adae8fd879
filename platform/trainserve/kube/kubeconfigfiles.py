"""The files of a kubeconfig, read: what `kube.kubeconfig` judges, for whoever asks the cluster and its namespace."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from trainserve.kube.names import ENV_KUBECONFIG
from trainserve.machine.home import expanded

DEFAULT_PATH = "~/.kube/config"
_PIPED: dict[Path, bytes] = {}  # a pipe gives its content once, and a command connects more than once


def named(kubeconfig: str | None) -> str | None:
    """`kubeconfig`, else what $KUBECONFIG says; None where neither names a file."""
    return kubeconfig or os.environ.get(ENV_KUBECONFIG) or None


def contents(paths: str) -> dict[str, object]:
    """Path -> content of those files that there are; the names of several are parted as in PATH.

    Raises OSError, FileNotFoundError where there is none of them; YAMLError, also for values that Python cannot hold.
    """
    each = [expanded(path) for path in paths.split(os.pathsep) if path]
    there = [path for path in each if path.exists()]
    if not there:
        raise FileNotFoundError("no such file")
    return {str(path): _parsed(_read(path)) for path in there}


def _parsed(data: bytes) -> object:
    try:
        return yaml.safe_load(data)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:  # such as a date of month 13; not every error of YAML is one of YAMLError
        raise yaml.YAMLError(str(error)) from None


def _read(path: Path) -> bytes:
    if not path.is_fifo():
        return path.read_bytes()
    if path not in _PIPED:
        _PIPED[path] = path.read_bytes()
    return _PIPED[path]
