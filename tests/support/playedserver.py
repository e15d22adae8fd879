"""A server on loopback that plays an API server's first answer, with TLS or without; its certificates last to 2120.

The key stands for nothing: every certificate here is signed by itself and trusted by tests only.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg43bo+1txOtBhkBP8
hjLRAavV6rAdAHTkBB36yGYVssGhRANCAAR2BYhCLfHuh9WrFL/9UXFBla2F52o0
9OU+/zxfH7JD8ms3fzcRU1CKhyWhcgU4X5UzvRVmaiXLTtyQ4Sc2xZdu
-----END PRIVATE KEY-----
"""

# Of 127.0.0.1 and ::1.
HERE = """\
-----BEGIN CERTIFICATE-----
MIIBYzCCAQqgAwIBAgIBATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARoZXJlMCAX
DTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAPMQ0wCwYDVQQDDARoZXJl
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdgWIQi3x7ofVqxS//VFxQZWthedq
NPTlPv88Xx+yQ/JrN383EVNQiocloXIFOF+VM70VZmoly07ckOEnNsWXbqNVMFMw
IQYDVR0RBBowGIcEfwAAAYcQAAAAAAAAAAAAAAAAAAAAATAPBgNVHRMBAf8EBTAD
AQH/MB0GA1UdDgQWBBRT528+TksrqCA5RjtEZ0xmeeO+JDAKBggqhkjOPQQDAgNH
ADBEAiBvsbhkNUHbxmwWkaIdefu3Om+LfoDxCSyxWjwiUwMzEwIgdgr0PSCx4zH1
lwp0G0tS+6GlywYsYkwcGdwek2Qxud8=
-----END CERTIFICATE-----
"""

# Of elsewhere.example.
ELSEWHERE = """\
-----BEGIN CERTIFICATE-----
MIIBaTCCAQ+gAwIBAgIBAjAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAllbHNld2hl
cmUwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWVsc2V3aGVyZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHYFiEIt8e6H1asU
v/1RcUGVrYXnajT05T7/PF8fskPyazd/NxFTUIqHJaFyBThflTO9FWZqJctO3JDh
JzbFl26jUDBOMBwGA1UdEQQVMBOCEWVsc2V3aGVyZS5leGFtcGxlMA8GA1UdEwEB
/wQFMAMBAf8wHQYDVR0OBBYEFFPnbz5OSyuoIDlGO0RnTGZ5474kMAoGCCqGSM49
BAMCA0gAMEUCID8L0ib50pchu7t2fX2PemLeB9DDszd1OKKd4OoflxNiAiEAzfW+
vYg/bEWUE5j/Nwgt+0xIPOrN0SXmcowm/MXFU3A=
-----END CERTIFICATE-----
"""

# Of 127.0.0.1, for one day of 2020.
OLD = """\
-----BEGIN CERTIFICATE-----
MIIBXzCCAQagAwIBAgIBAzAKBggqhkjOPQQDAjAOMQwwCgYDVQQDDANvbGQwHhcN
MjAwMTAxMDAwMDAwWhcNMjAwMTAyMDAwMDAwWjAOMQwwCgYDVQQDDANvbGQwWTAT
BgcqhkjOPQIBBggqhkjOPQMBBwNCAAR2BYhCLfHuh9WrFL/9UXFBla2F52o09OU+
/zxfH7JD8ms3fzcRU1CKhyWhcgU4X5UzvRVmaiXLTtyQ4Sc2xZduo1UwUzAhBgNV
HREEGjAYhwR/AAABhxAAAAAAAAAAAAAAAAAAAAABMA8GA1UdEwEB/wQFMAMBAf8w
HQYDVR0OBBYEFFPnbz5OSyuoIDlGO0RnTGZ5474kMAoGCCqGSM49BAMCA0cAMEQC
IERB+5MXOfLpvBRwJ5O+XFEHQ9KlTo4w5F0H30cC3go3AiBRIcmgph+9W4C9hz+i
3JnjBiolpUYx9OqD391ZsRd5KA==
-----END CERTIFICATE-----
"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that fails is what the test is about."""


@contextlib.contextmanager
def playing(folder: Path, status: int, body: bytes = b"{}", *, certificate: str | None = None) -> Iterator[int]:
    """The port on 127.0.0.1 where every request is answered by `status` and `body`; no `certificate`: no TLS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        chain = folder / "server.pem"
        chain.write_text(KEY + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


UNAUTHORIZED = json.dumps({"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"}).encode()

# What is wrong -> (scheme, certificate of the server, status, body, CA of the kubeconfig, what is said, what is hinted)
WRONG: dict[str, tuple[str, str | None, int, bytes, str | None, str, str]] = {
    "another CA": (
        *("https", HERE, 200, b"{}", ELSEWHERE),
        "is not signed by the kubeconfig's CA: ",
        "the CA is clusters.cluster.certificate-authority of FILE",
    ),
    "no CA": (
        *("https", HERE, 200, b"{}", None),
        "is not signed by the kubeconfig's CA: ",
        "the CA is this system's own: clusters.cluster of FILE has no certificate-authority",
    ),
    "another name": (
        *("https", ELSEWHERE, 200, b"{}", ELSEWHERE),
        "is for another name: ",
        "clusters.cluster.server of FILE has to name the server as its certificate does",
    ),
    "expired": ("https", OLD, 200, b"{}", OLD, "is not of this time: certificate has expired", "clock is wrong"),
    "https for http": (
        *("https", None, 200, b"{}", HERE),
        "what is there speaks no TLS",
        "clusters.cluster.server of FILE says https://: is it http://?",
    ),
    "http for https": (
        *("http", None, 400, b"Client sent an HTTP request to an HTTPS server.\n", None),
        "it speaks https:// only",
        "clusters.cluster.server of FILE says http://: say https://",
    ),
    "401": (
        *("http", None, 401, UNAUTHORIZED, None),
        "the API server does not take the credentials (401 Unauthorized)",
        "they are users.user 'me' of FILE: expired, or another cluster's; log in anew",
    ),
}


@contextlib.contextmanager
def wrong(name: str, folder: Path) -> Iterator[tuple[Path, str, str]]:
    """A kubeconfig with which that is so, and what is said and hinted."""
    scheme, certificate, status, body, authority, says, hints = WRONG[name]
    with playing(folder, status, body, certificate=certificate) as port:
        path = folder / "kubeconfig"
        cluster: dict[str, Any] = {"server": f"{scheme}://127.0.0.1:{port}"}
        if authority is not None:
            (folder / "ca.pem").write_text(authority)
            cluster["certificate-authority"] = str(folder / "ca.pem")
        path.write_text(json.dumps(kubeconfig(cluster)))
        yield path, says, hints.replace("FILE", str(path))


def kubeconfig(cluster: dict[str, Any]) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "me", "user": {"token": "abc"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "me"}}],
        "current-context": "x",
    }
