"""The page of serve.py in a real browser. SCREENSHOTS=DIR saves screenshots."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.paths import REPOSITORY
from tests.serving.browser import Browser, browser
from tests.serving.server import MOST_FRAMES, running

TOKEN = "AbC-123_456.789~0"
SAMPLES = REPOSITORY / "data" / "samples"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Browser]:
    with browser(downloads) as window, running(tmp_path_factory.mktemp("model")) as port:
        window.driver.get(f"http://127.0.0.1:{port}/")
        window.wait("state.model")
        yield window


def snap(page: Browser, name: str) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.driver.save_screenshot(Path(folder) / f"{name}.png")


def move(page: Browser, slider: str, value: float) -> None:
    page.driver.execute_script(f"const s = $('{slider}'); s.value = {value}; s.dispatchEvent(new Event('input'))")


def test_an_image_and_its_threshold(page: Browser, downloads: Path) -> None:
    assert page.evaluate("document.title") == "small"
    snap(page, "start")
    page.choose_file("#file", SAMPLES / "scene1.jpg")
    page.wait("$('status').textContent === '64 objects.'")
    assert page.evaluate("[$('canvas').width, $('canvas').height]") == [640, 480]
    before = page.wait("$('canvas').getContext('2d').getImageData(0, 0, 640, 480).data.join()")
    snap(page, "image")
    move(page, "threshold", 0.95)
    assert page.evaluate("$('status').textContent") == "64 objects."  # all of 0.987
    page.driver.execute_script("$('threshold').max = 1")
    move(page, "threshold", 1)
    assert page.evaluate("$('status').textContent") == "No objects."
    assert before != page.evaluate("$('canvas').getContext('2d').getImageData(0, 0, 640, 480).data.join()")
    move(page, "threshold", 0.25)
    page.click("#download")
    report = json.loads(finished(downloads / "scene1.json"))
    assert report["file"] == "scene1.jpg" and report["complete"] is True and report["threshold"] == 0.25
    assert len(report["frames"]) == 1 and len(report["frames"][0]["detections"]) == 64


def test_a_clip(page: Browser) -> None:
    page.choose_file("#file", SAMPLES / "scenes.mp4")
    page.wait(f"state.frames.length === {MOST_FRAMES} && !state.complete")
    assert f"in frame 1 of {MOST_FRAMES}; only the first" in page.evaluate("$('status').textContent")
    move(page, "frame", 30)
    page.wait("$('time').textContent === '2.00 s'")
    snap(page, "clip")
    page.click("#play")
    page.wait("state.at > 32")
    page.click("#play")
    assert page.evaluate("$('play').textContent") == "Play"


def test_an_image_is_dropped(page: Browser) -> None:
    png = cv2.imencode(".png", np.full((32, 96, 3), 90, np.uint8))[1]
    text = base64.b64encode(png.tobytes()).decode()
    page.driver.execute_script(
        f"const bytes = Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0)); const moved = new DataTransfer();"
        "moved.items.add(new File([bytes], 'dropped.png')); const facts = {bubbles: true, dataTransfer: moved};"
        "$('drop').dispatchEvent(new DragEvent('dragover', facts)); $('drop').dispatchEvent(new DragEvent('drop', facts))"
    )
    page.wait("state.file === 'dropped.png' && $('canvas').width === 96 && $('status').textContent === '64 objects.'")
    assert page.evaluate("$('player').hidden && !$('stage').classList.contains('over')")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("notes.txt", b"just text", "notes.txt: upload: expected an image"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(9), "broken.png: upload: image is"),
        ("large.bin", bytes(1_000_000), "large.bin: larger than the limit of 0.9 MB."),
    ],
)
def test_errors_are_shown(page: Browser, tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    page.choose_file("#file", tmp_path / name)
    page.wait(f"$('error').textContent.startsWith('{text}') && !$('error').hidden && !$('drop').hidden")
    snap(page, f"error_{name}")


def test_the_console_shows_no_errors(page: Browser) -> None:
    assert [
        text for text in page.console_errors() if "status of 4" not in text
    ] == []  # the browser logs rejected uploads


def test_the_page_asks_for_the_token(tmp_path: Path, downloads: Path) -> None:
    with browser(downloads) as window, running(tmp_path, token=TOKEN) as port:
        window.driver.get(f"http://127.0.0.1:{port}/")
        window.wait("!$('login').hidden && $('main').hidden && $('refused').hidden")
        snap(window, "login")
        for token, condition in (
            ("wrong" + TOKEN, "!$('refused').hidden"),
            (TOKEN, "state.model && $('login').hidden"),
        ):
            window.driver.execute_script(f"$('token').value = '{token}'")
            window.click("#login button")
            window.wait(condition)
        window.choose_file("#file", SAMPLES / "scene1.jpg")
        window.wait("$('status').textContent === '64 objects.'")
        window.driver.refresh()
        window.wait("state.model && !$('main').hidden")


def finished(path: Path) -> str:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} was not downloaded"
        time.sleep(0.05)
    return path.read_text("utf-8")
