"""A headless Chromium, driven by the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference to an element
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"]


class Browser:
    """One window. Errors of the browser are AssertionErrors with its own words."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, path: str, **values: Any) -> Any:
        body = json.dumps(values).encode() if method == "POST" else None
        request = urllib.request.Request(
            self._address + path, body, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def run(self, script: str) -> Any:
        """What the body of a JavaScript function returns."""
        return self.call("POST", "/execute/sync", script=script, args=[])

    def wait(self, condition: str, seconds: float = 30) -> Any:
        """The first true value of a JavaScript expression."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)
        return found

    def choose_file(self, selector: str, path: Path) -> None:
        element = self.call("POST", "/element", using="css selector", value=selector)[_ELEMENT]
        self.call("POST", f"/element/{element}/value", text=str(path.resolve()))

    def click(self, selector: str) -> None:
        element = self.call("POST", "/element", using="css selector", value=selector)[_ELEMENT]
        self.call("POST", f"/element/{element}/click")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """Errors in the console so far."""
        return [each["message"] for each in self.call("POST", "/se/log", type="browser") if each["level"] == "SEVERE"]


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser that saves downloads in a folder; skips the test where there is no chromedriver."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs chromedriver and Chromium (Debian: apt-get install chromium-driver)")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True, env=os.environ | {"LANG": "C"})
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "started successfully on port" in line)
        port = re.findall(r"port (\d+)", line)[0]
        chrome = {"args": _FLAGS, "prefs": {"download.default_directory": str(downloads)}}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        session = Browser(f"http://127.0.0.1:{port}").call("POST", "/session", capabilities={"alwaysMatch": wanted})[
            "sessionId"
        ]
        window = Browser(f"http://127.0.0.1:{port}/session/{session}")
        try:
            yield window
        finally:
            window.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
