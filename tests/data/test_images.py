"""Every common kind of image and video gives the right pixels, or an error with file name and reason."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data import image as image_module
from data.batches import batches_of_files
from data.frames import Failure, Frame, open_frames
from data.image import image_header, image_size, read_image
from data.image_cache import DISK, RAM, CacheOptions, open_cache
from utils.errors import InputError
from utils.letterbox import Preprocessing

WIDTH, HEIGHT = 40, 24


def scene(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """An RGB image: red increases to the right, green downwards, blue is 40."""
    x = np.linspace(0, 250, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 250, height)[:, None].repeat(width, 1)
    return np.stack([x, y, np.full_like(x, 40)], -1).astype(np.uint8)


def encode(kind: str, image: NDArray[np.uint8] | None = None) -> bytes:
    bgr = (scene() if image is None else image)[..., ::-1]
    return bytes(cv2.imencode(f".{kind}", bgr)[1])


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def sixteen_bit() -> bytes:
    return bytes(cv2.imencode(".png", scene()[..., ::-1].astype(np.uint16) * 257)[1])


def with_alpha() -> bytes:
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    return bytes(cv2.imencode(".png", np.concatenate([scene()[..., ::-1], alpha], -1))[1])


# Name of the case -> file name, bytes, largest difference allowed (JPEG and WebP are lossy).
GOOD: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "png": ("a.png", lambda: encode("png"), 0),
    "bmp": ("a.bmp", lambda: encode("bmp"), 0),
    "ppm": ("a.ppm", lambda: encode("ppm"), 0),
    "tiff": ("a.tiff", lambda: encode("tiff"), 0),
    "jpeg": ("a.jpg", lambda: encode("jpg"), 24),
    "webp": ("a.webp", lambda: encode("webp"), 24),
    "16-bit": ("a.png", sixteen_bit, 1),
    "alpha": ("a.png", with_alpha, 0),
    "a JPEG named .png": ("a.png", lambda: encode("jpg"), 24),
    "no suffix": ("a", lambda: encode("png"), 0),
    "UTF-8 name": ("bær 熊 🐻.png", lambda: encode("png"), 0),
    "blanks and brackets": ("a [1] b.png", lambda: encode("png"), 0),
    "padding behind the end": ("a.jpg", lambda: encode("jpg") + bytes(200), 24),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_images(case: str, tmp_path: Path) -> None:
    name, make, tolerance = GOOD[case]
    (tmp_path / name).write_bytes(make())
    image = read_image(tmp_path / name)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - scene()).max() <= tolerance
    assert read_image(tmp_path / name, channels=1).shape == (HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("size_wh", [(1, 1), (20000, 3), (3, 20000), (1, 700)])
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
def test_sizes(kind: str, size_wh: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / f"a.{kind}").write_bytes(encode(kind, np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)))
    image = read_image(tmp_path / f"a.{kind}")
    assert image.shape == (size_wh[1], size_wh[0], 3)
    assert np.abs(image.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_gray_images(depth: type, channels: int, tmp_path: Path) -> None:
    level: NDArray[np.integer] = scene()[..., 0].astype(depth) * (257 if depth is np.uint16 else 1)
    cv2.imwrite(str(tmp_path / "a.png"), level)
    image = read_image(tmp_path / "a.png", channels)
    assert image.shape == (HEIGHT, WIDTH, channels)
    assert np.abs(image.astype(int) - scene()[..., :1]).max() <= 1


def test_cmyk(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red = read_image(tmp_path / "a.jpg")
    assert red.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(red[0, 0].astype(int) - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_everywhere(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode("jpg"))
    stored = read_image(path)
    path.write_bytes(with_exif(encode("jpg"), orientation))
    # TIFF 6.0: orientations 5 to 8 swap rows and columns.
    turned = stored.transpose(1, 0, 2) if orientation >= 5 else stored
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    turned = turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    upright = read_image(path)
    assert np.abs(upright.astype(int) - turned).max() <= 2
    assert image_header(path) == (upright.shape[1::-1], orientation != 1)
    with open_frames(str(path)) as source:
        (frame,) = source
    assert isinstance(frame, Frame) and (frame.image == upright).all()
    cache = open_cache([path], 3, CacheOptions(kind=RAM, folder=tmp_path))
    assert cache is not None and (np.asarray(cache[0]) == upright).all()
    (batch,) = batches_of_files([path], Preprocessing(network_wh=(WIDTH, HEIGHT)))
    assert batch.letterboxes[0].image_wh == upright.shape[1::-1]


@pytest.mark.parametrize("kind", [RAM, DISK])
def test_orientation_can_be_ignored(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif(encode("jpg"), 6))
    options = CacheOptions(kind=kind, folder=tmp_path / "cache")
    turned = open_cache([path], 3, options)
    monkeypatch.setenv("CSPYOLO_EXIF", "0")
    assert image_header(path) == ((WIDTH, HEIGHT), False)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    stored = open_cache([path], 3, options)
    assert turned is not None and stored is not None
    assert np.asarray(turned[0]).shape == (WIDTH, HEIGHT, 3) and np.asarray(stored[0]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_exif_outside_jpeg_is_read_as_the_decoder_reads_it(kind: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6
    image.fromarray(scene()).save(tmp_path / f"a.{kind}", exif=exif)
    assert image_size(tmp_path / f"a.{kind}") == read_image(tmp_path / f"a.{kind}").shape[1::-1]


# Name of the case -> file name, bytes, text that the reason must contain.
BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("a.jpg", lambda: b"", "empty"),
    "truncated JPEG": ("a.jpg", lambda: encode("jpg")[:-200], "truncated|damaged"),
    "JPEG without its end": ("a.jpg", lambda: encode("jpg")[:-2], "truncated"),
    "half a JPEG": ("a.jpg", lambda: encode("jpg", scene(640, 480))[:9000], "truncated"),
    "JPEG cut in its header": ("a.jpg", lambda: encode("jpg")[:30], "damaged"),
    "two bytes of a JPEG": ("a.jpg", lambda: b"\xff\xd8", "damaged"),
    "truncated PNG": ("a.png", lambda: encode("png")[:-30], "truncated"),
    "PNG with broken data": ("a.png", lambda: png_claiming(100, 100), "damaged"),
    "truncated BMP": ("a.bmp", lambda: encode("bmp")[:500], "damaged"),
    "truncated WebP": ("a.webp", lambda: encode("webp")[:60], "damaged"),
    "truncated TIFF": ("a.tiff", lambda: encode("tiff")[:300], "not an image"),
    "truncated PPM": ("a.ppm", lambda: encode("ppm")[:300], "damaged"),
    "HTML page": ("a.jpg", lambda: b"<!DOCTYPE html><html>404</html>", "not an image.*DOCTYPE"),
    "LFS pointer": ("a.jpg", lambda: b"version https://git-lfs.github.com/spec/v1\n", "not an image.*version"),
    "zero bytes": ("a.jpg", lambda: bytes(1000), "not an image"),
    "decompression bomb": ("a.png", lambda: png_claiming(60000, 60000), "60000x60000"),
    "chunk beyond the end": (
        "a.png",
        lambda: re.sub(rb"....IDAT", b"t000IDAT", encode("png"), count=1, flags=re.S),
        "claims",
    ),
    "size zero": ("a.png", lambda: png_claiming(0, 10), "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images(case: str, tmp_path: Path) -> None:
    name, make, reason = BAD[case]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(InputError, match=reason) as error:
        read_image(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["absent.png", "folder", "zero\0byte.png"])
def test_no_such_image(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError):
        read_image(tmp_path / name)


@pytest.mark.parametrize(("kind", "mark", "order"), [("jpg", b"\xff\xc0", "big"), ("gif", b"GIF89a", "little")])
def test_a_file_that_is_too_short_for_its_pixels(kind: str, mark: bytes, order: Any, tmp_path: Path) -> None:
    """OpenCV takes about 5 s to fill the missing pixels."""
    path, plain = tmp_path / f"a.{kind}", np.zeros((4096, 4096, 3), np.uint8)
    encoded = bytearray(cv2.imencode(f".{kind}", plain[:16, :16])[1].tobytes())
    place = encoded.index(mark) + (5 if kind == "jpg" else 6)
    encoded[place : place + 4] = (16383).to_bytes(2, order) * 2
    path.write_bytes(encoded)
    with pytest.raises(InputError, match=r"is truncated: \d+ bytes cannot hold 16383x16383 pixels"):
        read_image(path)
    path.write_bytes(
        cv2.imencode(f".{kind}", plain, [cv2.IMWRITE_JPEG_OPTIMIZE, 1] if kind == "jpg" else [])[1].tobytes()
    )
    assert read_image(path).shape == plain.shape


def test_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encode("png"))
    monkeypatch.setattr(image_module, "MAX_PIXELS", WIDTH * HEIGHT)
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(image_module, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(InputError, match="expected at most 959"):
        read_image(tmp_path / "a.png")


def write_video(path: Path, frames: int, codec: str = "mp4v") -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(noise.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("name", "frames", "share", "reason"),
    [
        ("a.mp4", 0, 1, "no frames|cannot be opened"),
        ("a.avi", 0, 1, "no frames|cannot be opened"),
        ("a.mp4", 20, 0, "empty"),
        ("a.mp4", 20, 0.5, "cannot be opened"),
        ("a.avi", 20, 0.02, "cannot be opened|no frames"),
    ],
)
def test_videos_without_readable_frames(name: str, frames: int, share: float, reason: str, tmp_path: Path) -> None:
    write_video(tmp_path / name, frames, "MJPG" if name.endswith("avi") else "mp4v")
    if not (tmp_path / name).exists():
        (tmp_path / name).write_bytes(b"")
        reason += "|empty"
    cut(tmp_path / name, share)
    with pytest.raises(InputError, match=reason), open_frames(str(tmp_path / name)) as source:
        items = list(source)
        assert all(isinstance(item, Failure) for item in items)


def test_video_cut_in_the_middle(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 40, "MJPG")
    cut(tmp_path / "a.avi", 0.5)
    with open_frames(str(tmp_path / "a.avi")) as source:
        *frames, last = source
    assert 10 <= len(frames) < 40 and all(isinstance(frame, Frame) for frame in frames)
    assert isinstance(last, Failure) and "truncated" in last.reason


KINDS = ["jpg", "png", "bmp", "ppm", "pgm", "webp", "tiff"]


@pytest.mark.parametrize("size_wh", [(1, 1), (17, 300), (640, 31)])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_decoder(kind: str, size_wh: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    shape = (size_wh[1], size_wh[0]) if kind == "pgm" else (size_wh[1], size_wh[0], 3)
    assert cv2.imwrite(str(path), np.full(shape, 90, np.uint8))
    assert image_size(path) == size_wh


@pytest.mark.parametrize(("keep", "message"), [(0, "empty"), (3, "damaged"), (200, "damaged|truncated")])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_damaged(kind: str, keep: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=message if (kind, keep) != ("png", 3) else "not an image"):
        image_size(path)


@pytest.mark.parametrize("content", [b"hello", b"P5\n# a\n0 4\n255\n"])
def test_no_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError):
        image_size(path)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        image_size(tmp_path / "a.jpg")
