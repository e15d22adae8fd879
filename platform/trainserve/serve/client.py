"""Ask a model over REST."""

from __future__ import annotations

import time
from types import TracebackType
from urllib.parse import quote, urlsplit

import httpx

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.ports import LOOPBACK_HOSTS
from trainserve.serve.answers import Prediction, check_size, parse_answer, refusal

TIMEOUT_S = 60.0
RETRIES = 5
LONGEST_RETRY_S = 5


class RestClient:
    """A connection pool to one server; safe to use from several threads."""

    def __init__(self, rest_url: str, *, max_upload_mib: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = rest_url.rstrip("/")
        self.max_upload_mib = max_upload_mib
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
            response = self._post(self.url + path, picture, headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EnvironmentProblem(
                f"no server answers at {self.url}: {error}", hint="start one with `platform serve`"
            ) from None
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise self._cut_off(len(picture), label, error) from None
        except httpx.TimeoutException:
            raise EnvironmentProblem(f"{self.url} did not answer in time (model {model})") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EnvironmentProblem(f"{self.url}: {error}") from None
        if response.status_code != 200:
            raise refusal(response.status_code, response.content, label=label, model=model)
        return parse_answer(response.content, label=label, model=model)

    def _post(self, url: str, picture: bytes, headers: dict[str, str]) -> httpx.Response:
        """Ask again, a few times, where the server says when: it is busy, or a model is being started again."""
        for _ in range(RETRIES):
            response = self._http.post(url, content=picture, headers=headers)
            wait = response.headers.get("retry-after", "")
            if response.status_code not in {429, 503} or not (wait.isascii() and wait.isdigit()):
                return response
            time.sleep(min(int(wait), LONGEST_RETRY_S))
        return self._http.post(url, content=picture, headers=headers)

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
