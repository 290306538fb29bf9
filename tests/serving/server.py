"""Runs a server for the small model in a thread."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inference.model import open_model
from inference.predictor import Model
from tests.small_model import make_small_model

if TYPE_CHECKING:
    from serving.service import DetectionService

UPLOAD_BYTES, MOST_FRAMES, QUEUE = 900_000, 40, 2


@contextmanager
def running(folder: Path, model: Model | None = None, token: str | None = None) -> Iterator[int]:
    """Port of a server that runs inside the `with` block; see `served`."""
    with served(folder, model, token) as (port, _):
        yield port


@contextmanager
def served(
    folder: Path, model: Model | None = None, token: str | None = None, upload_s: float = 10
) -> Iterator[tuple[int, DetectionService]]:
    """Port and service of a server that runs inside the `with` block. Skips the test without requirements-serve.txt."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from serving.app import Limits, make_app
    from serving.server import LOCAL, listen, make_server
    from serving.service import DetectionService

    if model is None:
        cfg, weights, names = make_small_model(folder)
        model = open_model(weights, cfg=cfg, names=names, device="cpu")
    limits = Limits(upload_bytes=UPLOAD_BYTES, upload_s=upload_s, queue=QUEUE, hosts=LOCAL, token=token)
    with DetectionService(model, most_frames=MOST_FRAMES) as service, listen(LOCAL[0], 0) as place:
        server = make_server(make_app(service, "small", limits))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield int(place.getsockname()[1]), service
        finally:
            server.should_exit = True
            thread.join(10)


def ask(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/octet-stream", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; returns status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = ({"Content-Type": kind} if body is not None else {}) | headers
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def told(body: bytes) -> Any:
    return json.loads(body)
