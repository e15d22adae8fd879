"""Where data is and where a run's output goes: a folder, a claim, a path of the nodes, or a URL. Pure.

folder                    ./flowers, /data/flowers         of the machine that the command runs on
pvc://CLAIM[/sub/path]    pvc://pictures/flowers           a PersistentVolumeClaim of the job's namespace
hostpath:///abs/path      hostpath:///mnt/flowers          the same path of every node
URL                       s3://bucket/flowers.tar.gz       a bucket or a web server (machine/bucket/)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from trainserve.errors import nearest

CLAIM_SCHEME = "pvc://"
HOST_SCHEME = "hostpath://"
WEB = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of an object: a DNS-1123 subdomain
_LONGEST_NAME = 253
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PUSHED = re.compile(r"sha256-[0-9a-f]{64}")


@dataclass(frozen=True)
class Folder:
    """A path of this machine."""

    path: str


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim, and a folder in it; `sub` is relative, "" is all of it."""

    name: str
    sub: str


@dataclass(frozen=True)
class HostPath:
    """An absolute path that every node has."""

    path: str


@dataclass(frozen=True)
class Url:
    """A bucket's, or a web server's."""

    url: str


Location: TypeAlias = Folder | Claim | HostPath | Url


def parse(text: str) -> Location:
    """What `text` means. Raises ValueError in words."""
    found = _SCHEME.match(text)
    if found is None:
        return Folder(text)
    scheme = found[1]
    if _CONTROL.search(text):
        raise ValueError(f"{text!r} has control characters in it: was it copied with a line's end?")
    if text.startswith(CLAIM_SCHEME):
        return _claim(text)
    if text.startswith(HOST_SCHEME):
        return _host_path(text)
    near = nearest(scheme.lower(), (CLAIM_SCHEME[:-3], HOST_SCHEME[:-3]))
    if near:
        raise ValueError(f"{text!r} begins with {scheme}://, did you mean {near}://?")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL: {error}") from None
    if parts.password is not None or (parts.username and parts.scheme in {"http", "https", "s3", "gs"}):
        hidden = text.replace(f"{parts.netloc.rpartition('@')[0]}@", "***@")
        raise ValueError(
            f"{hidden!r} holds credentials, which everybody could read who sees the job: "
            "put them into a Secret and name it by spec.pod.envFrom (--env-from)"
        )
    if not parts.netloc:
        raise ValueError(f"{text!r} names no bucket or host; allowed: {scheme}://NAME/path")
    return Url(text)


def is_store(location: Location) -> bool:
    """Whether runs can write there: a claim, or a bucket's folder. The web is read only."""
    if isinstance(location, Url):
        parts = urlsplit(location.url)
        return parts.scheme not in WEB and not parts.query and not parts.fragment
    return isinstance(location, Claim)


def folder_of(digest: str) -> str:
    """The folder of a store that holds the data of this digest: `sha256-...`."""
    return digest.replace(":", "-")


def name_of(location: Location) -> str:
    """The last word of a location, without the ending of an archive: what a run of it may be called.

    A folder that is called by its digest is passed over for the one that it is in.
    """
    match location:
        case Claim(name, sub):
            text = f"{name}/{sub}"
        case HostPath(path) | Folder(path):
            text = path
        case Url(url):
            parts = urlsplit(url)
            text = parts.netloc + parts.path
    words = [word for word in text.split("/") if word]
    while len(words) > 1 and _PUSHED.fullmatch(words[-1]):
        words.pop()
    word = words[-1] if words else ""
    return re.sub(r"\.(zip|tar|tgz|tar\.[a-z0-9]+)$", "", word) or word


def _claim(text: str) -> Claim:
    name, _, sub = text.removeprefix(CLAIM_SCHEME).partition("/")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ValueError(f"{text!r}: {name!r} is no name of a claim; allowed: pvc://CLAIM or pvc://CLAIM/sub/path")
    return Claim(name, _inside(sub, text))


def _host_path(text: str) -> HostPath:
    path = text.removeprefix(HOST_SCHEME)
    if not path.startswith("/"):
        raise ValueError(f"{text!r} is not absolute; allowed: hostpath:///abs/path, with three slashes")
    inside = _inside(path[1:], text)
    if not inside:
        raise ValueError(f"{text!r} is the whole disk of a node; name a folder in it")
    return HostPath(f"/{inside}")


def _inside(path: str, text: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError(f"{text!r}: '..' is not allowed in it")
    return "/".join(parts)
