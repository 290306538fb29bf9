"""The HTTP server around the application: its sockets, headers and time limits."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from utils.errors import RunError

LOCAL = ("127.0.0.1", "localhost", "[::1]")
CONNECTIONS = 512
REQUEST_S = 10.0
"""Time limit from the start of a connection, or the last response, to the end of the next request's headers."""
UNREAD_S = 30
"""Time for which a client may leave a response unread."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return a server for an application; it adds security headers to every response."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_level="error",
        headers=list(_HEADERS.items()),
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


class Connection(H11Protocol):
    """An HTTP/1.1 connection, closed if the client is slow to send its headers or the rest of a rejected body."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._restart()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _restart(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(REQUEST_S, self._end)

    def _end(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises RunError."""
    try:
        place = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen: {error.strerror or error}") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
    return place


def is_local(host: str) -> bool:
    """Return whether an address to listen on is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Return the host names that requests may use: for a local address only local ones, against DNS rebinding."""
    return LOCAL if is_local(host) else ("*",)
