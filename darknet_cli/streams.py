"""Live results for other programs: JSON and MJPEG on a port, and HTTP posts (http_stream.cpp)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Sequence

from darknet_cli.network import stderr
from darknet_cli.objects import Box
from inference.results import shown
from utils.errors import InputError, RunError

_HEADER = (
    "HTTP/1.0 200 OK\r\nServer: Mozarella/2.2\r\nAccept-Range: bytes\r\nConnection: close\r\nMax-Age: 0\r\nExpires: 0\r\n"
    "Cache-Control: no-cache, private\r\nPragma: no-cache\r\nContent-Type: {}\r\n\r\n"
)
_SLOW = 0.4  # seconds after which a client that does not read is disconnected
_POST_TIMEOUT = 3.0


class Broadcaster:
    """Context manager that sends the same messages to every client of a port; requests are not read.

    Slow clients are disconnected.
    content_type: of the header.
    first, between, last: sent after the header, between two messages, and at the end.
    Raises RunError if the port cannot be used.
    """

    def __init__(
        self, port: int, content_type: str, *, first: bytes = b"", between: bytes = b"", last: bytes = b""
    ) -> None:
        self._head, self._between, self._last = _HEADER.format(content_type).encode() + first, between, last
        self.clients: dict[socket.socket, bool] = {}  # whether each has received a message
        self._lock = threading.Lock()
        try:
            self._server = socket.create_server(("", port))
        except OSError as error:
            raise RunError(f"port {port} cannot be opened: {error.strerror}") from None
        self.port = port
        self._thread = threading.Thread(target=self._accept, name=f"port {port}", daemon=True)
        self._thread.start()

    @classmethod
    def of_json(cls, port: int) -> Broadcaster:
        """Return a broadcaster of an endless JSON list, closed at the end."""
        return cls(port, "application/json", first=b"[\n", between=b", \n", last=b"\n]")

    @classmethod
    def of_mjpeg(cls, port: int) -> Broadcaster:
        """Return a broadcaster of images that a browser shows as a video; use `send_jpeg`."""
        return cls(port, "multipart/x-mixed-replace; boundary=mjpegstream")

    def __enter__(self) -> Broadcaster:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        with self._lock:
            for client in self.clients:
                with contextlib.suppress(OSError):
                    client.sendall(self._last)
                client.close()
            self.clients.clear()

    def send(self, message: bytes) -> None:
        with self._lock:
            for client, served in list(self.clients.items()):
                try:
                    client.sendall((self._between if served else b"") + message)
                    self.clients[client] = True
                except OSError:
                    client.close()
                    del self.clients[client]

    def send_jpeg(self, image: bytes) -> None:
        head = f"--mjpegstream\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
        self.send(head.encode() + image)

    def _accept(self) -> None:
        while True:
            try:
                client, (address, *_) = self._server.accept()
            except OSError:  # closed
                return
            client.settimeout(_SLOW)
            try:
                client.sendall(self._head)
            except OSError:
                client.close()
                continue
            stderr(f"new client {address}")
            with self._lock:
                self.clients[client] = False


def post_target(text: str) -> tuple[str, str]:
    """Return host (with a port other than 80) and path of -http_post_host. Raises InputError."""
    host, slash, path = text.removeprefix("http://").partition("/")
    if not host or not slash:
        raise InputError(f"-http_post_host {text}: expected HOST/PATH")
    return host, f"/{path}"


def post(target: tuple[str, str], boxes: Sequence[Box], names: Sequence[str], source: str) -> bool:
    """Post the first reported class of every box; return whether there was any. A failure is printed to stderr."""
    first = [next((class_id for class_id, _ in box.scores if shown(names, class_id)), None) for box in boxes]
    lines = [f"{names[class_id]}, id: {class_id}\n" for class_id in first if class_id is not None]
    if not lines:
        return False
    body = f"{''.join(lines)}\ntime:\n{time.strftime('%A %Y-%m-%d %H:%M:%S')}\nvideosource:\n{source}"
    connection = http.client.HTTPConnection(target[0], timeout=_POST_TIMEOUT)
    try:
        headers = {"Content-Type": "text/plain", "Accept": "*/*", "Connection": "close"}
        connection.request("POST", target[1], body.encode("utf-8", "replace"), headers)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        stderr(f"http://{target[0]}{target[1]}: {error}")
    finally:
        connection.close()
    return True
