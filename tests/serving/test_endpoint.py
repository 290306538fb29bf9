"""The JSON endpoint of serve.py, over HTTP, with a network whose boxes are known."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.model import open_model
from models.load import load
from models.weights import save_weights
from tests.paths import REPOSITORY
from tests.serving.server import MOST_FRAMES, QUEUE, UPLOAD_BYTES, ask, running, served, told
from tests.serving.test_decoder import bad_decoders

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from serving import server

CLIP = (REPOSITORY / "data" / "samples" / "scenes.mp4").read_bytes()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(tmp_path_factory.mktemp("model")) as found:
        yield found


def image(suffix: str, width: int = 128, height: int = 64) -> bytes:
    return bytes(cv2.imencode(suffix, np.full((height, width, 3), 90, np.uint8))[1])


FORM = "multipart/form-data; boundary=b"


def form(*files: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="dog.jpg"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--b--\r\n"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_an_image(port: int, suffix: str) -> None:
    status, headers, body = ask(port, "POST", "/detect", image(suffix), "image/" + suffix[1:])
    assert status == 200 and headers["content-type"] == "application/json"
    (frame,) = told(body)["frames"]
    assert told(body)["complete"] is True
    assert (frame["width"], frame["height"], frame["index"], len(frame["detections"])) == (128, 64, 0, 64)
    first = min(frame["detections"], key=lambda each: each["xyxy"])
    assert first == {
        "xyxy": [-8.0, -4.0, 24.0, 12.0],
        "score": pytest.approx(0.987, abs=1e-3),
        "class_id": 1,
        "name": "dog",
    }


def test_a_form(port: int) -> None:
    """A form as sent by `curl -F image=@dog.jpg`; pages of other sites may not send it."""
    status, _, body = ask(port, "POST", "/detect?conf=0.5", form(image(".jpg")), FORM)
    assert status == 200 and len(told(body)["frames"][0]["detections"]) == 64
    lines = ask(port, "POST", "/stream", form(CLIP), FORM)[2].splitlines()
    assert len(lines) == MOST_FRAMES + 1
    assert ask(port, "POST", "/detect", form(image(".jpg")), FORM, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert ask(port, "POST", "/detect", form(image(".jpg")), FORM, Origin="http://[")[0] == 403
    status, _, body = ask(port, "POST", "/detect", form(image(".jpg")), FORM, Origin="http://evil.example")
    assert status == 403 and "other sites are rejected" in told(body)["error"]


def test_a_form_with_more_than_its_file(port: int) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="conf"\r\n\r\n0.4\r\n'
    status, _, body = ask(port, "POST", "/detect", field + form(image(".jpg")), FORM)
    assert status == 400 and "pass conf and iou in the URL" in told(body)["error"]


def metric(port: int, name: str) -> float:
    text = ask(port, "GET", "/metrics")[2].decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def wait_for(port: int, name: str, value: float) -> None:
    deadline = time.monotonic() + 10
    while metric(port, name) != value:
        assert time.monotonic() < deadline, f"{name} does not become {value}"
        time.sleep(0.01)


def test_metrics(port: int) -> None:
    good, bad = (f'cspyolo_requests_total{{path="/detect",status="{status}"}}' for status in (200, 415))
    before = [metric(port, name) for name in (good, bad, "cspyolo_inference_seconds_count")]
    ask(port, "POST", "/detect", image(".png"))
    ask(port, "POST", "/detect", b"hello there, this is text")
    after = [metric(port, name) for name in (good, bad, "cspyolo_inference_seconds_count")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1]
    assert metric(port, "cspyolo_queue_length") == 0 and metric(port, "cspyolo_inference_seconds_sum") > 0
    assert 0 < metric(port, 'cspyolo_request_seconds_sum{path="/detect"}') < 60
    headers = ask(port, "GET", "/metrics")[1]
    assert headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_full_queue(port: int) -> None:
    """Uploads that are still being received count towards the queue."""
    refused = 'cspyolo_requests_total{path="/detect",status="503"}'
    before = metric(port, refused)
    uploads = [socket.create_connection(("127.0.0.1", port)) for _ in range(QUEUE)]
    for upload in uploads:
        upload.sendall(
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n1"
        )
    wait_for(port, "cspyolo_queue_length", QUEUE)
    status, headers, body = ask(port, "POST", "/detect", image(".png"))
    assert status == 503 and int(headers["retry-after"]) >= 1 and "busy: 2 requests" in told(body)["error"]
    assert metric(port, refused) == before + 1 and ask(port, "GET", "/model")[0] == 200
    for upload in uploads:
        upload.close()
    wait_for(port, "cspyolo_queue_length", 0)
    assert ask(port, "POST", "/detect", image(".png"))[0] == 200


def test_a_classifier(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(
        "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=3\nsize=1\nactivation=linear\n"
        "[avgpool]\n[softmax]\n"
    )
    network = load(tmp_path / "a.cfg")
    biases = network.layers[0].biases
    biases.data[:] = biases.new_tensor([0, 9, 3])
    save_weights(network, tmp_path / "a.weights")
    model = open_model(tmp_path / "a.weights", cfg=tmp_path / "a.cfg", names=("a", "b", "c"), device="cpu")
    with running(tmp_path, model) as own:
        assert told(ask(own, "GET", "/model")[2])["task"] == "classify"
        (frame,) = told(ask(own, "POST", "/detect", image(".png"))[2])["frames"]
        assert [each["name"] for each in frame["classes"]] == ["b", "c", "a"] and "detections" not in frame
        status, _, body = ask(own, "POST", "/detect?conf=0.5", image(".png"))
        assert status == 400 and "conf: the model is a classifier" in told(body)["error"]


def test_a_clip_stops_at_the_limit(port: int) -> None:
    status, _, body = ask(port, "POST", "/detect", CLIP, "video/mp4")
    answer = told(body)
    assert status == 200 and answer["complete"] is False and len(answer["frames"]) == MOST_FRAMES
    assert [frame["index"] for frame in answer["frames"]] == list(range(MOST_FRAMES))
    assert answer["frames"][3]["time_s"] == pytest.approx(0.2)


def test_lines_while_a_clip_is_read(port: int) -> None:
    status, headers, body = ask(port, "POST", "/stream?images=1", CLIP)
    lines = [told(line) for line in body.splitlines()]
    assert status == 200 and headers["content-type"] == "application/x-ndjson"
    assert len(lines) == MOST_FRAMES + 1 and lines[-1] == {"complete": False}
    assert all(line["jpeg"] for line in lines[:-1])


def test_a_threshold(port: int) -> None:
    assert told(ask(port, "POST", "/detect?conf=0.99", image(".png"))[2])["frames"][0]["detections"] == []


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "text"),
    [
        ("/detect", b"hello there, this is text", "image/png", 415, "expected an image"),
        ("/detect", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "video/mp4", 415, "expected an image"),
        ("/detect", image(".png"), "text/plain", 415, "Content-Type: expected image"),
        ("/detect", image(".png"), "multipart/form-data", 400, "form: Missing boundary"),
        ("/detect", form(image(".png"), image(".png")), FORM, 400, "Expected one file"),
        ("/detect", form(), FORM, 400, "is empty"),
        ("/detect", form(b""), FORM, 400, "is empty"),
        ("/detect", form(b"hello there, this is text"), FORM, 415, "expected an image"),
        ("/detect", form(bytes(UPLOAD_BYTES)), FORM, 413, "expected at most 900,000"),
        ("/detect", b"", "image/png", 400, "is empty"),
        ("/detect", image(".png")[:-20], "image/png", 422, "upload: image is"),
        ("/detect", CLIP[:3000], "video/mp4", 422, "upload: video"),
        ("/stream", CLIP[:3000], "video/mp4", 422, "upload: video"),
        ("/detect", bytes(UPLOAD_BYTES + 1), "image/png", 413, "expected at most 900,000"),
        ("/detect?conf=2", image(".png"), "image/png", 400, "conf: expected a number from 0.01 to 1"),
        ("/detect?conf=nan", image(".png"), "image/png", 400, "conf: expected"),
        ("/detect?treshold=1", image(".png"), "image/png", 400, "unknown query parameter"),
        ("/stream?iou=x", image(".png"), "image/png", 400, "iou: expected a number from 0 to 1"),
        ("/nothing", b"x", "image/png", 404, "Not Found"),
    ],
)
def test_errors_are_readable(port: int, path: str, body: bytes, kind: str, status: int, text: str) -> None:
    found, headers, answer = ask(port, "POST", path, body, kind)
    assert found == status and text in told(answer)["error"]
    assert tempfile.gettempdir() not in told(answer)["error"] and headers["x-content-type-options"] == "nosniff"


def test_a_huge_image_is_refused_before_it_is_decoded(port: int) -> None:
    png = bytearray(image(".png"))
    png[16:24] = (30_000).to_bytes(4, "big") * 2
    status, _, body = ask(port, "POST", "/detect", bytes(png))
    assert status == 422 and "30000x30000" in told(body)["error"]


def test_a_body_longer_than_declared_is_cut_off(port: int) -> None:
    status, _, body = ask(port, "POST", "/detect", None, **{"Content-Type": "image/png", "Content-Length": "0"})
    assert status == 400 and "empty" in told(body)["error"]


def test_other_host_names_are_rejected(port: int) -> None:
    assert ask(port, "GET", "/model", Host="evil.example")[0] == 400
    assert ask(port, "GET", "/model", Host=f"localhost:{port}")[0] == 200


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of a server that waits at most half a second for missing data."""
    monkeypatch.setattr(server, "REQUEST_S", 0.5)
    with served(tmp_path, upload_s=0.5) as (port, _):
        yield port


def ended(port: int, *parts: bytes) -> bytes:
    """Send the parts with pauses; returns what the server answers before it closes the connection, within 5 s."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


HEAD = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


def test_slow_clients_are_disconnected(impatient: int) -> None:
    answer = ended(impatient, HEAD % 500_000, b"1", b"2")
    assert answer.startswith(b"HTTP/1.1 408") and b"is slower than 20 kB/s" in answer
    form_head = HEAD.replace(b"image/png", FORM.encode()) % 500
    assert ended(impatient, form_head + form(b"1")[:60]).startswith(b"HTTP/1.1 408")
    assert ended(impatient) == b""  # sends nothing
    assert ended(impatient, b"GET / HTTP/1.1\r\n", b"Host: loc") == b""
    assert ended(impatient, HEAD % 950_000, b"1").startswith(b"HTTP/1.1 413")  # the rest does not arrive
    assert ask(impatient, "POST", "/detect", image(".png"))[0] == 200
    assert metric(impatient, 'cspyolo_requests_total{path="/detect",status="408"}') == 2


def test_a_fast_upload_may_take_longer(impatient: int) -> None:
    body = image(".bmp", 256, 256)
    parts = [body[at : at + 20_000] for at in range(0, len(body), 20_000)]
    with socket.create_connection(("127.0.0.1", impatient), timeout=5) as connection:
        connection.sendall(HEAD % len(body))
        for part in parts:
            connection.sendall(part)
            time.sleep(0.1)
        assert len(parts) * 0.1 > 0.5 and connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_client_that_disconnects(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as own:
        with socket.create_connection(("127.0.0.1", own)) as connection:
            connection.sendall(HEAD % 100 + b"1")
            wait_for(own, "cspyolo_queue_length", 1)
        wait_for(own, "cspyolo_queue_length", 0)
        assert metric(own, 'cspyolo_requests_total{path="/detect",status="499"}') == 1
    assert "Traceback" not in capfd.readouterr().err


def test_a_video_ends_with_its_client(tmp_path: Path) -> None:
    with served(tmp_path) as (own, service):
        processes = len(service.decoders.pids)
        for path in ("/detect", "/stream?images=1"):
            before = service.network.images
            with socket.create_connection(("127.0.0.1", own)) as connection:
                connection.sendall(HEAD.replace(b"/detect", path.encode()) % len(CLIP) + CLIP)
                while service.network.images == before:
                    time.sleep(0.001)
            wait_for(own, "cspyolo_queue_length", 0)
            assert service.network.images - before < MOST_FRAMES and len(service.decoders.pids) == processes


def test_a_crash_of_a_decoder_costs_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_decoders(monkeypatch, "os.kill(os.getpid(), 11)")
    with served(tmp_path) as (own, service):
        monkeypatch.undo()
        for _ in range(len(service.decoders.pids)):
            status, _, body = ask(own, "POST", "/detect", image(".png"))
            assert status == 422 and "crashes its decoder" in told(body)["error"]
        assert ask(own, "POST", "/detect", image(".png"))[0] == 200


TOKEN = "AbC-123_456.789~0"


def test_a_token(tmp_path: Path) -> None:
    with running(tmp_path, token=TOKEN) as own:
        for given in (
            {},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": "Bearer"},
        ):
            for method, path in (
                ("GET", "/model"),
                ("GET", "/metrics"),
                ("POST", "/detect"),
                ("POST", "/stream"),
                ("GET", "/no"),
            ):
                status, headers, body = ask(
                    own, method, path, image(".png") if method == "POST" else None, FORM, **given
                )
                assert status == 401 and headers["www-authenticate"] == "Bearer" and "token" in told(body)["error"]
        assert [ask(own, "GET", path)[0] for path in ("/", "/page.js", "/page.css")] == [
            200
        ] * 3  # the page prompts for it
        right = {"Authorization": f"bearer {TOKEN}"}
        assert ask(own, "POST", "/detect", image(".png"), **right)[0] == 200
        assert b'status="401"' not in ask(own, "GET", "/metrics", None, **right)[2]  # it did not enter the queue


@pytest.mark.parametrize(
    "path",
    [
        "/../serve.py",
        "/%2e%2e/serve.py",
        "//etc/passwd",
        "/page/page.js",
        "/page.js/../../serve.py",
        "/page.js%00",
        "/serving/app.py",
    ],
)
def test_no_file_of_the_server_is_readable(port: int, path: str) -> None:
    status, headers, body = ask(port, "GET", path)
    assert status == 404 and told(body) == {"error": "Not Found"} and headers["x-content-type-options"] == "nosniff"


def test_nothing_is_repeated(port: int) -> None:
    mark = "<script>mark</script>"
    for method, path, kind, headers in (
        ("GET", f"/{mark}", "image/png", {}),
        ("POST", f"/detect?conf={mark}", "image/png", {}),
        ("POST", f"/detect?{mark}=1", "image/png", {}),
        ("POST", "/detect", mark, {}),
        ("POST", "/detect", FORM, {"Origin": f"http://{mark}"}),
        ("POST", "/detect", f"multipart/form-data; boundary={mark}", {}),
        ("POST", "/detect", "image/png", {"Host": mark}),
    ):
        status, _, body = ask(port, method, path.replace("<", "%3C"), mark.encode() * 5, kind, **headers)
        assert status >= 400 and b"mark" not in body


def test_other_sites_are_not_allowed(port: int) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, headers, _ = ask(port, "OPTIONS", "/detect", None, **asked)
    assert status == 405 and not [name for name in headers if name.startswith("access-control")]
    status, headers, _ = ask(port, "GET", "/model", Origin="http://evil.example")
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["cross-origin-resource-policy"] == "same-origin" and "server" not in headers


def test_nothing_is_left_behind(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for path, body in (("/detect", image(".png")), ("/stream", CLIP), ("/stream", CLIP[:3000]), ("/detect", b"")):
        ask(port, "POST", path, body)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")]
)
def test_the_page_is_served(port: int, path: str, kind: str) -> None:
    status, headers, body = ask(port, "GET", path)
    assert status == 200 and headers["content-type"].startswith(kind) and body
    assert "default-src 'none'" in headers["content-security-policy"]


def test_facts_of_the_model(port: int) -> None:
    facts = told(ask(port, "GET", "/model")[2])
    assert facts["title"] == "small" and facts["classes"] == ["cat", "dog"] and facts["input"] == [64, 64]
    assert len(set(facts["colours"])) == 2 and facts["upload_bytes"] == UPLOAD_BYTES
    assert facts["engine"] == "PyTorch, fp32"
    json.dumps(facts)
