"""The web application: routes, errors of one shape, and how many requests are under way."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from attrtrain import __version__
from attrtrain.inference.predictor import Predictor
from attrtrain.inference.results import NEVER
from attrtrain.serving.batcher import Batcher
from attrtrain.serving.contracts import (
    AttributeScore,
    BoxField,
    ErrorBody,
    ErrorDetail,
    Health,
    Limits,
    ModelInfo,
    PredictedObject,
    Prediction,
    RefusedError,
    RequestLimits,
    VocabularyEntry,
)
from attrtrain.serving.intake import Asked, cut_crops, linger, read_request

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "boxes": {"type": "string", "description": "JSON: [[x, y, width, height], ...] in pixels; none: the whole picture"},
        "category": {"type": "string", "description": "what the objects are, one of the categories that GET /model lists; none: not known"},
    },
}  # fmt: skip
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
    for status in (400, 408, 413, 415, 422, 500, 503, 504, 507)
}
_DECODERS = 2  # pictures decoded at once: each may take several bytes a pixel


class Serving:
    """A model, and the requests that are under way for it."""

    def __init__(self, predictor: Predictor, name: str, limits: Limits, batcher: Batcher) -> None:
        self.predictor, self.limits, self.batcher = predictor, limits, batcher
        self.queue = 0
        self._since = time.monotonic()
        self._decoders = ThreadPoolExecutor(_DECODERS, "decode")
        card = predictor.card
        columns = zip(predictor.names, card.vocabulary.groups, predictor.thresholds, predictor.tuned, strict=True)
        self._untrained = frozenset(card.untrained)
        self.info = ModelInfo(
            name=name,
            fingerprint=predictor.fingerprint,
            backbone=card.architecture.backbone,
            image_px=card.image_px,
            attributes=[
                VocabularyEntry(
                    name=name,
                    group=group,
                    threshold=threshold,
                    tuned=given is not None and name not in self._untrained,
                    trained=name not in self._untrained,
                )
                for name, group, threshold, given in columns
            ],
            categories=predictor.categories,
            metrics=card.metrics,
            threshold_note=predictor.threshold_note,
            limits=RequestLimits(bytes=limits.bytes, pixels=limits.pixels, boxes=limits.boxes, seconds=limits.seconds),
        )

    async def health(self) -> Health:
        """How it is. Where the last pass failed another one is tried, so that whoever sends no requests to a server
        that fails learns when it works again.

        Raises:
            RefusedError: the network fails, as on a GPU that is gone.
        """
        if self.batcher.fails:
            px = self.info.image_px
            with suppress(Exception):
                async with asyncio.timeout(self.limits.seconds):
                    await self.batcher.scores([torch.zeros((3, px, px), dtype=torch.uint8)])
            if self.batcher.fails:
                raise RefusedError(503, "model_fails", "the network fails on every crop; start the server again")
        return Health(
            ok=True, fingerprint=self.info.fingerprint, uptime_seconds=round(time.monotonic() - self._since, 3),
            queue=self.queue, crops=self.batcher.crops, batches=self.batcher.batches,
        )  # fmt: skip

    async def predict(self, request: Request) -> Prediction:
        """Answers one request.

        Raises:
            RefusedError: it is not one that can be answered, or not now.
        """
        if self.queue >= self.limits.queue:
            await linger(request)
            raise RefusedError(503, "busy", "too many requests are under way; try again in a second")
        with self._counted():
            asked: Asked | None = None
            try:
                async with asyncio.timeout(self.limits.seconds):
                    asked = await read_request(request, self.limits, self.info.categories)
                    loop = asyncio.get_running_loop()
                    size, boxes, crops = await loop.run_in_executor(
                        self._decoders, cut_crops, asked, self.predictor, self.limits
                    )
                    rows = await self.batcher.scores(crops, asked.category)
            except TimeoutError:
                if asked is None:
                    raise RefusedError(408, "sent_too_slowly", "the request did not arrive in time") from None
                raise RefusedError(504, "timed_out", "there was no time left to answer; try again later") from None
            finally:
                if asked is not None:
                    asked.picture.close()
        objects = [self._object(box, row) for box, row in zip(boxes, rows, strict=True)]
        return Prediction(width=size[0], height=size[1], objects=objects)

    def close(self) -> None:
        """Ends its threads."""
        self._decoders.shutdown()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.queue += 1
        try:
            yield
        finally:
            self.queue -= 1

    def _object(self, box: BoxField, row: NDArray[Any]) -> PredictedObject:
        columns = zip(self.predictor.names, row.tolist(), self.predictor.thresholds, strict=True)
        attributes = [  # not rounded: a score beside its threshold says the same as `present`
            AttributeScore(name=name, score=score, threshold=least, present=score >= least and least < NEVER)
            for name, score, least in columns
            if name not in self._untrained
        ]
        return PredictedObject(box=box, attributes=sorted(attributes, key=lambda one: -one.score))


def make_app(predictor: Predictor, name: str, limits: Limits, max_batch: int, max_wait_ms: float) -> FastAPI:
    """The application.

    Args:
        predictor: the model that answers.
        name: what it is called on the page.
        limits: of requests.
        max_batch: crops that go through the network together.
        max_wait_ms: how long a crop waits for others.
    """
    batcher = Batcher(predictor, max_batch, max_wait_ms)
    serving = Serving(predictor, name, limits, batcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        yield
        await batcher.stop()
        serving.close()

    app = FastAPI(
        title="attrtrain", version=__version__, lifespan=lifespan, redoc_url=None, description="Attributes of objects in photographs."
    )  # fmt: skip
    form = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}

    @app.post("/predict", responses=_REFUSALS, openapi_extra=form)
    async def predict(request: Request) -> Prediction:
        return await serving.predict(request)

    @app.get("/model")
    async def model() -> ModelInfo:
        return serving.info

    @app.get("/healthz", responses={503: _REFUSALS[503]})
    async def healthz() -> Health:
        return await serving.health()

    for path, answer in (("/model", model), ("/healthz", healthz)):  # what watches a server may ask for the head alone
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)

    _add_page(app)
    _add_errors(app)
    return app


def _add_page(app: FastAPI) -> None:
    ours = files("attrtrain.serving")
    house = files("attrtrain.report") / "report.css"
    css = house.read_text(encoding="utf-8") + (ours / "page.css").read_text(encoding="utf-8")
    contents = {
        "/": ((ours / "page.html").read_text(encoding="utf-8"), "text/html; charset=utf-8"),
        "/page.css": (css, "text/css; charset=utf-8"),
        "/page.js": ((ours / "page.js").read_text(encoding="utf-8"), "text/javascript; charset=utf-8"),
    }
    headers = {
        "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"
    }  # fmt: skip

    async def send(request: Request) -> Response:
        content, media_type = contents[request.url.path]
        return Response(content, media_type=media_type, headers=headers)

    for path in contents:
        app.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        body = ErrorBody(error=ErrorDetail(code=code, message=message))
        return JSONResponse(body.model_dump(), status, headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return answer(error.status, error.code, error.message, {"Retry-After": "1"} if error.status == 503 else None)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        code = {404: "unknown_path", 405: "wrong_method"}.get(error.status_code, phrase.lower().replace(" ", "_"))
        return answer(error.status_code, code, phrase.lower(), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> JSONResponse:
        return answer(500, "internal", "this is a defect of the server; its log says more")
