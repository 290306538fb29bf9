"""A small web page and a JSON endpoint around a Darknet model.

examples:
  python serve.py
  python serve.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --port 8080
  curl -F image=@street.jpg "http://127.0.0.1:8000/detect?conf=0.4"
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.first_look import with_shipped_model
from inference.model import ModelFlags
from utils.cli import EXIT_OK, above_zero, flags_of, options_from, run_script, script_parser
from utils.errors import InputError, RunError
from utils.packages import is_installed

LOCAL = ("127.0.0.1", "localhost")
SPARE_CONNECTIONS = 32  # for other requests than uploads, and to tell that the queue is full


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelFlags):
    """The flags of serve.py."""

    host: str
    port: int
    max_upload: int
    max_frames: int
    max_queue: int


def parse_arguments(arguments: Sequence[str] | None) -> ServeOptions:
    parser = script_parser("serve.py", __doc__)
    add = flags_of(parser)
    ModelFlags.add(add)
    add("--data", dest="names", metavar="FILE", help="the same as --names: a .data file that names the class names")
    add("--host", default=LOCAL[0], help="address to listen on, default this machine only; 0.0.0.0: every network")
    add("--port", type=_port, default=8000, metavar="N", help="default %(default)s")
    add("--max-upload", type=above_zero, default=64, metavar="MB", help="largest upload, default %(default)s MB")
    add("--max-frames", type=above_zero, default=600, metavar="N", help="frames read of a video, default %(default)s")
    add(
        "--max-queue",
        type=above_zero,
        default=16,
        metavar="N",
        help="uploads at a time, default %(default)s; more get 503",
    )
    return options_from(ServeOptions, parser, arguments)


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError
    return value


_port.__name__ = "port from 0 to 65535"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for package in ("starlette", "uvicorn", "python-multipart"):
        if not is_installed(package.replace("-", "_")):
            raise InputError(f"serve.py needs {package}: pip install -r requirements-serve.txt")
    import uvicorn

    from serving.app import Limits, make_app
    from serving.service import DetectionService

    options = with_shipped_model(options)
    model = options.open_named()
    hosts = allowed_hosts(options.host)
    limits = Limits(upload_bytes=options.max_upload * 1_000_000, queue=options.max_queue, hosts=hosts)
    title = Path(options.weights or "").stem
    app = make_app(DetectionService(model, most_frames=options.max_frames), title, limits)
    most = options.max_queue + SPARE_CONNECTIONS
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=most, server_header=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    with listen(options.host, options.port) as place:
        port = place.getsockname()[1]
        print(f"{title} on {model.device}: http://{options.host}:{port}/  (Ctrl-C ends it)", flush=True)
        server.run(sockets=[place])
    return EXIT_OK


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RunError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen: {error.strerror or error}") from None


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Host names that requests may use: with a local address only local ones, against DNS rebinding."""
    return LOCAL if host in LOCAL else ("*",)


if __name__ == "__main__":
    sys.exit(run_script(main))
