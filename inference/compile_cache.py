"""A disk cache of compiled models, so that opening a model again takes less time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of all files together; the least recently used are removed first
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """Return the cache folder, which may not exist yet. Raises RuntimeError for a user without a home directory."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "cspyolo"


def read(key: str) -> bytes | None:
    """Return the content stored as `key`; None if there is none or it is damaged, in which case it is removed."""
    try:
        path = folder() / key
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            logger.info("%s: is damaged; compiling the model again", path)
            path.unlink()
            return None
    except (OSError, RuntimeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # mark as recently used
    return content[_DIGEST:]


def write(key: str, content: bytes) -> None:
    """Store `content` as `key`, completely or not at all. If it cannot be stored, the model is compiled each time."""
    if len(content) > MOST_BYTES:
        return
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        _make_room(place, len(content))
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=place)
        try:
            with os.fdopen(handle, "wb") as stream:  # no fsync: `read` detects damaged files
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
            Path(temporary).replace(place / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        logger.info("the compiled model is not cached: %s", error)


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
