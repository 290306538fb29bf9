"""Test serve.py under load on this machine: many clients, each with its own image, alongside clients that misbehave.

Every answer is compared with the model's output without a server. Misbehaving clients send decompression bombs, damaged files,
wrong types and too much data; they are slow, disconnect, do not read, and send garbage or many requests on one connection; and
decoding processes are killed. Memory, open files and threads of the server are monitored. The run fails if an answer is lost or
wrong, or if a misbehaving client gets an unexpected status. Ctrl-C ends it early, with a report.

  python benchmarks/serving.py
  python benchmarks/serving.py --requests 100000 --clients 4 --well-behaved      (memory, files and threads over time)
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, children, table, usage
from data.image import read_image
from inference.model import open_model
from inference.predictor import Model, NmsOptions
from utils.cli import EXIT_OK, above_zero, run_script, whole
from utils.errors import RunError

WEIGHTS = ROOT / "weights" / "scenes.weights"
UPLOAD_MB = 2
CONF = 0.25
_SAMPLE_S = 1.0
_WARM_UP = 0.1  # fraction of the requests before memory is compared
_BOX_PX, _SCORE = 0.6, 0.01  # tolerances: batches round differently from single images
_PATIENCE_S = 60.0
_START_S, _LONGEST_S = 60.0, 1.0  # time limit of a run: fixed part, and part per request
_CLOSING = 250  # tenths of a second for the server to close connections left by clients
_CRASHED = "crashes its decoder"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Closed(Exception):
    """The server closed the connection."""


class Connection:
    """A connection to the server, kept open between requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        return self._streams is not None

    async def send(self, data: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._streams[1].write(data)
        with suppress(ConnectionError):  # the server answered before reading everything
            await self._streams[1].drain()

    async def receive(self) -> Answer:
        """Read an answer. Raises Closed if the connection ends, or if nothing arrives for a long time."""
        assert self._streams is not None
        reader = self._streams[0]
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE_S)
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), _PATIENCE_S)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            raise Closed from error
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(first.split()[1]), headers, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def request(path: str, body: bytes | None, kind: str = "image/jpeg", length: int | None = None) -> bytes:
    """An HTTP request; length: declared content length, if not that of the body."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


@dataclass
class Tally:
    """Counts of what happened.

    latencies: of the answers, in seconds.
    busy: answers with status 503.
    stale: requests sent again because the server had closed the idle connection.
    crashed: requests lost to a killed decoder.
    wrong: answers that do not match the image.
    lost: requests without an answer.
    abuse: outcomes of misbehaviour by kind.
    unexpected: those of the outcomes that should not occur.
    left_open: files still open without clients.
    samples: memory in MiB, open files and threads of the server, and memory of its decoders.
    """

    latencies: list[float] = field(default_factory=list)
    busy: int = 0
    stale: int = 0
    crashed: int = 0
    killed: int = 0
    wrong: int = 0
    lost: int = 0
    abuse: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, int, int, float]] = field(default_factory=list)
    seconds: float = 0.0
    left_open: int = 0


class Known(NamedTuple):
    """An image file and what the model finds in it."""

    file: bytes
    size_wh: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: list[float]
    class_ids: list[int]


def known_images(model: Model, count: int, folder: Path, seed: int) -> list[Known]:
    """Crops of the sample images, each of a different size."""
    rng = np.random.default_rng(seed)
    scenes = [read_image(path) for path in sorted((ROOT / "data" / "samples").glob("*.jpg"))]
    found = []
    for number in range(count):
        scene = scenes[number % len(scenes)]
        width, height = 240 + 4 * (number % 32), 200 + 4 * (number // 32)
        left, top = int(rng.integers(scene.shape[1] - width)), int(rng.integers(scene.shape[0] - height))
        part = scene[top : top + height, left : left + width]
        path = folder / "image.jpg"
        path.write_bytes(bytes(cv2.imencode(".jpg", np.ascontiguousarray(part[..., ::-1]))[1]))
        (each,) = model.predict([read_image(path)], NmsOptions(conf=CONF, iou=0.45, max_det=1000))
        found.append(
            Known(path.read_bytes(), (width, height), each.xyxy, each.scores.tolist(), each.class_ids.tolist())
        )
    return found


def is_right(known: Known, body: bytes) -> bool:
    """Whether an answer matches the image; boxes close to the confidence threshold may or may not be present."""
    (frame,) = json.loads(body)["frames"]
    if (frame["width"], frame["height"]) != known.size_wh:
        return False
    wanted = list(zip(known.class_ids, known.scores, known.boxes, strict=True))
    for each in frame["detections"]:
        near = [
            place
            for place, (class_id, score, box) in enumerate(wanted)
            if class_id == each["class_id"]
            and abs(score - each["score"]) < _SCORE
            and np.abs(box - each["xyxy"]).max() < _BOX_PX
        ]
        if near:
            del wanted[near[0]]
        elif each["score"] > CONF + _SCORE:
            return False
    return all(score < CONF + _SCORE for _, score, _ in wanted)


async def good_client(port: int, known: Known, numbers: Iterator[int], tally: Tally) -> None:
    """Send an image repeatedly, wait when told to, and check every answer."""
    data = request(f"/detect?conf={CONF}", known.file)
    with closing(Connection(port)) as connection:
        for _ in numbers:
            while True:
                start, was_open = time.perf_counter(), connection.is_open
                try:
                    await connection.send(data)
                    answer = await connection.receive()
                except (Closed, OSError, asyncio.TimeoutError) as error:
                    connection.close()
                    if was_open and not isinstance(error, asyncio.TimeoutError):
                        tally.stale += 1  # it was idle for too long; HTTP permits closing it
                        continue
                    tally.lost += 1
                    break
                if answer.status == 503 and int(answer.headers.get("retry-after", "0")) >= 1:
                    tally.busy += 1
                    await asyncio.sleep(int(answer.headers["retry-after"]) * random.uniform(1, 1.5))
                elif answer.status == 422 and _CRASHED in answer.body.decode():
                    tally.crashed += 1
                else:
                    if answer.status == 200 and is_right(known, answer.body):
                        tally.latencies.append(time.perf_counter() - start)
                    else:
                        tally.wrong += 1
                    break


def png(width: int, height: int) -> bytes:
    """A valid black greyscale image, compressed a thousandfold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(width + 1)) for _ in range(height)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(screen: int, frame: int) -> bytes:
    """A square image whose screen and frame may differ."""
    head = b"GIF89a" + struct.pack("<HH", screen, screen) + b"\x80\x00\x00" + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x4c\x01\x00;"


def tiff(side: int) -> bytes:
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (278, side), (279, side * side % 2**32)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def bad_files(good: bytes) -> dict[str, tuple[bytes, str, tuple[int, ...]]]:
    """Uploads that cannot be processed: body, content type, and the acceptable statuses."""
    vp8l = b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(8)
    webp = b"RIFF" + struct.pack("<I", 12 + len(vp8l)) + b"WEBPVP8L" + struct.pack("<I", len(vp8l)) + vp8l + b"\0"
    huge_bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "bomb: PNG of 12000x12000": (png(12_000, 12_000), "image/png", (422,)),
        "bomb: GIF of 65000x65000": (gif(65_000, 65_000), "image/gif", (422,)),
        "bomb: GIF, a frame larger than its screen": (gif(8, 65_000), "image/gif", (422,)),
        "bomb: WebP of 16384x16384": (webp, "image/webp", (422,)),
        "bomb: BMP of 60000x60000": (huge_bmp, "image/bmp", (422,)),
        "bomb: TIFF of 60000x60000": (tiff(60_000), "image/tiff", (415,)),
        "image cut off": (good[: len(good) // 2], "image/jpeg", (422,)),
        "image with damage": (good[:300] + bytes(200) + good[500:], "image/jpeg", (200, 422)),
        "text called image": (b"#EXTM3U\nfile:///etc/passwd\n", "image/png", (415,)),
        "wrong type": (b"{}", "application/json", (415,)),
        "form without a boundary": (good, "multipart/form-data", (400,)),
        "empty": (b"", "image/png", (400,)),
        "oversize": (bytes(UPLOAD_MB * 1_000_000 + 1), "image/png", (413,)),
    }


@dataclass
class Abuse:
    """Ways to misbehave; each method is a client that does so once and counts the outcome."""

    port: int
    good: bytes
    tally: Tally

    def count(self, kind: str, outcome: str, *expected: str) -> None:
        self.tally.abuse[f"{kind}: {outcome}"] += 1
        if outcome not in (*expected, "503"):
            self.tally.unexpected[f"{kind}: {outcome}"] += 1

    def connected(self) -> closing[Connection]:
        return closing(Connection(self.port))

    async def outcome(self, connection: Connection) -> str:
        try:
            return str((await connection.receive()).status)
        except Closed:
            return "closed"
        except asyncio.TimeoutError:
            return "no end"

    async def file(self, kind: str, body: bytes, content_type: str, statuses: Sequence[int]) -> None:
        with self.connected() as connection:
            await connection.send(request("/detect", body, content_type))
            with suppress(Closed):
                answer = await connection.receive()
                if _CRASHED in answer.body.decode():
                    self.tally.crashed += 1
                else:
                    self.count(kind, str(answer.status), *map(str, statuses))
                return
            self.count(kind, "closed")

    async def chunked(self) -> None:
        """A body of unknown length that exceeds the limit."""
        head = (
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with self.connected() as connection:
            await connection.send(head)
            for _ in range(UPLOAD_MB * 10 + 5):
                await connection.send(b"186a0\r\n" + bytes(100_000) + b"\r\n")
            self.count("oversize in chunks", await self.outcome(connection), "413", "closed")

    async def aborted(self) -> None:
        with self.connected() as connection:
            await connection.send(request("/detect", self.good[:1000], length=len(self.good)))
            await asyncio.sleep(0.05)
        self.count("upload broken off", "done", "done")

    async def gone(self) -> None:
        with self.connected() as connection:
            await connection.send(request("/detect", self.good))
        self.count("gone before the answer", "done", "done")

    async def drip(self, kind: str, begin: bytes, data: Iterable[int], *expected: str) -> None:
        """Send a byte from time to time, until the server closes the connection."""
        with self.connected() as connection:
            await connection.send(begin)
            ended = asyncio.create_task(self.outcome(connection))
            for byte in data:
                await connection.send(bytes([byte]))
                done, _ = await asyncio.wait([ended], timeout=0.5)
                if done:
                    break
            self.count(kind, await ended, *expected)

    async def slow_headers(self) -> None:
        await self.drip("slow headers", b"", request("/detect", b""), "closed")

    async def slow_body(self) -> None:
        await self.drip("slow body", request("/detect", b"\xff", length=500_000), itertools.repeat(0xFF), "408")

    async def unread(self) -> None:
        """Request a video and never read its frames."""
        with self.connected() as connection:
            video = (ROOT / "data" / "samples" / "scenes.mp4").read_bytes()
            await connection.send(request("/stream?images=1", video, "video/mp4"))
            await asyncio.sleep(2)
        self.count("answer not read", "done", "done")

    async def pipelined(self) -> None:
        """Send fifty requests at once on one connection."""
        with self.connected() as connection:
            await connection.send(request("/model", None) * 50)
            outcomes = Counter([await self.outcome(connection) for _ in range(50)])
            self.count("50 requests at once", ", ".join(outcomes), "200")

    async def garbage(self) -> None:
        with self.connected() as connection:
            await connection.send(random.randbytes(300) + b"\r\n\r\n")
            self.count("garbage", await self.outcome(connection), "400", "closed")

    async def long_headers(self) -> None:
        with self.connected() as connection:
            await connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
            self.count("200 kB of headers", await self.outcome(connection), "400", "closed")

    async def paths(self) -> None:
        """Try to reach other files of the server."""
        with self.connected() as connection:
            for path in (
                "/../serve.py",
                "/%2e%2e/serve.py",
                "//etc/passwd",
                "/page/../../serve.py",
                "/page.js%00.html",
            ):
                await connection.send(request(path, None))
                self.count("path trick", await self.outcome(connection), "404")

    async def idle(self) -> None:
        with self.connected() as connection:
            await connection.send(request("/model", None))
            await connection.receive()
            self.count("idle connection", await self.outcome(connection), "closed")

    async def forever(self) -> None:
        """Misbehave in random order, several at a time; the slow ways are used continuously."""
        files = [partial(self.file, kind, *each) for kind, each in bad_files(self.good).items()]
        quick: list[Callable[[], Awaitable[None]]] = [*files, self.chunked, self.aborted, self.gone, self.pipelined]
        quick += [self.garbage, self.long_headers, self.paths]

        async def repeat(ways: Sequence[Callable[[], Awaitable[None]]]) -> None:
            while True:
                for way in random.sample(ways, len(ways)):
                    with suppress(OSError):  # the server resets the connection
                        await way()
                    await asyncio.sleep(0.1)

        slow = (self.slow_headers, self.slow_body, self.unread, self.idle)
        await asyncio.gather(repeat(quick), repeat(quick), *(repeat([way]) for way in slow))


async def watch(pid: int, tally: Tally) -> None:
    while True:
        with suppress(OSError):  # a child may have ended meanwhile
            tally.samples.append((*usage(pid), sum(usage(child).memory for child in children(pid))))
        await asyncio.sleep(_SAMPLE_S)


async def kill_decoders(pid: int, tally: Tally) -> None:
    while True:
        await asyncio.sleep(2)
        with suppress(OSError):  # it may have ended meanwhile
            if found := children(pid):
                os.kill(random.choice(found), signal.SIGSEGV)
                tally.killed += 1


@contextmanager
def server(flags: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run a separate serve.py; yields its port and process id."""
    command = [sys.executable, "serve.py", "--port", "0", "--device", "cpu", "--max-upload", str(UPLOAD_MB), *flags]
    files = ["--cfg", WEIGHTS.with_suffix(".cfg"), "--weights", WEIGHTS, "--names", WEIGHTS.with_suffix(".names")]
    with subprocess.Popen(
        [*command, *map(str, files)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        if found is None:
            raise RunError(f"serve.py does not start (exit code {process.wait()})")
        try:
            yield int(found[1]), process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


async def load(port: int, pid: int, known: Sequence[Known], requests: int, seed: int, well_behaved: bool) -> Tally:
    """Send all requests, or as many as possible until Ctrl-C."""

    async def everyone() -> None:
        await asyncio.gather(*(good_client(port, each, numbers, tally) for each in known))

    random.seed(seed)
    tally, numbers = Tally(), iter(range(requests))
    beside: list[Coroutine[Any, Any, None]] = [watch(pid, tally)]
    if not well_behaved:
        beside += [Abuse(port, known[0].file, tally).forever(), kill_decoders(pid, tally)]
    tasks = [asyncio.create_task(each) for each in beside]
    start = time.perf_counter()
    clients = asyncio.create_task(everyone())
    with suppress(asyncio.CancelledError):
        done, _ = await asyncio.wait([clients, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    tally.seconds = time.perf_counter() - start
    for each in (clients, *tasks):
        each.cancel()
    await asyncio.gather(clients, *tasks, return_exceptions=True)
    return tally


def images_per_s(model: Model, known: Sequence[Known], folder: Path, batch: int, seconds: float) -> float:
    """Throughput of decoding and the model in batches, without a server."""
    paths = [folder / f"{number}.jpg" for number in range(len(known))]
    for path, each in zip(paths, known, strict=True):
        path.write_bytes(each.file)
    model.expect(None)
    model.predict([read_image(path) for path in paths[:batch]], batch_size=batch)
    start, count = time.perf_counter(), 0
    for first in itertools.cycle(range(0, len(paths), batch)):
        images = [read_image(path) for path in paths[first : first + batch]]
        model.predict(images, NmsOptions(conf=CONF, iou=0.45, max_det=1000), batch_size=batch)
        count += len(images)
        if time.perf_counter() - start > seconds:
            return count / (time.perf_counter() - start)
    raise AssertionError


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def memory_text(samples: Sequence[float]) -> str:
    """Minimum and maximum, and the change from the first tenth to the last tenth of the samples."""
    part = max(1, len(samples) // 10)
    change = statistics.median(samples[-part:]) / statistics.median(samples[:part]) - 1
    return f"{spread(samples)} MB, {100 * change:+.2f} %"


def report(tally: Tally, bare: dict[int, float], batch: float) -> str:
    times = sorted(tally.latencies) or [0.0]
    rows = [
        ("answers", f"{len(tally.latencies):,}"),
        ("wrong or mixed-up answers", f"{tally.wrong}"),
        ("lost requests", f"{tally.lost}"),
        ("answers 503 with Retry-After, tried again", f"{tally.busy:,}"),
        ("sent again after the end of an idle connection", f"{tally.stale}"),
        ("decoding processes killed, requests that cost", f"{tally.killed}, {tally.crashed}"),
        ("latency p50, p99, longest", f"{_ms(times, 0.5)}, {_ms(times, 0.99)}, {_ms(times, 1)}"),
        ("throughput", f"{len(tally.latencies) / max(tally.seconds, 1e-9):.1f} images/s, mean batch {batch:.2f}"),
        ("without a server", ", ".join(f"{value:.1f} images/s in batches of {size}" for size, value in bare.items())),
        ("seconds", f"{tally.seconds:.0f}"),
        ("misbehaving clients", f"{tally.abuse.total():,}"),
        ("of these with an unexpected outcome", f"{tally.unexpected.total()}"),
    ]
    samples = tally.samples[int(len(tally.samples) * _WARM_UP) :]
    if samples:
        memory, files, threads, decoders = zip(*samples, strict=True)
        rows += [
            ("memory of all processes", memory_text([sum(pair) for pair in zip(memory, decoders, strict=True)])),
            ("memory of the server", memory_text(memory)),
            ("memory of the decoders", memory_text(decoders)),
            ("open files", spread(files)),
            ("open files that stay without clients", f"{tally.left_open}"),
            ("threads", spread(threads)),
        ]
    lines = (f"{count:6} {kind}" for kind, count in sorted(tally.abuse.items()))
    return "\n".join([table(("what", "result"), rows), "", *lines])


def _ms(times: Sequence[float], part: float) -> str:
    return f"{1000 * times[min(len(times) - 1, int(len(times) * part))]:.0f} ms"


async def files_without_clients(port: int, pid: int) -> int:
    """Open files of the server before the load, counted during a request: it prints its address before its event loop has any."""
    with closing(Connection(port)) as connection:
        await connection.send(request("/model", None))
        await connection.receive()
        return usage(pid).files - 1


async def mean_batch(port: int) -> float:
    with closing(Connection(port)) as connection:
        await connection.send(request("/metrics", None))
        text = (await connection.receive()).body.decode()
    images, batches = (
        float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0])
        for name in ("cspyolo_inference_seconds_count", "cspyolo_batches_total")
    )
    return images / max(1.0, batches)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--requests",
        type=above_zero,
        default=10_000,
        metavar="N",
        help="total number of requests (default %(default)s)",
    )
    add("--clients", type=above_zero, default=200, metavar="N", help="number of clients (default %(default)s)")
    add("--img-size", type=above_zero, default=96, metavar="N", help="input size in pixels (default %(default)s)")
    add("--batch-size", type=above_zero, default=8, metavar="N", help="flag of serve.py (default %(default)s)")
    add("--max-queue", type=above_zero, default=16, metavar="N", help="flag of serve.py (default %(default)s)")
    add("--well-behaved", action="store_true", help="no misbehaving clients and no killed decoders")
    add("--seed", type=whole, default=1, metavar="N", help="random seed (default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    model = open_model(
        WEIGHTS,
        cfg=WEIGHTS.with_suffix(".cfg"),
        names=WEIGHTS.with_suffix(".names"),
        device="cpu",
        img_size=(options.img_size, options.img_size),
    )
    with tempfile.TemporaryDirectory() as name:
        known = known_images(model, options.clients, Path(name), options.seed)
        seconds = min(3.0, options.requests / 1000)
        bare = {batch: images_per_s(model, known, Path(name), batch, seconds) for batch in (1, 8)}
    flags = {"--img-size": options.img_size, "--batch-size": options.batch_size, "--max-queue": options.max_queue}
    with server([str(each) for pair in flags.items() for each in pair]) as (port, pid):

        async def run() -> tuple[Tally, float]:
            before = await files_without_clients(port, pid)
            sent = load(port, pid, known, options.requests, options.seed, options.well_behaved)
            limit = _START_S + options.requests * _LONGEST_S
            try:
                tally = await asyncio.wait_for(sent, limit)
            except asyncio.TimeoutError:
                raise RunError(f"{options.requests} requests were not answered in {limit:.0f} s") from None
            batch = await mean_batch(port)
            for _ in range(_CLOSING):
                tally.left_open = max(0, usage(pid).files - before)
                if not tally.left_open:
                    break
                await asyncio.sleep(0.1)
            return tally, batch

        tally, batch = asyncio.run(run())
    print(report(tally, bare, batch))
    if tally.wrong or tally.lost or tally.left_open or tally.unexpected or tally.crashed > tally.killed:
        text = f"{tally.wrong} wrong answers, {tally.lost} lost, {tally.left_open} files left open"
        raise RunError(f"{text}, unexpected: {dict(tally.unexpected)}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main))
