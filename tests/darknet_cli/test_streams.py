"""Live streams and HTTP posts of `detector demo` over the loopback interface, compared with what the original sends."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import darknet
from darknet_cli.demo import _Outputs
from darknet_cli.streams import Broadcaster
from data.video import readable_frames
from tests.darknet_cli.inputs import free_port, prepare, write_inputs
from tests.darknet_cli.test_rows import ROWS
from utils.cli import run_script
from utils.errors import InputError, RunError

D = ["detector", "demo", "data/tiny.data", "cfg/det.cfg", "det.weights", "clip.avi", "-dont_show"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_inputs(tmp_path)
    prepare(tmp_path, "demo", "plain")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _all_of(client: socket.socket) -> bytes:
    client.settimeout(5)
    data = b""
    while part := client.recv(65536):
        data += part
    return data


def _head(case: str) -> bytes:
    """What the original sends before the first message."""
    start = ROWS["demo"][case]["client"]["start"]
    return start[: start.index("\r\n\r\n") + 4].encode()


def test_json_feed() -> None:
    with Broadcaster.of_json(free_port()) as feed:
        client = _connected(feed)
        feed.send(b'{"frame_id":1}')
        feed.send(b'{"frame_id":2}')
    head, _, body = _all_of(client).partition(b"\r\n\r\n")
    assert head + b"\r\n\r\n" == _head("json_port")
    assert json.loads(body) == [{"frame_id": 1}, {"frame_id": 2}]


def test_mjpeg_feed() -> None:
    with Broadcaster.of_mjpeg(free_port()) as feed:
        client = _connected(feed)
        feed.send_jpeg(b"\xff\xd8\xff one")
        feed.send_jpeg(b"\xff\xd8\xff two")
    data = _all_of(client)
    assert data.startswith(_head("mjpeg_port"))
    parts = re.findall(rb"--mjpegstream\r\nContent-Type: image/jpeg\r\nContent-Length: 7\r\n\r\n(.{7})", data)
    assert parts == [b"\xff\xd8\xff one", b"\xff\xd8\xff two"]


def _connected(feed: Broadcaster) -> socket.socket:
    """A client that the feed has registered: it has received the head."""
    client = socket.create_connection(("127.0.0.1", feed.port), timeout=5)
    assert client.recv(1, socket.MSG_PEEK)
    while not feed.clients:
        pass
    return client


def test_a_client_that_does_not_read_is_dropped() -> None:
    with Broadcaster.of_json(free_port()) as feed:
        client = _connected(feed)
        for _ in range(200):
            feed.send(b"x" * 1_000_000)
            if not feed.clients:
                break
        assert not feed.clients
        client.close()


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("", 0)) as server, pytest.raises(RunError, match="cannot be opened"):
        Broadcaster.of_json(server.getsockname()[1])


def test_posts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/hook" and self.headers["Content-Type"] == "text/plain"
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert darknet.main([*D, "-http_post_host", f"127.0.0.1:{server.server_port}/hook"]) == 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    recorded = [text.partition("\r\n\r\n")[2] for text in ROWS["demo"]["http_post_host"]["client"]]
    date = re.compile(r"\w+ \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
    assert [date.sub("date", text) for text in bodies[: len(recorded)]] == [date.sub("date", text) for text in recorded]


def test_a_host_without_path_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="HOST/PATH"):
        darknet.main([*D, "-http_post_host", "localhost"])


def test_layer_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of network_kernels.cu; without them, the output equals that of the recorded command."""
    words = ["detector", "test", "data/tiny.data", "cfg/det.cfg", "det.weights", "img/a2.png", "-dont_show"]
    assert darknet.main([*words, "-benchmark_layers"]) == 0
    said = capsys.readouterr().out
    layer = re.compile(r"\n fw-layer (\d+) - type: (\d+) - \d+\.\d{6} ms - avg_time \d+\.\d{6} ms \n")
    kinds = [0, 0, 0, 0, 0, 0, 28, 9, 33, 9, 0, 28]
    assert layer.findall(said) == [(str(index), str(kind)) for index, kind in enumerate(kinds)]
    sorted_line = re.compile(r"(\d+) - fw-sort-layer (\d+) - type: \d+ - avg_time (\d+\.\d{6}) ms \n")
    ranks = sorted_line.findall(said)
    assert [int(rank) for rank, _, _ in ranks] == list(range(12)) == sorted(int(index) for _, index, _ in ranks)
    assert [spent for _, _, spent in ranks] == sorted((spent for _, _, spent in ranks), key=float, reverse=True)
    rest = sorted_line.sub("", layer.sub("", said)).replace("\n\nSorted by time (forward):\n", "")
    mask = re.compile(r"Predicted in [0-9.]+")
    assert mask.sub("", rest) == mask.sub("", ROWS["detector_test"]["benchmark_layers"]["stdout"])


def test_classifier_demo(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["classifier", "demo", "data/cls.data", "cfg/cls.cfg", "cls.weights", "clip.avi", "-dont_show"]
    assert darknet.main(words) == 0
    frames = capsys.readouterr().out.split("\x1b[H\x1b[J")
    assert frames[0].startswith("Classifier Demo\nmini_batch = 1, batch = 1, time_steps = 1, train = 0 \n")
    assert len(frames) == 1 + 12
    expected = r"\rFPS: \d+\.\d\d  \(use -benchmark command line flag for correct measurement\)\n(\d+\.\d%: \w+\n){2}\n"
    assert all(re.fullmatch(expected, text) for text in frames[1:])


def test_ctrl_c_completes_the_video(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = _Outputs.add

    def interrupted(self: _Outputs, *arguments: Any) -> None:
        add(self, *arguments)
        if self._count == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_Outputs, "add", interrupted)
    assert run_script(darknet.main, [*D, "-out_filename", "out.mp4"]) == 130
    assert readable_frames(Path("out.mp4")) == 2


def test_classifier_benchmark(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def stdout(text: str) -> None:
        said.append(text)
        if len(said) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr("darknet_cli.demo.stdout", stdout)
    words = ["classifier", "demo", "data/cls.data", "cfg/cls.cfg", "cls.weights", "clip.avi", "-benchmark"]
    with pytest.raises(KeyboardInterrupt):
        darknet.main(words)
    assert said[1::2] == ["\x1b[H\x1b[J"] * 4
    assert said[2] == "\rFPS: 0.00 \t AVG_FPS = 0.00 "
