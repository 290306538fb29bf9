"""A journal of a long run, so that an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.errors import InputError, RunError

JOURNAL = "unfinished.jsonl"
_PERIOD_S = 0.2


class GrowingFile:
    """A file to which complete pieces are appended and flushed at once. size: in bytes.

    kept: bytes of an existing file to keep; the rest is cut off. Raises RunError.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self.path, self.size = path, kept
        try:
            if kept and path.stat().st_size < kept:  # after a power loss; truncate() would pad it with zeros
                raise RunError(
                    f"{path}: has lost its end, {kept} bytes were written; start the run again without --resume"
                )
            self._stream = path.open("r+b" if kept else "wb")
            self._stream.truncate(kept)
            self._stream.seek(kept)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, piece: bytes) -> None:
        try:
            self._stream.write(piece)
            self._stream.flush()
        except OSError as error:
            raise self._failure(error) from error
        self.size += len(piece)

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        try:
            with self._stream:
                os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run.

    done: number of finished images and videos.
    failed: indices of those without a result.
    sizes: sizes of the result files in bytes.
    """

    done: int
    failed: frozenset[int]
    sizes: Mapping[str, int]


NOTHING = Progress(done=0, failed=frozenset(), sizes={})


class Journal:
    """The file `unfinished.jsonl` of a run folder: the run's `identity`, then its progress a few times a second.

    entries: the run's images and videos.
    after: the progress to continue from.
    past: entries that had results by then.
    """

    def __init__(
        self, folder: Path, entries: Sequence[str], identity: Mapping[str, Any], after: Progress = NOTHING
    ) -> None:
        path = folder / JOURNAL
        self.after = after
        self.past = [entry for number, entry in enumerate(entries[: after.done]) if number not in after.failed]
        self._file = GrowingFile(path, path.read_bytes().rfind(b"\n") + 1 if after.done else 0)
        if not after.done:
            self._file.write(json.dumps(identity).encode() + b"\n")
        self._failed, self._latest, self._written = list[int](), after, 0.0
        self.note(0, after.sizes)

    def note(self, number: int, sizes: Mapping[str, int]) -> None:
        """Note that everything before image or video `number` of this part is finished. sizes: bytes of each file so far."""
        self._latest = Progress(done=self.after.done + number, failed=frozenset(), sizes=sizes)
        if time.monotonic() - self._written >= _PERIOD_S:
            self._write()

    def note_failed(self, number: int) -> None:
        self._failed.append(self.after.done + number)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        """Write the last progress. Errors are ignored: whatever fails here has already failed elsewhere."""
        with suppress(RunError):
            if self._file.path.exists():
                self._write()
            self._file.close()

    def remove(self) -> None:
        """Remove the file of a finished run."""
        self._file.path.unlink(missing_ok=True)

    def _write(self) -> None:
        failed, self._failed = self._failed, []
        line = {"done": self._latest.done, "failed": failed, "sizes": dict(self._latest.sizes)}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._written = time.monotonic()


def identity_of(entries: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must not change between two parts of a run: a digest of its images and videos, and the options."""
    digest = hashlib.sha256("\0".join(entries).encode("utf-8", "surrogateescape")).hexdigest()
    return {"entries": len(entries), "sha256": digest, **json.loads(json.dumps(options))}


def read_progress(folder: Path, identity: Mapping[str, Any], sizes: Mapping[str, int]) -> Progress:
    """Return the last progress of the run in `folder` that its files hold completely. sizes: bytes of each file.

    Raises InputError if there is no unfinished run, or one with another identity.
    """
    try:
        lines = (folder / JOURNAL).read_bytes().split(b"\n")[:-1]
        records = [json.loads(line) for line in lines]
        own, notes = records[0], records[1:]
    except (OSError, ValueError, IndexError):
        raise InputError(f"{folder}: has no unfinished run to resume; leave --resume out to start one") from None
    for key, value in identity.items():
        if own.get(key) != value:
            what = "the source has other images and videos" if key in ("entries", "sha256") else f"{key} is {value!r}"
            was = "" if key in ("entries", "sha256") else f", it was {own.get(key)!r}"
            raise InputError(f"--resume {folder}: {what}{was}; repeat the command of that run, or start a new one")
    failed, best = set[int](), NOTHING
    for note in notes:
        failed.update(note["failed"])
        if all(sizes.get(name, 0) >= size for name, size in note["sizes"].items()):
            best = Progress(done=note["done"], failed=frozenset(), sizes=note["sizes"])
    return replace(best, failed=frozenset(number for number in failed if number < best.done))
