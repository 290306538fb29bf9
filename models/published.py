"""Weights that their authors have published, and their download; nothing is fetched unless asked for.

Addresses, sizes and accuracies are those of the authors' own pages (AlexeyAB/darknet, pjreddie.com, PartialResidualNetworks,
CrossStagePartialNetworks). AP50 and AP are on COCO test-dev in percent, "top1" on ImageNet. The files belong to their authors.
"""

from __future__ import annotations

import difflib
import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from utils.errors import InputError, RunError
from utils.files import exists, publish

_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download"
_V3, _V4 = f"{_ALEXEYAB}/darknet_yolo_v3_optimal", f"{_ALEXEYAB}/darknet_yolo_v4_pre"
_PJREDDIE = "https://pjreddie.com/media/files"
_PRN = "https://github.com/WongKinYiu/PartialResidualNetworks/raw/master/model"
_CSP = "https://github.com/WongKinYiu/CrossStagePartialNetworks/raw/master/weight"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="

_CHUNK = 1 << 20
_TIMEOUT_S = 30
ABOUT = 0.08  # tolerance: published megabytes are rounded, and mean 10 ** 6 or 2 ** 20 bytes
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


@dataclass(frozen=True, kw_only=True)
class ExpectedFile:
    """What is known of a file in advance: its size in bytes, exactly or about (see ABOUT); SHA-256 in hex."""

    size: int | None = None
    about: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """One file. cfg: name of its cfg in its authors' repository. megabytes: about, 0: unknown. quality: as published."""

    name: str
    cfg: str
    url: str
    megabytes: float = 0
    quality: str = ""

    @property
    def file(self) -> str:
        """File name to store it under."""
        last = self.url.rsplit("/", 1)[-1]
        return f"{self.name}.weights" if "?" in last else last

    @property
    def expected(self) -> ExpectedFile:
        """Published sizes are rounded, and some call 1024 * 1024 bytes a megabyte; nobody publishes checksums."""
        return ExpectedFile(about=round(self.megabytes * 1e6) or None)


def _row(name: str, cfg: str, url: str, megabytes: float = 0, quality: str = "") -> Published:
    return Published(name=name, cfg=f"{cfg}.cfg", url=url, megabytes=megabytes, quality=quality)


PUBLISHED: tuple[Published, ...] = (
    _row("yolov4-p6", "yolov4-p6", f"{_V4}/yolov4-p6.weights", 487, "AP50 72.1 AP 54.0 at 1280"),
    _row("yolov4-p5", "yolov4-p5", f"{_V4}/yolov4-p5.weights", 271, "AP50 70.0 AP 51.6 at 896"),
    _row(
        "yolov4-csp-x-swish", "yolov4-csp-x-swish", f"{_V4}/yolov4-csp-x-swish.weights", 381, "AP50 69.9 AP 51.5 at 640"
    ),
    _row("yolov4-csp-swish", "yolov4-csp-swish", f"{_V4}/yolov4-csp-swish.weights", 202, "AP50 68.7 AP 50.0 at 640"),
    _row("yolov4x-mish", "yolov4x-mish", f"{_V4}/yolov4x-mish.weights", 381, "AP50 68.5 AP 50.1 at 640"),
    _row("yolov4-csp", "yolov4-csp", f"{_V4}/yolov4-csp.weights", 202, "AP50 67.4 AP 48.7 at 640"),
    _row("yolov4", "yolov4", f"{_V3}/yolov4.weights", 245, "AP50 65.7 AP 43.5 at 608"),
    _row("yolov4.conv.137", "yolov4", f"{_V3}/yolov4.conv.137", 162, "backbone"),
    _row("yolov4-tiny", "yolov4-tiny", f"{_V4}/yolov4-tiny.weights", 23.1, "AP50 40.2 at 416"),
    _row("yolov4-tiny.conv.29", "yolov4-tiny", f"{_V4}/yolov4-tiny.conv.29", 0, "backbone"),
    _row("yolov4-csp.conv.142", "yolov4-csp", f"{_V4}/yolov4-csp.conv.142", 0, "backbone"),
    _row("yolov4-p5.conv.232", "yolov4-p5", f"{_V4}/yolov4-p5.conv.232", 0, "backbone"),
    _row("yolov4-p6.conv.289", "yolov4-p6", f"{_V4}/yolov4-p6.conv.289", 0, "backbone"),
    _row("enet-coco", "enet-coco", f"{_DRIVE}1FlHeQjWEQVJt0ay1PVsiuuMzmtNyv36m", 18.3, "AP50 45.5 at 416"),
    _row(
        "csresnext50-panet-spp-original-optimal",
        "csresnext50-panet-spp-original-optimal",
        f"{_DRIVE}1CP1IGmo29TCVr6SxozRE16yqG67JXr2b",
        217,
        "AP50 65.4 AP 43.2 at 608",
    ),
    _row(
        "csresnext50-panet-spp",
        "csresnext50-panet-spp",
        f"{_DRIVE}1aNXdM8qVy11nqTcd2oaVB3mf7ckr258-",
        0,
        "AP50 60.0 AP 38.0 at 512",
    ),
    _row("yolov3-spp", "yolov3-spp", f"{_PJREDDIE}/yolov3-spp.weights", 0, "AP50 60.6 at 608"),
    _row("yolov3", "yolov3", f"{_PJREDDIE}/yolov3.weights", 0, "AP50 55.3 at 416"),
    _row("yolov3-tiny", "yolov3-tiny", f"{_PJREDDIE}/yolov3-tiny.weights", 0, "AP50 33.1 at 416"),
    _row("darknet53.conv.74", "yolov3", f"{_PJREDDIE}/darknet53.conv.74", 0, "backbone"),
    _row("yolov3-openimages", "yolov3-openimages", f"{_PJREDDIE}/yolov3-openimages.weights"),
    _row("yolov3-tiny-prn", "yolov3-tiny-prn", f"{_PRN}/yolov3-tiny-prn.weights", 18.8, "AP50 33.1 at 416"),
    _row("csmobilenet-v2", "csmobilenet-v2", f"{_CSP}/csmobilenet-v2_final.weights", 0, "top1 67.7"),
    _row("enetb0", "enetb0", f"{_CSP}/enetb0_final.weights", 0, "top1 71.3"),
    _row("resnet10", "resnet10", f"{_CSP}/resnet10_final.weights", 0, "top1 63.5"),
    _row("csdarknet53", "csdarknet53", f"{_DRIVE}1dZJIxngmFpQJvsa6y7XADfSxkXCjJTzp", 0, "top1 77.2"),
    _row("csresnet50", "csresnet50", f"{_DRIVE}1pNU6DctLlf3mnJI-opZL6kCx_hSNsEKj", 0, "top1 76.6"),
    _row("csresnext50", "csresnext50", f"{_DRIVE}1IxKu5lAYCo4UpzAl5pOBIDAvC843vjn1", 0, "top1 77.9"),
)


def find_published(name: str) -> Published:
    """The file of that name. Raises InputError, with names like it, if there is none."""
    for row in PUBLISHED:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in PUBLISHED], 3)
    hint = f"; names like it: {', '.join(near)}" if near else "; without a name the list is printed"
    raise InputError(f"{name}: no weights of that name are known{hint}")


def listing() -> str:
    """The table as text."""
    lines = [f"{'name':<40} {'MB':>5}  {'published':<26} address"]
    for row in PUBLISHED:
        size = f"{row.megabytes:.0f}" if row.megabytes else "?"
        lines.append(f"{row.name:<40} {size:>5}  {row.quality:<26} {row.url}")
    return "\n".join(lines)


def download(url: str, path: str | Path, expected: ExpectedFile | None = None) -> Path:
    """Fetch `url` to `path`; an interrupted download is kept in `path`.part and resumed.

    An existing file that matches is left alone. Raises InputError for a malformed address, RunError for a failed transfer, a
    web page instead of the file, or a file that does not match.
    """
    path, wanted = Path(path), expected or ExpectedFile()
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url}: expected an address that begins with https:// or http://")
    if exists(path):
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
        raise RunError(f"{url}: {reason}; run the same command again to resume") from error
    except OSError as error:
        raise RunError(f"{part}: cannot be written: {error.strerror or error}") from error
    try:
        _check(part, wanted)
    except RunError:
        part.unlink()
        raise
    publish(part, path)
    return path


def _transfer(url: str, part: Path, title: str) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: the file is complete already
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


def _check(path: Path, wanted: ExpectedFile) -> None:
    """Raises RunError for a file that is evidently not the one requested."""
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
        raise RunError(f"{path}: its SHA-256 is not the published one; the file is damaged or a different one")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
