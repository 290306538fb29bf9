"""The web application: a page, and an endpoint that takes a file and answers in JSON.

    GET  /         the page
    GET  /model    about the model: names and colours of its classes, limits
    GET  /metrics  requests, queue and times in the text format of Prometheus
    POST /detect   an image or video, as the body or as the file of a form; ?conf=0.25&iou=0.45; answers
                   {"frames": [...], "complete": true}
    POST /stream   the same as lines of JSON while the video is being read; ?images=1 adds each frame as a JPEG

An error is {"error": "one readable sentence"} with status 400, 403 (from another site's page), 413 (too large), 415 (no image or
video), 422 (damaged) or 503 (too many requests at a time).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.predictor import Classifier
from serving.metrics import Metrics
from serving.service import DetectionRequest, DetectionService, UnknownKind, readable
from utils.draw import class_colour
from utils.errors import InputError

LEAST_CONF = 0.01
_PAGE = Path(__file__).resolve().parent / "page"
_UPLOAD, _CHUNK = "upload", 1 << 20
_FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
# Browsers send these from another site's page only after a preflight request, which is refused; forms they send at once.
_BODIES = ("image/", "video/", "application/octet-stream")
_FORM = "multipart/form-data"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """upload_bytes: largest file. queue: most requests at a time, waiting ones included. hosts: host names that requests may use;
    ("*",): any.
    """

    upload_bytes: int
    queue: int
    hosts: tuple[str, ...]


def make_app(service: DetectionService, title: str, limits: Limits) -> Starlette:
    """The application; `title` names the model."""
    is_classifier = isinstance(service.model, Classifier)
    metrics = Metrics(service)
    facts = {
        "title": title,
        "task": service.model.task,
        "classes": service.model.names,
        "colours": ["#{:02x}{:02x}{:02x}".format(*class_colour(number)) for number in range(len(service.model.names))],
        "input": list(service.model.size_wh),
        "upload_bytes": limits.upload_bytes,
        "frames": service.most_frames,
    }

    async def model(request: Request) -> Response:
        return JSONResponse(facts)

    async def measured(request: Request) -> Response:
        return PlainTextResponse(metrics.text(), media_type=Metrics.MEDIA_TYPE)

    async def detect(request: Request) -> Response:
        wanted = _wanted(request, is_classifier)
        with await _received(request, limits.upload_bytes) as folder:
            return JSONResponse(await run_in_threadpool(_answer, service, Path(folder) / _UPLOAD, wanted))

    async def stream(request: Request) -> Response:
        wanted = _wanted(request, is_classifier)
        folder = await _received(request, limits.upload_bytes)
        lines = _lines(service, Path(folder.name) / _UPLOAD, wanted)
        try:
            first = await run_in_threadpool(next, lines)  # a file that cannot be used at all gets its own status
        except BaseException:
            folder.cleanup()
            raise
        return StreamingResponse(_streamed(first, lines, folder), media_type="application/x-ndjson")

    pages = [Route(path, _file(name)) for path, name in _FILES.items()]
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
            Middleware(_Headers),
            Middleware(_Queue, metrics=metrics, most=limits.queue),
        ],
        exception_handlers={HTTPException: _error, UnknownKind: _unknown, InputError: _damaged},  # type: ignore[dict-item]
    )


def _file(name: str) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return send


def _wanted(request: Request, is_classifier: bool) -> DetectionRequest:
    """The detection request in the query string. Raises HTTPException 400."""
    for name in ("conf", "iou"):
        if is_classifier and name in request.query_params:
            raise HTTPException(400, f"{name}: the model is a classifier, which finds no boxes")
    unknown = set(request.query_params) - {"conf", "iou", "images"}
    if unknown:
        raise HTTPException(400, f"{sorted(unknown)[0]}: unknown parameter, expected conf, iou or images")
    conf, iou = (
        _number(request, name, usual, least) for name, usual, least in (("conf", 0.25, LEAST_CONF), ("iou", 0.45, 0))
    )
    return DetectionRequest(conf=conf, iou=iou, images=request.query_params.get("images", "0") != "0")


def _number(request: Request, name: str, usual: float, least: float) -> float:
    text = request.query_params.get(name, str(usual))
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= 1:
        raise HTTPException(400, f"{name}={text}: expected a number from {least} to 1")
    return value


async def _received(request: Request, limit: int) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with the uploaded file in it. Raises HTTPException 400, 403, 413 or 415."""
    kind = request.headers.get("content-type", "")
    is_form = kind.startswith(_FORM)
    if not is_form and not kind.startswith(_BODIES):
        raise HTTPException(
            415, f"Content-Type {kind or 'absent'}: expected image/*, video/*, application/octet-stream or {_FORM}"
        )
    origin = request.headers.get("origin")
    if is_form and origin is not None and urlparse(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, f"Origin {origin}: forms of other sites are refused")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise HTTPException(413, f"upload: has {int(declared):,} bytes, expected at most {limit:,}")
    folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
    try:
        with (Path(folder.name) / _UPLOAD).open("wb") as file:
            async for chunk in _file_of_form(request, limit) if is_form else _body(request, limit):
                file.write(chunk)
            if not file.tell():
                raise HTTPException(
                    400, "upload: is empty, expected an image or video as the body or the file of a form"
                )
    except BaseException:
        folder.cleanup()
        raise
    return folder


async def _body(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"upload: has more than {limit:,} bytes")
        yield chunk


async def _file_of_form(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The bytes of the one file in a form. Raises HTTPException."""
    try:
        form = await MultiPartParser(request.headers, _body(request, limit), max_files=1, max_fields=0).parse()
    except MultiPartException as error:
        text = (
            f"form: {error.message} Expected one file and nothing else; conf and iou belong to the address: ?conf=0.4"
        )
        raise HTTPException(400, text) from None
    try:
        for each in form.values():
            assert isinstance(each, UploadFile), "max_fields=0"
            while chunk := await each.read(_CHUNK):
                yield chunk
    finally:
        await form.close()


def _answer(service: DetectionService, path: Path, wanted: DetectionRequest) -> dict[str, Any]:
    with readable(path):
        *frames, end = service.frames(path, wanted)
    return {"frames": frames} | end


def _lines(service: DetectionService, path: Path, wanted: DetectionRequest) -> Iterator[str]:
    """Raises InputError before the first line; a later error is the last line."""
    any_yet = False
    try:
        with readable(path):
            for facts in service.frames(path, wanted):
                yield json.dumps(facts) + "\n"
                any_yet = True
    except InputError as error:
        if not any_yet:
            raise
        yield json.dumps({"error": str(error)}) + "\n"


async def _streamed(first: str, lines: Iterator[str], folder: tempfile.TemporaryDirectory[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for line in iterate_in_threadpool(lines):
            yield line
    finally:  # also when the client has disconnected
        lines.close()  # type: ignore[attr-defined]
        folder.cleanup()


async def _error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _unknown(request: Request, error: UnknownKind) -> Response:
    return JSONResponse({"error": str(error)}, 415)


async def _damaged(request: Request, error: InputError) -> Response:
    return JSONResponse({"error": str(error)}, 422)


class _Queue:
    """Counts the uploads, and refuses those above `most` at a time before their bodies are read."""

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
                text = f"busy: {self.most} requests are being worked on, expected another try later"
                wait = {"Retry-After": str(self.metrics.retry_after(self.most))}
                await JSONResponse({"error": text}, 503, wait)(scope, receive, watched)
            else:
                await self.app(scope, receive, watched)


class _Headers:
    """Adds security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)
