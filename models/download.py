"""Downloads that go on where they were cut off, and that are what they should be before they get their name."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from utils.errors import InputError, RunError

_CHUNK = 1 << 20
_TIMEOUT_S = 30
ABOUT = 0.08  # sizes given in megabytes are of 10 ** 6 bytes or of 2 ** 20, and rounded
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


@dataclass(frozen=True, kw_only=True)
class ExpectedFile:
    """What is known of a file beforehand: its size in bytes, or about (see ABOUT); SHA-256 in hex."""

    size: int | None = None
    about: int | None = None
    sha256: str | None = None


def download(url: str, path: str | Path, expected: ExpectedFile | None = None) -> Path:
    """Fetch `url` to `path`; what arrived of an earlier attempt stays in `path`.part and is continued.

    A file that is already there and fits is left alone. Raises InputError for addresses that are none, RunError for failed
    transfers, for pages in the place of the file, and for files that are not what was expected.
    """
    path, wanted = Path(path), expected or ExpectedFile()
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url}: expected an address that begins with https:// or http://")
    if path.exists():
        _check(path, wanted)
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, path.name)
    except urllib.error.HTTPError as error:
        raise RunError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(f"{url}: {reason}; run the same command again to go on where it stopped") from error
    except OSError as error:
        raise RunError(f"{part}: cannot be written: {error.strerror or error}") from error
    try:
        _check(part, wanted)
    except RunError:
        part.unlink()
        raise
    part.replace(path)
    return path


def _transfer(url: str, part: Path, title: str) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies behind what is there already
            raise
        return
    with response:
        resumed = response.status == 206
        if not resumed and "text/html" in response.headers.get("Content-Type", ""):
            raise RunError(
                f"{url}: is a web page (a notice or a quota page perhaps), not the file; open it in a browser"
            )
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        with part.open("ab" if resumed else "wb") as stream:
            _copy(response, stream, title, have if resumed else 0, total)
    if total is not None and part.stat().st_size < total:
        raise HTTPException(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def _copy(source: BinaryIO, target: BinaryIO, title: str, done: int, total: int | None) -> None:
    with tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=title) as bar:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            bar.update(len(chunk))
        target.flush()
        os.fsync(target.fileno())


def _check(path: Path, wanted: ExpectedFile) -> None:
    """Raises RunError for a file that is evidently not the one that was asked for."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(256).lstrip().lower()
    if start.startswith(_PAGES):
        raise RunError(f"{path}: is a web page (a notice or a quota page perhaps), not the file; open it in a browser")
    if wanted.size is not None and size != wanted.size:
        raise RunError(f"{path}: has {size:,} bytes, expected {wanted.size:,}")
    if wanted.about is not None and abs(size - wanted.about) > ABOUT * wanted.about:
        raise RunError(f"{path}: has {size:,} bytes, expected about {wanted.about:,}")
    if wanted.sha256 is not None and _sha256(path) != wanted.sha256:
        raise RunError(f"{path}: its SHA-256 is not the published one; the file is damaged or another")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
