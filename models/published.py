"""Weights published by their authors, and their download; nothing is fetched unless requested.

Addresses, sizes and accuracies are from the authors' own pages (AlexeyAB/darknet, pjreddie.com, PartialResidualNetworks,
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
class Published:
    """A published weights file.

    cfg: name of its cfg in the authors' repository.
    megabytes: approximate size; 0: unknown.
    quality: accuracy as published.
    """

    name: str
    cfg: str
    url: str
    megabytes: float
    quality: str

    @property
    def file(self) -> str:
        """File name to save it under."""
        last = self.url.rsplit("/", 1)[-1]
        return f"{self.name}.weights" if "?" in last else last

    @property
    def about(self) -> int | None:
        """Approximate size in bytes (see ABOUT); the authors publish neither exact sizes nor checksums."""
        return round(self.megabytes * 1e6) or None


# name | megabytes | quality | address | cfg, if its name differs
_TABLE = f"""
yolov4-p6 | 487 | AP50 72.1 AP 54.0 at 1280 | {_V4}/yolov4-p6.weights
yolov4-p5 | 271 | AP50 70.0 AP 51.6 at 896 | {_V4}/yolov4-p5.weights
yolov4-csp-x-swish | 381 | AP50 69.9 AP 51.5 at 640 | {_V4}/yolov4-csp-x-swish.weights
yolov4-csp-swish | 202 | AP50 68.7 AP 50.0 at 640 | {_V4}/yolov4-csp-swish.weights
yolov4x-mish | 381 | AP50 68.5 AP 50.1 at 640 | {_V4}/yolov4x-mish.weights
yolov4-csp | 202 | AP50 67.4 AP 48.7 at 640 | {_V4}/yolov4-csp.weights
yolov4 | 245 | AP50 65.7 AP 43.5 at 608 | {_V3}/yolov4.weights
yolov4.conv.137 | 162 | backbone | {_V3}/yolov4.conv.137 | yolov4
yolov4-tiny | 23.1 | AP50 40.2 at 416 | {_V4}/yolov4-tiny.weights
yolov4-tiny.conv.29 | - | backbone | {_V4}/yolov4-tiny.conv.29 | yolov4-tiny
yolov4-csp.conv.142 | - | backbone | {_V4}/yolov4-csp.conv.142 | yolov4-csp
yolov4-p5.conv.232 | - | backbone | {_V4}/yolov4-p5.conv.232 | yolov4-p5
yolov4-p6.conv.289 | - | backbone | {_V4}/yolov4-p6.conv.289 | yolov4-p6
enet-coco | 18.3 | AP50 45.5 at 416 | {_DRIVE}1FlHeQjWEQVJt0ay1PVsiuuMzmtNyv36m
csresnext50-panet-spp-original-optimal | 217 | AP50 65.4 AP 43.2 at 608 | {_DRIVE}1CP1IGmo29TCVr6SxozRE16yqG67JXr2b
csresnext50-panet-spp | - | AP50 60.0 AP 38.0 at 512 | {_DRIVE}1aNXdM8qVy11nqTcd2oaVB3mf7ckr258-
yolov3-spp | - | AP50 60.6 at 608 | {_PJREDDIE}/yolov3-spp.weights
yolov3 | - | AP50 55.3 at 416 | {_PJREDDIE}/yolov3.weights
yolov3-tiny | - | AP50 33.1 at 416 | {_PJREDDIE}/yolov3-tiny.weights
darknet53.conv.74 | - | backbone | {_PJREDDIE}/darknet53.conv.74 | yolov3
yolov3-openimages | - | - | {_PJREDDIE}/yolov3-openimages.weights
yolov3-tiny-prn | 18.8 | AP50 33.1 at 416 | {_PRN}/yolov3-tiny-prn.weights
csmobilenet-v2 | - | top1 67.7 | {_CSP}/csmobilenet-v2_final.weights
enetb0 | - | top1 71.3 | {_CSP}/enetb0_final.weights
resnet10 | - | top1 63.5 | {_CSP}/resnet10_final.weights
csdarknet53 | - | top1 77.2 | {_DRIVE}1dZJIxngmFpQJvsa6y7XADfSxkXCjJTzp
csresnet50 | - | top1 76.6 | {_DRIVE}1pNU6DctLlf3mnJI-opZL6kCx_hSNsEKj
csresnext50 | - | top1 77.9 | {_DRIVE}1IxKu5lAYCo4UpzAl5pOBIDAvC843vjn1
"""


def _published(line: str) -> Published:
    name, megabytes, quality, url, *cfg = (cell if cell != "-" else "" for cell in line.split(" | "))
    return Published(name=name, cfg=f"{(*cfg, name)[0]}.cfg", url=url, megabytes=float(megabytes or 0), quality=quality)


PUBLISHED = tuple(map(_published, _TABLE.strip().splitlines()))


def find_published(name: str) -> Published:
    """Look up a file by name. Raises InputError, suggesting similar names, if there is none."""
    for row in PUBLISHED:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in PUBLISHED], 3)
    hint = f"; similar names: {', '.join(near)}" if near else "; run convert.py fetch without a name to list them"
    raise InputError(f"{name}: unknown weights{hint}")


def listing() -> str:
    """The table as text."""
    lines = [f"{'name':<40} {'MB':>5}  {'published':<26} address"]
    for row in PUBLISHED:
        size = f"{row.megabytes:.0f}" if row.megabytes else "?"
        lines.append(f"{row.name:<40} {size:>5}  {row.quality:<26} {row.url}")
    return "\n".join(lines)


def download(url: str, path: str | Path, about: int | None = None, sha256: str | None = None) -> Path:
    """Download `url` to `path`; an interrupted download is kept in `path`.part and resumed the next time.

    about: expected size in bytes, within the tolerance ABOUT.
    sha256: expected checksum in hex.

    An existing file that matches is left alone. Raises InputError for a malformed address, RunError for a failed transfer, a
    web page instead of the file, or a file that does not match.
    """
    path = Path(path)
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url}: expected a URL that begins with https:// or http://")
    if exists(path):
        _check(path, about, sha256)
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, path.name)
    except urllib.error.HTTPError as error:
        raise RunError(f"{url}: the server responded {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(f"{url}: {reason}; run the same command again to resume") from error
    except OSError as error:
        raise RunError(f"{part}: cannot be written: {error.strerror or error}") from error
    try:
        _check(part, about, sha256)
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
        if error.code != 416 or not have:  # 416: the file is already complete
            raise
        return
    with response:
        resumed = response.status == 206
        if not resumed and "text/html" in response.headers.get("Content-Type", ""):
            raise RunError(
                f"{url}: is a web page (perhaps a notice or a quota page), not the file; open it in a browser"
            )
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        done = have if resumed else 0
        with (
            part.open("ab" if resumed else "wb") as stream,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=title) as bar,
        ):
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise HTTPException(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def _check(path: Path, about: int | None, sha256: str | None) -> None:
    """Raise RunError for a file that is evidently not the requested one."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(256).lstrip().lower()
    if start.startswith(_PAGES):
        raise RunError(f"{path}: is a web page (perhaps a notice or a quota page), not the file; open it in a browser")
    if about is not None and abs(size - about) > ABOUT * about:
        raise RunError(f"{path}: has {size:,} bytes, expected about {about:,}")
    if sha256 is not None and (found := file_sha256(path)) != sha256.lower():
        raise RunError(f"{path}: has the SHA-256 {found}, expected {sha256.lower()}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
