"""Ask a model over REST."""

from __future__ import annotations

import time
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.ports import LOOPBACK_HOSTS
from trainserve.machine.usage import MIB, size_words
from trainserve.serve.answers import Prediction, check_size, parse_answer, refusal

TIMEOUT_S = 60.0
RETRIES = 5
LONGEST_RETRY_S = 5
LARGEST_ANSWER = 256 * MIB  # a million classes have some 100 MB


class HttpAnswer(NamedTuple):
    """An answer, whole."""

    status: int
    retry_after: str
    body: bytes


class RestClient:
    """A connection pool to one server; safe to use from several threads."""

    def __init__(self, rest_url: str, *, max_upload_mib: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = rest_url.rstrip("/")
        self.max_upload_mib = max_upload_mib
        self._timeout_s = timeout_s
        # A proxy of the environment is for the outside world: loopback is never asked through it.
        use_proxy = urlsplit(self.url).hostname not in LOOPBACK_HOSTS
        self._http = httpx.Client(timeout=timeout_s, trust_env=use_proxy)

    def predict(
        self, picture: bytes, *, model: str, version: str | None = None, top: int | None = None, label: str = "picture"
    ) -> Prediction:
        """The classes of a picture; `label` names it in errors.

        Raises UserError for what the server refuses (with its reason), an unknown model or version, and a picture
        above the limit; EnvironmentProblem when no server answers there or it fails.
        """
        check_size(picture, label, self.max_upload_mib)
        path = f"/predictions/{quote(model, safe='')}" + (f"/{quote(version, safe='')}" if version else "")
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        if top is not None:
            headers["top"] = str(top)  # TorchServe hands headers to the model, but no query string
        try:
            answer = self._post(self.url + path, picture, headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EnvironmentProblem(
                f"no server answers at {self.url}: {error}", hint="start one with `platform serve`"
            ) from None
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise self._cut_off(len(picture), label, error) from None
        except (httpx.TimeoutException, TimeoutError):
            raise EnvironmentProblem(
                f"{self.url} did not answer within {self._timeout_s:g} s (model {model})", hint="see the server's log"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EnvironmentProblem(f"{self.url}: {error}", hint="is it a model server's address?") from None
        if answer.status != 200:
            raise refusal(answer.status, answer.body, label=label, model=model)
        return parse_answer(answer.body, label=label, model=model)

    def _post(self, url: str, picture: bytes, headers: dict[str, str]) -> HttpAnswer:
        """Ask again, a few times, where the server says when: it is busy, or a model is being started again."""
        for _ in range(RETRIES):
            answer = self._post_once(url, picture, headers)
            wait = answer.retry_after
            if answer.status not in {429, 503} or not (wait.isascii() and wait.isdigit()):
                return answer
            time.sleep(min(int(wait[:9]), LONGEST_RETRY_S))
        return self._post_once(url, picture, headers)

    def _post_once(self, url: str, picture: bytes, headers: dict[str, str]) -> HttpAnswer:
        """Raises TimeoutError for an answer that has begun and does not end, EnvironmentProblem for an endless one."""
        body = bytearray()
        with self._http.stream("POST", url, content=picture, headers=headers) as response:
            give_up = time.monotonic() + self._timeout_s
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise EnvironmentProblem(
                        f"{self.url}: its answer has more than {size_words(LARGEST_ANSWER)}",
                        hint="is it another model server?",
                    )
                if time.monotonic() > give_up:
                    raise TimeoutError
            return HttpAnswer(response.status_code, response.headers.get("retry-after", ""), bytes(body))

    def _cut_off(self, size: int, label: str, error: Exception) -> Exception:
        """TorchServe resets the connection on a body far above its limit, sometimes before its 413 is read."""
        if size > 4_000_000:
            return UserError(
                f"{label}: the server closed the connection on {size:,} bytes: most likely too large for it"
            )
        return EnvironmentProblem(f"{self.url} closed the connection ({error})", hint="was the server stopped?")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
