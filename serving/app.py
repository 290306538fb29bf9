"""The web application: a page, and JSON endpoints for uploaded files.

    GET  /         the page
    GET  /model    properties of the model: names and colours of its classes, limits
    GET  /metrics  requests, queue and times in the text format of Prometheus
    POST /detect   an image or video, as the body or as the file of a form; ?conf=0.25&iou=0.45; returns
                   {"frames": [...], "complete": true}
    POST /stream   the same as lines of JSON while the video is being read; ?images=1 adds each frame as a JPEG

An error is {"error": "one readable sentence"} with status 400, 401 (no token), 403 (from another site's page), 408 (too slow),
413 (too large), 415 (no image or video), 422 (damaged) or 503 (too many requests at a time). It quotes no text of the request.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.predictor import Classifier
from serving.decoder import UnknownKind
from serving.metrics import Metrics
from serving.service import DetectionRequest, DetectionService
from utils.draw import class_colour
from utils.errors import InputError, RunError

LEAST_CONF = 0.01
LEAST_BYTES_PER_S = 20_000
"""Slower uploads are aborted after `Limits.upload_s`."""

_PAGE = Path(__file__).resolve().parent / "page"
_CHUNK = 1 << 20
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
# A page of another site can send these only after a preflight request, which is refused; forms need no preflight.
_BODIES = ("image/", "video/", "application/octet-stream")
_FORM = "multipart/form-data"
_CLOSED_BY_CLIENT = 499  # for the metrics only


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on requests.

    upload_bytes: maximum file size.
    upload_s: seconds after which an upload must have reached LEAST_BYTES_PER_S on average.
    queue: maximum number of requests at a time, including waiting ones.
    hosts: host names that requests may use; ("*",): any.
    token: token required for all requests except those for the page's files; None: no token.
    """

    upload_bytes: int
    upload_s: float
    queue: int
    hosts: tuple[str, ...]
    token: str | None = None


def make_app(service: DetectionService, title: str, limits: Limits) -> Starlette:
    """Build the application. title: name of the model."""
    is_classifier = isinstance(service.model, Classifier)
    metrics = Metrics(service)
    facts = {
        "title": title,
        "task": service.model.task,
        "classes": service.model.names,
        "colours": ["#{:02x}{:02x}{:02x}".format(*class_colour(number)) for number in range(len(service.model.names))],
        "input": list(service.model.size_wh),
        "engine": service.model.engine,
        "upload_bytes": limits.upload_bytes,
        "frames": service.most_frames,
    }

    async def model(request: Request) -> Response:
        return JSONResponse(facts)

    async def measured(request: Request) -> Response:
        return PlainTextResponse(metrics.text(), media_type=Metrics.MEDIA_TYPE)

    async def detect(request: Request) -> Response:
        wanted = _wanted(request, is_classifier)
        frames: list[dict[str, Any]] = []
        upload = await _received(request, limits)
        try:
            async with aclosing(service.frames(upload, wanted)) as found:
                async for facts in found:
                    frames.append(facts)
                    if "time_s" in facts and await request.is_disconnected():  # in a video
                        raise ClientDisconnect
        finally:
            upload.unlink()
        end = frames.pop()
        return JSONResponse({"frames": frames} | end)

    async def stream(request: Request) -> Response:
        wanted = _wanted(request, is_classifier)
        upload = await _received(request, limits)
        found = service.frames(upload, wanted)
        try:
            first = await anext(found)  # an unusable file fails here and gets its own status
        except BaseException:
            await found.aclose()
            upload.unlink()
            raise
        return _Lines(first, found, upload)

    pages = [Route(path, _page((_PAGE / name).read_bytes(), kind)) for path, (name, kind) in _FILES.items()]
    api = [
        Route("/model", model),
        Route("/metrics", measured),
        Route("/detect", detect, methods=["POST"]),
        Route("/stream", stream, methods=["POST"]),
    ]
    return Starlette(
        routes=[*pages, *api],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(limits.hosts), www_redirect=False),
            *([Middleware(_Token, token=limits.token)] if limits.token is not None else []),
            Middleware(_Queue, metrics=metrics, most=limits.queue),
        ],
        exception_handlers={HTTPException: _error, ClientDisconnect: _gone}
        | {kind: _told(status) for kind, status in ((UnknownKind, 415), (InputError, 422), (RunError, 500))},
    )


def _page(content: bytes, kind: str) -> Any:
    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send


def _wanted(request: Request, is_classifier: bool) -> DetectionRequest:
    """Parse the detection request in the query string. Raises HTTPException 400."""
    for name in ("conf", "iou"):
        if is_classifier and name in request.query_params:
            raise HTTPException(400, f"{name}: the model is a classifier, which has no boxes")
    unknown = set(request.query_params) - {"conf", "iou", "images"}
    if unknown:
        raise HTTPException(400, "unknown query parameter, expected conf, iou or images")
    conf, iou = _number(request, "conf", 0.25, LEAST_CONF), _number(request, "iou", 0.45, 0)
    return DetectionRequest(conf=conf, iou=iou, images=request.query_params.get("images", "0") != "0")


def _number(request: Request, name: str, usual: float, least: float) -> float:
    text = request.query_params.get(name, str(usual))
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= 1:
        raise HTTPException(400, f"{name}: expected a number from {least} to 1")
    return value


async def _received(request: Request, limits: Limits) -> Path:
    """Save the upload to a temporary file, which the caller removes.

    Raises HTTPException 400, 403, 408, 413 or 415, and RunError.
    """
    limit = limits.upload_bytes
    kind = request.headers.get("content-type", "")
    is_form = kind.startswith(_FORM)
    if not is_form and not kind.startswith(_BODIES):
        raise HTTPException(415, f"Content-Type: expected image/*, video/*, application/octet-stream or {_FORM}")
    origin = request.headers.get("origin")
    if is_form and origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "Origin: forms from other sites are rejected")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise HTTPException(413, f"upload: has {int(declared):,} bytes, expected at most {limit:,}")
    handle, name = tempfile.mkstemp(prefix="upload-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            async for chunk in _file_of_form(request, limits) if is_form else _body(request, limits):
                file.write(chunk)
            if not file.tell():
                raise HTTPException(
                    400, "upload: is empty, expected an image or video as the body or the file of a form"
                )
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            raise RunError(f"upload: cannot be stored: {error.strerror}") from None
        raise
    return path


async def _body(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    chunks, size, start = request.stream(), 0, time.monotonic()
    while True:
        left = start + limits.upload_s + size / LEAST_BYTES_PER_S - time.monotonic()
        with anyio.move_on_after(max(left, 0)) as waiting:
            chunk = await anext(chunks, None)
        if waiting.cancelled_caught:
            text = f"upload: is slower than {LEAST_BYTES_PER_S // 1000} kB/s"
            raise HTTPException(408, text, {"Connection": "close"})
        if chunk is None:
            return
        size += len(chunk)
        if size > limits.upload_bytes:
            raise HTTPException(413, f"upload: has more than {limits.upload_bytes:,} bytes")
        yield chunk


async def _file_of_form(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the only file in a form. Raises HTTPException."""
    try:
        form = await MultiPartParser(request.headers, _body(request, limits), max_files=1, max_fields=0).parse()
    except MultiPartException as error:
        text = f"form: {error.message} Expected one file and nothing else; pass conf and iou in the URL: ?conf=0.4"
        raise HTTPException(400, text) from None
    try:
        for each in form.values():
            assert isinstance(each, UploadFile), "max_fields=0"
            while chunk := await each.read(_CHUNK):
                yield chunk
    finally:
        await form.close()


class _Lines(StreamingResponse):
    """A response of frames as lines of JSON; an error on the way becomes the last line."""

    def __init__(self, first: dict[str, Any], found: AsyncGenerator[dict[str, Any], None], upload: Path) -> None:
        super().__init__(self._lines(first), media_type="application/x-ndjson")
        self._found, self._upload = found, upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._found):  # also when the client has disconnected
                await super().__call__(scope, receive, send)
        finally:
            self._upload.unlink()

    async def _lines(self, first: dict[str, Any]) -> AsyncIterator[str]:
        yield json.dumps(first) + "\n"
        try:
            async for facts in self._found:
                yield json.dumps(facts) + "\n"
        except (InputError, RunError) as error:
            yield json.dumps({"error": str(error)}) + "\n"


async def _error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=_CLOSED_BY_CLIENT)


def _told(status: int) -> Any:
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status)

    return answer


class _Token:
    """Middleware that rejects requests without the token before reading their bodies, except for the page, which asks for it."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        right = scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self.token)
        if right or scope["path"] in _FILES:
            await self.app(scope, receive, send)
        else:
            text = "expected the token of this server: Authorization: Bearer TOKEN"
            await JSONResponse({"error": text}, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


class _Queue:
    """Middleware that counts uploads and rejects those above `most` at a time before reading their bodies."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, most: int) -> None:
        self.app, self.metrics, self.most = app, metrics, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/detect", "/stream"):
            await self.app(scope, receive, send)
            return
        with self.metrics.request(scope["path"]) as request:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                await send(message)

            if self.metrics.queue > self.most:
                text = f"busy: {self.most} requests are being processed, try again later"
                wait = {"Retry-After": str(self.metrics.retry_after(self.most))}
                await JSONResponse({"error": text}, 503, wait)(scope, receive, watched)
            else:
                await self.app(scope, receive, watched)
