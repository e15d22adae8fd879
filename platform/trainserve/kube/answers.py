"""What an API server's answer means, or that there is none, in words that name the kubeconfig's field and file.

Only for `kube.client`, which makes these errors; `kube.outage` is for who catches them.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from trainserve.kube.cluster import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Manifest,
    NotFound,
)
from trainserve.kube.outage import RUNNING, NoAnswer, Origin, Unauthorized

_BY_REASON: dict[str, type[ApiError]] = {
    error.reason: error for error in (BadRequest, Forbidden, NotFound, AlreadyExists, Conflict, Gone, Invalid)
}
_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LONG = 256
_WANTS_TLS = re.compile(rb"HTTP request (was sent )?to an? HTTPS (server|port)", re.IGNORECASE)  # Go's words, nginx's
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
# Codes of X509_verify_cert: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_NOT_OF_THIS_TIME = (9, 10)
_NOT_OF_THIS_NAME = (62, 64)


def no_answer(asked: str, error: Exception, origin: Origin) -> NoAnswer:
    """`asked`: the request, as GET /path. `error` is what the client's transport raised."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said, hint = _certificate(error, origin)
    elif isinstance(error, ssl.SSLError) and any(reason in str(error) for reason in _NO_TLS):
        said, hint = f"what is there speaks no TLS: {error}", f"{origin.server} says https://: is it http://?"
    elif isinstance(error, ssl.SSLError):
        said, hint = f"no connection by TLS: {error}", f"{RUNNING} its address is {origin.server}"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        said, hint = str(error), f"the host is named by {origin.server}; is this machine connected?"
    elif isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        said, hint = f"the proxy: {error}", "HTTPS_PROXY, HTTP_PROXY and NO_PROXY name it, or the cluster's proxy-url"
    elif isinstance(error, (aiohttp.ClientError, TimeoutError)):
        said, hint = str(error) or "no answer in time", f"{RUNNING} its address is {origin.server}"
    else:  # a command of the kubeconfig that gives credentials
        said, hint = str(error) or type(error).__name__, f"log in anew: the credentials are {origin.credentials}"
    return NoAnswer(f"{asked}: {said}", hint)


def _certificate(error: aiohttp.ClientConnectorCertificateError, origin: Origin) -> tuple[str, str]:
    certificate = error.certificate_error
    said = getattr(certificate, "verify_message", "") or str(certificate)
    code, where = getattr(certificate, "verify_code", 0), f"{error.host}:{error.port}"
    if code in _NOT_OF_THIS_NAME:
        return f"the certificate of {where} is for another name: {said}", (
            f"{origin.server} has to name the server as its certificate does, or tls-server-name beside it"
        )
    if code in _NOT_OF_THIS_TIME:
        return f"the certificate of {where} is not of this time: {said}", (
            "the server needs a new one, or this machine's clock is wrong"
        )
    return f"the certificate of {where} is not signed by the kubeconfig's CA: {said}", (
        f"the CA is {origin.authority}; where the cluster was made anew, so is its kubeconfig"
    )


def answered(verb: str, body: bytes) -> Manifest | None:
    """The object, or list of them, that an API server has answered `verb` with; None where it is nothing of the kind.

    A login page or a proxy in between answers with status 200, too.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if verb == "delete":  # a Status, or what was deleted
        return found
    if verb != "list":
        return found if isinstance(found.get("metadata", found.get("resources")), dict | list) else None
    items = found.get("items", False)
    is_list = isinstance(found.get("metadata"), dict) and "resourceVersion" in found["metadata"]
    return (
        found if is_list and isinstance(items, list | None) and all(_is_object(each) for each in items or []) else None
    )


def watched(line: bytes, origin: Origin) -> Manifest:
    """A line of a watch: an event with type and object. Raises NoAnswer for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("type"), str)
        or not isinstance(found.get("object"), dict)
    ):
        raise refusal(200, line, origin)
    return found


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metadata"), dict)


def refusal(status: int, body: bytes | Mapping[str, Any], origin: Origin) -> ApiError | NoAnswer:
    """What the server's Status object says; a proxy's page in between is told as it is."""
    if status == 400 and isinstance(body, bytes) and _WANTS_TLS.search(body):
        return NoAnswer("it speaks https:// only", f"{origin.server} says http://: say https://")
    if status < 300:
        shown = body[:80].decode("utf-8", "replace") if isinstance(body, bytes) else ""
        return NoAnswer(
            f"what answers there is no API server: status {status}, {shown.strip()!r}",
            f"its address is {origin.server}; is it a login page, or a proxy in between?",
        )
    found: Any = body
    if isinstance(body, bytes):
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping):  # of a proxy in between
            found = {"message": body[:200].decode("utf-8", "replace").strip()}
    reason, message = (found.get(field) for field in ("reason", "message"))
    reason = reason if isinstance(reason, str) else ""
    message = message if isinstance(message, str) and message else f"HTTP status {status}"
    # Of a field with a wrong value the server repeats the value, be it the whole object, with all that is secret in it.
    message = _QUOTED.sub(lambda value: value[0] if len(value[1]) < _LONG else f"({len(value[1])} letters)", message)
    if status == Unauthorized.status:
        return Unauthorized(
            f"the API server does not take the credentials (401 {message})",
            f"they are {origin.credentials}: expired, or another cluster's; log in anew",
        )
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(status, ApiError)
    return kind(message, status=status, reason=reason or None)


def put_off_s(response: aiohttp.ClientResponse, longest_s: float) -> float | None:
    """How long the server asks to wait, where it does and that is `longest_s` at most."""
    if response.status not in (429, 503):
        return None
    try:
        delay_s = float(response.headers.get("Retry-After", ""))
    except ValueError:  # none, or a date, which is a proxy's and not an API server's
        return None
    return delay_s if 0 <= delay_s <= longest_s else None


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, of any length: an object may have more bytes than a stream reader's limit for a line."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
