"""Serve a Darknet model with a small web page and a JSON endpoint.

examples:
  python serve.py
  python serve.py --cfg yolov4.cfg --weights yolov4.weights --names coco.names --port 8080
  curl -F image=@street.jpg "http://127.0.0.1:8000/detect?conf=0.4"
  CSPYOLO_TOKEN=... python serve.py --host 0.0.0.0
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.first_look import with_shipped_model
from inference.model import ModelFlags
from utils.cli import EXIT_OK, above_zero, flags_of, number, options_from, positive, run_script, script_parser
from utils.errors import InputError
from utils.files import read_text
from utils.packages import is_installed

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "CSPYOLO_TOKEN"
_PORT = number(int, 0, 65535, "port from 0 to 65535")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelFlags):
    """The flags of serve.py."""

    host: str
    port: int
    max_upload: int
    max_frames: int
    max_queue: int
    batch_size: int
    upload_timeout: float
    token: str | None
    token_file: str | None


def parse_arguments(arguments: Sequence[str] | None) -> ServeOptions:
    parser = script_parser("serve.py", __doc__)
    add = flags_of(parser)
    ModelFlags.add(add)
    add("--data", dest="names", metavar="FILE", help="same as --names, for a .data file with 'names'")
    add("--host", default="127.0.0.1", help="address to listen on; default: this machine only; 0.0.0.0: all networks")
    add("--port", type=_PORT, default=8000, metavar="N", help="port to listen on, default %(default)s")
    add("--max-upload", type=above_zero, default=64, metavar="MB", help="largest upload, default %(default)s MB")
    add("--max-frames", type=above_zero, default=600, metavar="N", help="frames read from a video, default %(default)s")
    text = "maximum number of uploads at a time, default %(default)s; more get status 503"
    add("--max-queue", type=above_zero, default=16, metavar="N", help=text)
    add("--batch-size", default=8, help="maximum number of images per batch, default %(default)s")
    text = "seconds after which uploads slower than 20 kB/s are aborted, default %(default)g"
    add("--upload-timeout", type=positive, default=10.0, metavar="S", help=text)
    text = f"token that requests must send; {TOKEN_VARIABLE} and --token-file keep it out of the process list"
    add("--token", help=text)
    add("--token-file", metavar="FILE", help="file that contains the token")
    return options_from(ServeOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for package in ("starlette", "uvicorn", "python-multipart"):
        if not is_installed(package.replace("-", "_")):
            raise InputError(f"serve.py needs {package}: pip install -r requirements-serve.txt")
    from serving.app import Limits, make_app
    from serving.server import allowed_hosts, is_local, listen, make_server
    from serving.service import DetectionService

    token = token_of(options)
    if token is None and not is_local(options.host):
        logger.warning(
            "--host %s: everyone who can reach this address can use the server; protect it with --token or a proxy",
            options.host,
        )
    options = with_shipped_model(options)
    model = options.open_named()
    model.expect(None)
    limits = Limits(
        upload_bytes=options.max_upload * 1_000_000,
        upload_s=options.upload_timeout,
        queue=options.max_queue,
        hosts=allowed_hosts(options.host),
        token=token,
    )
    title = Path(options.weights or "").stem
    service = DetectionService(model, most_frames=options.max_frames, batch_size=options.batch_size)
    with service, listen(options.host, options.port) as place:
        port = place.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"{title} on {model.device} with {model.engine}: http://{host}:{port}/  (Ctrl-C to stop)", flush=True)
        make_server(make_app(service, title, limits)).run(sockets=[place])
    return EXIT_OK


def token_of(options: ServeOptions) -> str | None:
    """Return the token of --token, --token-file or the environment, or None. Raises InputError for an unsuitable one."""
    in_environment = os.environ.pop(TOKEN_VARIABLE, None)  # hide it from the processes that decode uploads
    if options.token is not None and options.token_file is not None:
        raise InputError("--token-file and --token cannot be combined")
    if options.token is not None:
        place, token = "--token", options.token
    elif options.token_file is not None:
        place, token = f"--token-file {options.token_file}", read_text(options.token_file, "token").strip()
    elif in_environment is not None:
        place, token = TOKEN_VARIABLE, in_environment
    else:
        return None
    if not _TOKEN.fullmatch(token):
        text = "expected at least 16 letters, digits or -._~+/="
        raise InputError(
            f"{place}: {text}, such as those of python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


if __name__ == "__main__":
    sys.exit(run_script(main))
