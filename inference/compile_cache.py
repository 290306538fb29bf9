"""Compiled models on disk, so that opening one again takes less time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of all files together; those used longest ago are removed first
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """The folder of the files; it need not exist. Raises RuntimeError for a user without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "cspyolo"


def read(key: str) -> bytes | None:
    """What was written as `key`; None without a file, and for a damaged one, which is removed."""
    try:
        path = folder() / key
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            logger.info("%s: is damaged; the model is compiled again", path)
            path.unlink()
            return None
    except (OSError, RuntimeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # a sign of use
    return content[_DIGEST:]


def write(key: str, content: bytes) -> None:
    """Keep `content` as `key`, whole or not at all. Where that cannot be done, models are compiled each time."""
    if len(content) > MOST_BYTES:
        return
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        _make_room(place, len(content))
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=place)
        try:
            with os.fdopen(handle, "wb") as stream:  # not synchronised with the disk: `read` recognises what is damaged
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
            Path(temporary).replace(place / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        logger.info("the compiled model is not kept: %s", error)


def remove(key: str) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        (folder() / key).unlink()


def _make_room(place: Path, size: int) -> None:
    files = sorted(
        ((path.stat(), path) for path in place.iterdir() if path.is_file()), key=lambda each: each[0].st_mtime
    )
    total = size + sum(facts.st_size for facts, _ in files)
    for facts, path in files:
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= facts.st_size
