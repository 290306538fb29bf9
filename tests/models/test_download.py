"""Downloads from a local server: resuming, size checks, and web pages instead of files."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import convert
from models.published import PUBLISHED, download, find_published
from utils.cli import run_script
from utils.errors import InputError, RunError

DATA = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """/file: DATA, or the requested range; /cut: ends early; /page, /quota: HTML; /whole: ignores ranges."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Handler.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/whole" else 0
        if self.path in ("/page", "/quota"):
            kind = "text/html; charset=utf-8" if self.path == "/page" else "application/octet-stream"
            self.answer(200, b"<!DOCTYPE html><title>Quota exceeded</title>", kind)
        elif self.path == "/absent":
            self.send_error(404)
        elif start >= len(DATA):
            self.send_error(416)
        else:
            body = DATA[start:]
            sent = body[:300_000] if self.path == "/cut" and start == 0 else body
            self.answer(206 if start else 200, sent, "application/octet-stream", len(body))

    def answer(self, status: int, body: bytes, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    Handler.asked.clear()


SIZE = len(DATA)


def test_a_file_is_downloaded_once(server: str, tmp_path: Path) -> None:
    path = download(f"{server}/file", tmp_path / "new" / "a.weights", SIZE)
    assert path.read_bytes() == DATA and [each.name for each in path.parent.iterdir()] == ["a.weights"]
    download(f"{server}/file", path, SIZE)
    assert Handler.asked == [None]


def test_a_checksum(server: str, tmp_path: Path) -> None:
    path, wanted = tmp_path / "a", hashlib.sha256(DATA).hexdigest()
    with pytest.raises(RunError, match=f"has the SHA-256 {wanted}, expected 000"):
        download(f"{server}/file", path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert download(f"{server}/file", path, sha256=wanted.upper()).read_bytes() == DATA
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(RunError, match="SHA-256"):
        download(f"{server}/file", path, SIZE, wanted)


def test_the_command_prints_and_checks_the_checksum(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.published.ABOUT", 1e9)
    wanted = hashlib.sha256(DATA).hexdigest()
    words = ["fetch", "yolov4-tiny", "--out", str(tmp_path), "--url", f"{server}/file", "--sha256"]
    assert run_script(convert.main, [*words, wanted]) == 0 and wanted in capsys.readouterr().out
    assert run_script(convert.main, [*words, "0" * 64]) == 1
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        convert.main([*words, "abc"])


def test_an_interrupted_download_is_resumed(server: str, tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    with pytest.raises(RunError, match="run the same command again"):
        download(f"{server}/cut", path, SIZE)
    assert not path.exists() and (tmp_path / "a.weights.part").stat().st_size == 300_000
    assert download(f"{server}/cut", path, SIZE).read_bytes() == DATA
    assert Handler.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize(("have", "where"), [(1000, "/whole"), (len(DATA), "/file")])
def test_servers_without_ranges_and_complete_part_files(server: str, tmp_path: Path, have: int, where: str) -> None:
    (tmp_path / "a.part").write_bytes(DATA[:have])
    assert download(server + where, tmp_path / "a", SIZE).read_bytes() == DATA


@pytest.mark.parametrize(
    ("where", "wanted", "message"),
    [
        ("/page", None, "web page"),
        ("/quota", None, "web page"),
        ("/absent", None, "404"),
        ("/file", 2 * SIZE, "expected about"),
    ],
)
def test_wrong_content_is_rejected(server: str, tmp_path: Path, where: str, wanted: int | None, message: str) -> None:
    with pytest.raises(RunError, match=message):
        download(server + where, tmp_path / "a", wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "a.weights"])
def test_other_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http"):
        download(url, tmp_path / "a")


def test_an_unreachable_server(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="again"):
        download("http://127.0.0.1:1/a", tmp_path / "a")


def test_commands(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main(["fetch"]) == 0
    assert all(row.name in capsys.readouterr().out for row in PUBLISHED[:1])
    where = ["--url", f"{server}/file", "--out", str(tmp_path)]
    assert convert.main(["fetch", "yolov3-tiny", *where]) == 0
    assert (tmp_path / "yolov3-tiny.weights").read_bytes() == DATA
    with pytest.raises(InputError, match="yolov4-tiny"):
        convert.main(["fetch", "yolo4-tiny", *where])


def test_table() -> None:
    assert len({row.name for row in PUBLISHED}) == len(PUBLISHED) == len({row.url for row in PUBLISHED})
    assert all(row.url.startswith("https://") and "/" not in row.file for row in PUBLISHED)
    assert find_published("enet-coco").file == "enet-coco.weights"


def test_an_impossible_file_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a{300}"):
        download("http://127.0.0.1:9/x", tmp_path / ("a" * 300))
