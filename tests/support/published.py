"""Tiny data sets in the true formats of the published ones, and a server on this machine that has them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from support import pictures
from trainserve.train.get_sources import SOURCES, Remote, Source


def tar_gz(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tar.gz of plain files, or of whatever a TarInfo says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def idx(sizes: tuple[int, ...], values: bytes) -> bytes:
    return gzip.compress(bytes((0, 0, 8, len(sizes))) + struct.pack(f">{len(sizes)}I", *sizes) + values)


def fashion_mnist(train: int = 30, val: int = 10) -> dict[str, bytes]:
    """Picture n is grey n all over, of class n modulo 10."""
    return {
        f"{stem}-{what}": data
        for stem, count in (("train", train), ("t10k", val))
        for what, data in (
            ("images-idx3-ubyte.gz", idx((count, 28, 28), b"".join(bytes((n,)) * 784 for n in range(count)))),
            ("labels-idx1-ubyte.gz", idx((count,), bytes(n % 10 for n in range(count)))),
        )
    }


def cifar10(a_batch: int = 20) -> dict[str, bytes]:
    """Picture n of a batch is red n, green 2 n, blue 200, of class n modulo 10."""
    record = [
        bytes((n % 10,)) + bytes((n,)) * 1024 + bytes((2 * n,)) * 1024 + bytes((200,)) * 1024 for n in range(a_batch)
    ]
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    members: dict[str, bytes | tarfile.TarInfo] = {
        f"cifar-10-batches-bin/{name}.bin": b"".join(record) for name in names
    }
    members["cifar-10-batches-bin/batches.meta.txt"] = b"airplane\n"
    return {"cifar-10-binary.tar.gz": tar_gz(members)}


def flowers102() -> dict[str, bytes]:
    """Pictures 1 to 6: of classes 1, 2, 77, in each of the three parts."""
    from scipy.io import savemat

    photos = {f"jpg/image_{number:05d}.jpg": pictures.flat((number, 9, 9), format="JPEG") for number in range(1, 7)}
    labels, parts = io.BytesIO(), io.BytesIO()
    savemat(labels, {"labels": [[1, 2, 77, 1, 2, 77]]})
    savemat(parts, {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    return {
        "102flowers.tgz": tar_gz(dict(photos)),
        "imagelabels.mat": labels.getvalue(),
        "setid.mat": parts.getvalue(),
    }


def imagenette(suffix: str = "-160") -> dict[str, bytes]:
    """Two photos for training and one for validation in each of two classes, among things that are no photos."""
    escape, link = tarfile.TarInfo("../../escape.JPEG"), tarfile.TarInfo(f"imagenette2{suffix}/train/n01440764/l.JPEG")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members: dict[str, bytes | tarfile.TarInfo] = {"../../escape.JPEG": escape, "link": link}
    for wordnet in ("n01440764", "n02102040"):
        for part, name in (("train", "a_1"), ("train", "a_2"), ("val", "ILSVRC2012_val_1")):
            data = pictures.encode(Image.new("RGB", (20, 16), (len(members), 7, 7)), "JPEG")
            members[f"imagenette2{suffix}/{part}/{wordnet}/{name}.JPEG"] = data
    members[f"imagenette2{suffix}/noisy_imagenette.csv"] = b"path,noisy\n"
    return {f"imagenette2{suffix}.tgz": tar_gz(members)}


TINY = {"fashion-mnist": fashion_mnist, "cifar10": cifar10, "flowers102": flowers102, "imagenette": imagenette}


def source(name: str, files: dict[str, bytes], url: str = "http://nowhere.invalid") -> Source:
    """The data set `name` as if these files were what is published, at `url`."""
    remotes = [
        Remote(file, f"{url}/{file}", hashlib.md5(data, usedforsecurity=False).hexdigest())
        for file, data in files.items()
    ]
    return replace(SOURCES[name], files=tuple(remotes), others=())


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class Server:
    """What was asked for, and how to answer."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.cut_after: int | None = None  # bytes of a body, then the connection breaks; once
        self.ranges = True
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.state = server
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.state.asked.append((self.path, asked))
        data = self.state.files.get(self.path[1:])
        if data is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.state.ranges else 0
        if start >= len(data) and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if self.state.cut_after is not None:
            end, self.state.cut_after = start + self.state.cut_after, None
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    state = Server(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, state))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
