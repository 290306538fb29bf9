"""A headless Chromium for tests, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900")


class Browser:
    """A browser window; `driver` is Selenium's."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}")

    def wait(self, condition: str, seconds: float = 30) -> Any:
        """Wait until a JavaScript expression is true; returns its value."""
        return WebDriverWait(self.driver, seconds, 0.05).until(
            lambda _: self.evaluate(condition), f"never true: {condition}"
        )

    def choose_file(self, selector: str, path: Path) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(str(path.resolve()))

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def console_errors(self) -> list[str]:
        """Errors logged to the console so far."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser that saves downloads in a folder. Skips the test if Chromium or its driver is missing."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, Service(driver)) as window:
        yield Browser(window)
