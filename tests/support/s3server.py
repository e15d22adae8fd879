"""A server that speaks S3: moto's, in an environment of its own, with its buckets in memory."""

from __future__ import annotations

import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from support.environments import python_with
from support.guarded import Guarded
from trainserve.machine.ports import Reserved

MOTO = "moto[server,s3]==5.1.22"
STARTED_S = 60.0
_NAMES = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}


class S3Server:
    """At `address`, which is this machine's; it takes every name and password."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._folder = folder
        self._ports = Reserved()

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._ports.port('s3')}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client takes from its environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        program = [python_with("moto", MOTO), "-m", "moto.server"]
        port = self._ports.port("s3")
        self._process = Guarded([*program, "--host", self._address, "--port", port], self._folder / "s3.log")
        give_up = time.monotonic() + STARTED_S
        while self._process.alive() and time.monotonic() < give_up:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"the S3 server does not start:\n{self._process.tail()}")

    def stop(self) -> None:
        self._process.stop()
        self._ports.release_all()

    def create_bucket(self, name: str) -> None:
        who = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT", headers={"Authorization": who})
        urllib.request.urlopen(request, timeout=10).close()

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Of the first thousand objects below `prefix`."""
        with urllib.request.urlopen(f"{self.url}/{bucket}?list-type=2&prefix={quote(prefix)}", timeout=10) as answer:
            listed = ElementTree.fromstring(answer.read())
        return [str(each.text) for each in listed.findall("s3:Contents/s3:Key", _NAMES)]

    def get(self, bucket: str, key: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/{bucket}/{quote(key)}", timeout=30) as answer:
            body: bytes = answer.read()
        return body
