"""The JSON endpoint of serve.py, over HTTP, with a network whose boxes are known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.paths import REPOSITORY
from tests.serving.server import MOST_FRAMES, UPLOAD_BYTES, ask, running, told

CLIP = (REPOSITORY / "data" / "samples" / "scenes.mp4").read_bytes()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(tmp_path_factory.mktemp("model")) as found:
        yield found


def image(suffix: str, width: int = 128, height: int = 64) -> bytes:
    return bytes(cv2.imencode(suffix, np.full((height, width, 3), 90, np.uint8))[1])


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
        ("/detect", image(".png"), "text/plain", 415, "Content-Type text/plain"),
        ("/detect", image(".png"), "multipart/form-data", 415, "Content-Type multipart"),
        ("/detect", b"", "image/png", 400, "is empty"),
        ("/detect", image(".png")[:-20], "image/png", 422, "upload: image is"),
        ("/detect", CLIP[:3000], "video/mp4", 422, "upload: video"),
        ("/stream", CLIP[:3000], "video/mp4", 422, "upload: video"),
        ("/detect", bytes(UPLOAD_BYTES + 1), "image/png", 413, "expected at most 900,000"),
        ("/detect?conf=2", image(".png"), "image/png", 400, "conf=2: expected a number from 0.01 to 1"),
        ("/detect?conf=nan", image(".png"), "image/png", 400, "conf=nan"),
        ("/detect?treshold=1", image(".png"), "image/png", 400, "treshold: unknown parameter"),
        ("/stream?iou=x", image(".png"), "image/png", 400, "iou=x"),
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


def test_a_body_longer_than_it_says_is_cut_off(port: int) -> None:
    status, _, body = ask(port, "POST", "/detect", None, **{"Content-Type": "image/png", "Content-Length": "0"})
    assert status == 400 and "empty" in told(body)["error"]


def test_other_names_for_this_machine_are_refused(port: int) -> None:
    assert ask(port, "GET", "/model", Host="evil.example")[0] == 400
    assert ask(port, "GET", "/model", Host=f"localhost:{port}")[0] == 200


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
    json.dumps(facts)
