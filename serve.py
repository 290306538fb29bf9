"""A small web page and a JSON endpoint around a Darknet model.

examples:
  python serve.py
  python serve.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --port 8080
  curl --data-binary @street.jpg -H "Content-Type: image/jpeg" "http://127.0.0.1:8000/detect?conf=0.4"
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from data.formats.darknet import class_names
from inference.opening import load_predictor
from utils.cli import EXIT_OK, above_zero, run_script, script_parser
from utils.device import select_device
from utils.errors import InputError, RunError

SHIPPED = Path(__file__).resolve().parent / "weights"
LOCAL = ("127.0.0.1", "localhost")
BUSY = 32  # connections at a time; more are told to come back


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("serve.py", __doc__)
    add = parser.add_argument
    add("--cfg", metavar="FILE", help="Darknet cfg file; default: the model that comes with the program")
    add("--weights", metavar="FILE", help="Darknet .weights file")
    add("--names", metavar="FILE", help="class names, one in each line; default: class 0, class 1, ...")
    add("--img-size", type=above_zero, nargs="+", default=[], metavar="N", help="input size: N, or WIDTH HEIGHT")
    add("--device", default="", help="cpu, mps, or a CUDA index such as 0; default: a GPU if there is one")
    add("--half", action="store_true", help="16-bit floats on a GPU")
    add("--host", default=LOCAL[0], help="address to listen on, default this machine only; 0.0.0.0: everybody")
    add("--port", type=_port, default=8000, metavar="N", help="default 8000")
    add("--max-upload", type=above_zero, default=64, metavar="MB", help="largest file taken, default 64 MB")
    add("--max-frames", type=above_zero, default=600, metavar="N", help="frames looked at in a video, default 600")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError
    return value


_port.__name__ = "port from 0 to 65535"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"serve.py needs {package}: pip install -r requirements-serve.txt")
    import uvicorn

    from serving.app import Limits, make_app
    from serving.service import DetectionService

    cfg, weights, names = model_files(options)
    if len(options.img_size) > 2:
        raise InputError("--img-size: expected one number or width and height")
    size = options.img_size or [None]
    device = select_device(options.device)
    predictor = load_predictor(cfg, weights, device, width=size[0], height=size[-1], half=options.half)
    known = class_names(names, predictor.detector.classes, cfg)
    limits = Limits(upload_bytes=options.max_upload * 1_000_000, hosts=allowed_hosts(options.host))
    app = make_app(DetectionService(predictor, known, most_frames=options.max_frames), Path(cfg).stem, limits)
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=BUSY, server_header=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    with listen(options.host, options.port) as place:
        port = place.getsockname()[1]
        print(f"{Path(cfg).stem} on {device}: http://{options.host}:{port}/  (Ctrl-C ends it)", flush=True)
        server.run(sockets=[place])
    return EXIT_OK


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections. Raises RunError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen there: {error.strerror or error}") from None


def model_files(options: argparse.Namespace) -> tuple[Path, Path, Path | None]:
    """Cfg, weights and names of the flags, or those that come with the program. Raises InputError."""
    if options.cfg is None and options.weights is None:
        cfg, weights, names = (SHIPPED / f"scenes.{suffix}" for suffix in ("cfg", "weights", "names"))
        return cfg, weights, Path(options.names) if options.names else names
    if options.cfg is None or options.weights is None:
        raise InputError("expected --cfg and --weights together, or neither for the model that comes with the program")
    return Path(options.cfg), Path(options.weights), Path(options.names) if options.names else None


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Names that a request may address the server by: on this machine only its own, so that no other site's name leads here."""
    return LOCAL if host in LOCAL else ("*",)


if __name__ == "__main__":
    sys.exit(run_script(main))
