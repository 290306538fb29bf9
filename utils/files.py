"""Text files in, whole files out, and run folders."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError, RunError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary stream to a temporary file beside `path`, renamed to `path` when the block succeeds.

    On any exception the temporary file is removed and an existing file stays as it was. Raises RunError if the folder
    cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside `path`; its files move there when the block succeeds.

    On any exception the temporary folder is removed and existing files stay as they were. InputError and RunError name
    `path` in place of the temporary one. Raises RunError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            with _named(Path(folder) / path.name, path) as target:
                yield target
            for file in sorted(Path(folder).iterdir()):
                file.replace(path.parent / file.name)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _named(temporary: Path, path: Path) -> Iterator[Path]:
    try:
        yield temporary
    except (RunError, InputError) as error:
        if str(temporary) not in str(error):
            raise
        kind = RunError if isinstance(error, RunError) else InputError
        raise kind(str(error).replace(str(temporary), str(path))) from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8"))


def read_bytes(path: str | Path) -> bytes:
    """The content of a file. Raises OSError, also for a device: some, such as /dev/zero, never end."""
    with Path(path).open("rb") as stream:
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is a device, not a file", str(path))
        return stream.read()


def read_text(path: str | Path, what: str, *, exact: bool = False, paths: bool = False) -> str:
    """Text of a file the user named; `what` ("cfg", "names", ...) is for the message. Raises InputError.

    UTF-8, or UTF-16 with a byte order mark; the mark is dropped. Other bytes are an error, unless the text holds `paths`:
    they are kept through `surrogateescape`, so that they still name the file. `exact`: keep everything, to write the
    text back unchanged.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what} file") from None
    except OSError as error:
        raise InputError(f"{path}: {what} file cannot be read: {error.strerror}") from error
    return data.decode("utf-8", "surrogateescape") if exact else decoded(data, path, what, paths=paths)


def decoded(data: bytes, path: str | Path, what: str, *, paths: bool = False) -> str:
    """The text in bytes of the file `path`; see `read_text`. Raises InputError."""
    try:
        text = data.decode(encoding_of(data), "surrogateescape" if paths else "strict")
    except UnicodeDecodeError as error:
        place = f"{path}:{data.count(bytes([10]), 0, error.start) + 1}"
        raise InputError(
            f"{place}: byte 0x{data[error.start]:02x} is not UTF-8, expected the {what} as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{path}: contains zero bytes, expected the {what} as UTF-8 text")
    return text


def encoding_of(data: bytes) -> str:
    """Codec of a text: UTF-16 where a byte order mark says so, as some Windows programs write it; else UTF-8."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have is none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, no permission, a zero byte; Python 3.12 answers False itself
        return False


def run_folder(project: str | Path, name: str, *, exist_ok: bool = False) -> Path:
    """Create the folder `project/name`, or `name2`, `name3`, ... if it exists."""
    base = Path(project) / name
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{name}{number}")
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
            return folder
        except FileExistsError:
            if exist_ok:
                raise InputError(f"{folder}: is a file, expected a folder for results") from None
            number += 1
        except OSError as error:
            raise RunError(f"{folder}: cannot be created: {error.strerror}") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
