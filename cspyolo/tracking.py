"""Track numbers for the boxes of a video, by the package trackers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cspyolo.results import Results
from utils.errors import InputError
from utils.packages import need

# Name -> class, and which of its thresholds are the confidence of the detector: every box that is drawn may begin a track.
TRACKERS = {
    "bytetrack": ("ByteTrackTracker", ("track_activation_threshold", "high_conf_det_threshold")),
    "ocsort": ("OCSORTTracker", ("high_conf_det_threshold",)),
    "sort": ("SORTTracker", ("track_activation_threshold",)),
}


class Tracker:
    """Called with the results of each frame in order; a new video begins with new tracks.

    conf: confidence threshold of the boxes. Raises InputError for an unknown tracker, and when the package trackers is missing.
    """

    def __init__(self, name: str = "bytetrack", conf: float = 0.25) -> None:
        if name not in TRACKERS:
            raise InputError(f"tracker: unknown {name!r}, expected {', '.join(TRACKERS)}")
        kind, thresholds = TRACKERS[name]
        self._class, self._settings = getattr(need("trackers", "trackers"), kind), dict.fromkeys(thresholds, conf)
        self._path: str | None = None
        self._tracker: Any = None

    def __call__(self, results: Results) -> Results:
        """The results with the boxes that have a confirmed track, and their numbers."""
        if results.probs is not None:
            raise InputError("track: the model is a classifier, it has no boxes to follow")
        if results.path != self._path:
            self._path, self._tracker = results.path, self._class(**self._settings)
        found = results.to_supervision()
        found.data["row"] = np.arange(len(found))
        tracked = self._tracker.update(found)
        confirmed = tracked.tracker_id >= 0 if len(tracked) else np.zeros(0, bool)
        rows = np.asarray(tracked.data.get("row", ()), np.int64)[confirmed]
        numbers = np.asarray(tracked.tracker_id, np.int64)[confirmed] if len(tracked) else np.zeros(0, np.int64)
        return results.with_tracks(rows, numbers)
