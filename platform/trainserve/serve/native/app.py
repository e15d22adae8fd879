"""The routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from trainserve import __version__
from trainserve.errors import nearest
from trainserve.serve.native import pages, schemas
from trainserve.serve.native.gate import Gate
from trainserve.serve.native.metrics import Metrics
from trainserve.serve.native.model import RETRY_AFTER_S, Model, Unavailable
from trainserve.serve.native.request import Budget, Refused, gone, read_item

REQUEST_TIMEOUT_S = 45.0  # from the whole request to its answer; our client waits 60
TYPES = {
    400: "BadRequest",
    404: "ModelNotFoundException",  # TorchServe's word
    405: "MethodNotAllowedException",
    408: "RequestTimeout",
    413: "PayloadTooLarge",
    429: "TooManyRequests",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
ASKED = schemas.responses(400, 403, 404, 405, 408, 413, 429, 500, 503)
Top = Annotated[int | None, Query(ge=1, description="How many classes to answer. Default: as packaged.")]


class NoAnswer(Response):
    """To a client that has gone: nothing reaches it. 499 is nginx's number for it, and counted as such."""

    def __init__(self) -> None:
        super().__init__(status_code=499)


def create_app(models: Mapping[str, Model]) -> FastAPI:
    """The application for models that somebody else starts and stops."""
    app = FastAPI(
        title="trainserve",
        version=__version__,
        summary="Classes of pictures.",
        description="Answers are JSON, errors `{code, type, message}`; the header `Server-Timing` has times in ms.",
        docs_url=None,
        redoc_url=None,
    )
    budget = Budget(max((model.max_upload_bytes for model in models.values()), default=0))
    metrics = Metrics(models)

    async def answer(request: Request, model: Model, top: int | None) -> Response:
        begun = time.monotonic()
        held = [0]
        try:
            item = await read_item(request, model.max_upload_bytes, held, budget)
            if top is not None:
                item.headers["top"] = str(top)
            response = await _answered(request, model, item, begun)
        except ClientDisconnect:
            response = NoAnswer()
        except asyncio.CancelledError:  # the engine's last word to what is still on its way
            response = error(503, "the server is stopping", RETRY_AFTER_S)
        except Refused as refused:
            response = error(refused.status, refused.reason, refused.retry_after_s)
        except Unavailable as unavailable:
            response = error(unavailable.status, unavailable.reason, unavailable.retry_after_s)
        finally:
            budget.held -= held[0]
        metrics.count(model.name, response.status_code, time.monotonic() - begun)
        return response

    def find(name: str, version: str | None = None) -> Model:
        """Raises Refused."""
        model = models.get(name)
        if model is None:
            alike = nearest(name, models)
            guess = f", did you mean {alike!r}?" if alike else ""
            raise Refused(404, f"Model not found: {name[:128]!r}{guess}; it serves {', '.join(models)}")
        if version is not None and version != model.version:
            raise Refused(404, f"Model version not found: {name} {version[:128]!r}; it serves {model.version}")
        return model

    @app.post(
        "/predict",
        summary="Classes of a picture from a form",
        response_model=schemas.Prediction,
        response_description="The classes, best first.",
        responses=ASKED,
        openapi_extra={"requestBody": schemas.FORM_BODY},
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="Which model; may be left out where there is one.")] = None,
        top: Top = None,
    ) -> Response:
        """One picture in the form's field `file`; a raw body and JSON are taken as `/predictions/{name}` takes them."""
        if model is None and len(models) != 1:
            raise Refused(400, f"which model? say ?model=NAME; it serves {', '.join(models)}")
        return await answer(request, find(next(iter(models)) if model is None else model), top)

    async def predictions(request: Request, name: str, top: Top = None) -> Response:
        """As TorchServe: the picture is the raw body, a form's field `data`, `body` or `file`, or base64 in JSON.

        `top` may also be a header, a form's field or a key of the JSON.
        """
        return await answer(request, find(name), top)

    async def versioned(request: Request, name: str, version: str, top: Top = None) -> Response:
        """The same for one version of the model."""
        return await answer(request, find(name, version), top)

    for method in ("POST", "PUT"):  # `curl -T` puts
        for path, route, words in (
            ("/predictions/{name}", predictions, "Classes of a picture from one model"),
            ("/predictions/{name}/{version}", versioned, "Classes of a picture from one version of a model"),
        ):
            app.add_api_route(
                path,
                route,
                methods=[method],
                summary=words,
                operation_id=f"{route.__name__}_{method.lower()}",
                response_model=schemas.Prediction,
                response_description="The classes, best first.",
                responses=ASKED,
                openapi_extra={"requestBody": schemas.ANY_BODY},
            )

    @app.get(
        "/ping",
        summary="Whether every model answers",
        response_model=schemas.Ping,
        response_description="Every model answers.",
        responses={503: {"model": schemas.Ping, "description": "Some model does not answer."}},
    )
    async def ping() -> Response:
        problems = {name: model.problem for name, model in models.items() if model.problem is not None}
        if not problems:
            return JSONResponse({"status": "Healthy", "models": {}})
        answered = {"status": "Unhealthy", "models": problems}
        return JSONResponse(answered, 503, headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.get("/models", summary="What is served", response_model=schemas.Models, response_description="All models.")
    async def list_models() -> Response:
        entries = [
            schemas.ModelEntry(
                name=name,
                version=model.version,
                classes=model.classes,
                top_k=model.top_k,
                max_upload_bytes=model.max_upload_bytes,
                ready=model.ready,
                problem=model.problem,
            )
            for name, model in models.items()
        ]
        return JSONResponse(schemas.Models(models=entries).model_dump(by_alias=True))

    @app.get(
        "/metrics", summary="For Prometheus", response_class=PlainTextResponse, response_description="Its text format."
    )
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(pages.INDEX, headers={"content-security-policy": pages.policy(pages.INDEX)})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        text = pages.documentation(app.openapi())
        return HTMLResponse(text, headers={"content-security-policy": pages.policy(text)})

    _answer_errors_in_json(app)
    _describe_errors(app)
    app.add_middleware(Gate)
    return app


async def _answered(request: Request, model: Model, item: Any, begun: float) -> Response:
    """Raises Unavailable and ClientDisconnect."""
    job = model.submit(item)
    received = time.monotonic()
    leaving = asyncio.create_task(gone(request))
    try:
        either: set[asyncio.Future[Any]] = {job.answer, leaving}
        await asyncio.wait(either, timeout=REQUEST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not job.answer.done():
            if leaving.done():
                raise ClientDisconnect
            raise Unavailable(503, f"model {model.name} did not answer within {REQUEST_TIMEOUT_S:g} s")
        answered = job.answer.result()
    finally:
        leaving.cancel()
        model.drop(job)
    ended = time.monotonic()
    spans = {
        "upload": (received - begun) * 1000,
        "queue": job.waited_s * 1000,
        "model": answered.model_ms,
        "total": (ended - begun) * 1000,
    }
    timing = ", ".join(f"{name};dur={ms:.1f}" for name, ms in spans.items())
    headers = {**answered.headers, "Server-Timing": timing}
    return Response(answered.body, answered.status, headers, media_type=answered.content_type)


def error(status: int, message: str, retry_after_s: int | None = None, allow: str | None = None) -> JSONResponse:
    """An error as every route answers it."""
    body = {"code": status, "type": TYPES.get(status, "Error"), "message": message}
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    if allow:
        headers["Allow"] = allow
    return JSONResponse(body, status, headers=headers)


def _answer_errors_in_json(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, problem: Refused) -> Response:  # noqa: ARG001  FastAPI's signature
        return error(problem.status, problem.reason, problem.retry_after_s)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Response:  # noqa: ARG001
        first = problem.errors()[0]
        name, given = str(first["loc"][-1]), str(first.get("input"))[:40]
        if name == "top":  # the handler's words
            return error(400, f"top must be a whole number from 1, got {given!r}")
        return error(400, f"{name}: {first['msg']}, got {given!r}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, problem: HTTPException) -> Response:
        allow = ", ".join(sorted(_methods(app, request))) if problem.status_code == 405 else None
        path = request.url.path[:128]
        words = {
            404: f"no such page: {path}; see /docs",
            405: f"{request.method} is not allowed for {path}; {allow}",
        }
        return error(problem.status_code, words.get(problem.status_code, str(problem.detail)), allow=allow)

    @app.exception_handler(Exception)
    async def bug(request: Request, problem: Exception) -> Response:  # noqa: ARG001
        return error(500, "this is a bug of the server; its log has more")


def _describe_errors(app: FastAPI) -> None:
    """What FastAPI says of its own accord of 422, which is 400 here, is taken out of the description."""
    original = app.openapi

    def described() -> dict[str, Any]:
        found = original()
        for methods in found["paths"].values():
            for route in methods.values():
                route["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        return found

    app.openapi = described  # type: ignore[method-assign]


def _methods(app: FastAPI, request: Request) -> set[str]:
    """What is allowed for the path of a request, over all routes."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    return {
        method for route in routes if route.matches(request.scope)[0] != Match.NONE for method in route.methods or ()
    }
