"""Counts and times of serve.py's requests, in Prometheus' format."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.service import DetectionService

_LONGEST_WAIT_S = 60


@dataclass
class _Request:
    status: int = 500


class Metrics:
    """Metrics of the uploads since the start; used only in the event loop's thread.

    queue: number of requests being received, waiting, or answered.
    """

    MEDIA_TYPE = "text/plain; version=0.0.4"

    def __init__(self, service: DetectionService) -> None:
        self.queue = 0
        self._service = service
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def request(self, path: str) -> Iterator[_Request]:
        """Count the block as a request, including its duration; the block sets its status."""
        found, start = _Request(), time.perf_counter()
        self.queue += 1
        try:
            yield found
        finally:
            self.queue -= 1
            self._requests[path, found.status] += 1
            self._seconds[path] += time.perf_counter() - start

    def retry_after(self, waiting: int) -> int:
        """Return the whole seconds after which `waiting` requests should be done."""
        mean = sum(self._seconds.values()) / max(1, self._requests.total())
        return min(max(1, math.ceil(mean * waiting)), _LONGEST_WAIT_S)

    def text(self) -> str:
        """Return the content of /metrics."""
        network, counts = self._service.network, sorted(self._requests.items())
        totals: Counter[str] = Counter()
        for (path, _), count in counts:
            totals[path] += count
        seconds = "cspyolo_request_seconds"
        lines = [
            "# HELP cspyolo_requests_total Requests by path and status; a status from 400 is an error.",
            "# TYPE cspyolo_requests_total counter",
            *(f'cspyolo_requests_total{{path="{path}",status="{status}"}} {n}' for (path, status), n in counts),
            "# HELP cspyolo_queue_length Requests being received, waiting, or answered.",
            "# TYPE cspyolo_queue_length gauge",
            f"cspyolo_queue_length {self.queue}",
            f"# HELP {seconds} Time from the first byte of a request to the last of its answer.",
            f"# TYPE {seconds} summary",
            *(f'{seconds}_sum{{path="{path}"}} {value:.6f}' for path, value in sorted(self._seconds.items())),
            *(f'{seconds}_count{{path="{path}"}} {count}' for path, count in sorted(totals.items())),
            "# HELP cspyolo_inference_seconds Time in the model, by image or video frame.",
            "# TYPE cspyolo_inference_seconds summary",
            f"cspyolo_inference_seconds_sum {network.seconds:.6f}",
            f"cspyolo_inference_seconds_count {network.images}",
            "# HELP cspyolo_batches_total Batches that went through the model.",
            "# TYPE cspyolo_batches_total counter",
            f"cspyolo_batches_total {network.batches}",
        ]
        return "\n".join(lines) + "\n"
