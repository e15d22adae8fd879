"""What went wrong with a bucket, in words: what is missing, and what to do about it."""

from __future__ import annotations

import re

from trainserve.errors import EnvironmentProblem, PlatformError, UserError

_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>|\"reason\": *\"([A-Za-z]+)\"")
_STATUS = re.compile(r"status (?:code:? )?(\d{3})|\b(4\d\d|5\d\d) (?:Forbidden|Not Found|Unauthorized|Service)")
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|metadata\.google|computeMetadata|[Nn]o credentials|Unable to locate credentials|MissingToken"
)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile in ~/.aws/credentials)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS with the path of a key, or GOOGLE_SERVICE_ACCOUNT_KEY with the key itself",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
IN_A_POD = "in a cluster a Secret brings them: --env-from SECRET (spec.pod.envFrom)"


class Absent(UserError):
    """There is no such object, folder or bucket."""


def told(error: Exception, url: str, doing: str, kind: str = "") -> PlatformError:
    """`error` of a client library, met while `doing` ("read", "written", "listed") `url`; `kind`: s3, gs, az or ""."""
    if isinstance(error, PlatformError):
        return error
    text = " ".join(filter(None, (f"{type(error).__name__}: {error}", *_causes(error)))).replace("retry_timeout", "")
    found = _CODE.search(text)
    code = (found[1] or found[2]) if found else ""
    answered = getattr(error, "code", None)  # urllib's HTTPError has it
    status = answered if isinstance(answered, int) else next(iter(_statuses(text)), 0)
    begin = f"{url} cannot be {doing}"
    credentials = f"set {_CREDENTIALS[kind]}; {IN_A_POD}" if kind else "see its credentials"
    if _NO_CREDENTIALS.search(text):
        return EnvironmentProblem(f"{begin}: there are no credentials for it here", hint=credentials)
    if code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"} or status == 401:
        said = code or "it asks for credentials"
        return EnvironmentProblem(f"{begin}: the credentials are refused ({said})", hint=credentials)
    if code == "NoSuchBucket" or "NoSuchBucket" in text:
        return Absent(f"{begin}: there is no such bucket", hint="check its name, and its region (AWS_REGION)")
    if status == 403 or code == "AccessDenied" or isinstance(error, PermissionError) or "PermissionDenied" in text:
        return EnvironmentProblem(
            f"{begin}: these credentials may not do that (403 {code or 'Forbidden'})",
            hint="ask for the right to list, read and write there, or check which credentials are used",
        )
    if status == 404 or isinstance(error, FileNotFoundError) or "NotFound" in type(error).__name__:
        return Absent(f"{begin}: there is nothing of this name", hint="check bucket and path")
    if "without LOCATION" in text or code in {"PermanentRedirect", "AuthorizationHeaderMalformed"}:
        return EnvironmentProblem(f"{begin}: the bucket is in another region", hint="set AWS_REGION to the bucket's")
    return EnvironmentProblem(f"{begin}: {_network(text, status) or _short(error)}", hint=_network_hint(text, kind))


def _network(text: str, status: int) -> str:
    low = text.lower()
    if "dns error" in low or "name or service not known" in low or "name resolution" in low or "gaierror" in low:
        return "its host has no address (DNS)"
    if "certificate" in low or "invalid peer" in low or ("ssl" in low and "verify" in low):
        return "its certificate is not trusted (TLS)"
    for mark, said in (
        ("connection refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("connection reset", "connection reset"),
        ("connection closed", "the connection ended too early"),
        ("invalidcontenttype", "it does not speak TLS: http instead of https?"),
    ):
        if mark in low:
            return said
    return f"HTTP status {status}" if status else ""


def _network_hint(text: str, kind: str) -> str:
    low = text.lower()
    if "certificate" in low:
        return "a private authority is trusted by SSL_CERT_FILE=/path/of/ca.crt"
    if kind == "s3":
        return "try again; a server that is not Amazon's is named by AWS_ENDPOINT_URL"
    return "try again; check the network and the URL"


def _statuses(text: str) -> list[int]:
    return [int(first or second) for first, second in _STATUS.findall(text)]


def _causes(error: BaseException) -> list[str]:
    found: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(found) < 5:
        found.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return found


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
