"""Reading of text files, atomic writing of files, and run folders."""

from __future__ import annotations

import codecs
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError, RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# For user-supplied names: Path's methods raise OSError for a name that is too long or a folder without permission.
exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir

# Characters of a file's name in that of its temporary file: a name has up to 255 bytes, a character up to four.
_KEPT = 48

# Errors of syncing a folder that are ignored: some network file systems cannot, nor can folders without read permission.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary stream to a temporary file next to `path`, which is renamed to `path` when the block succeeds.

    On any exception the temporary file is removed and an existing file stays as it was. After a crash or power loss the
    file is either the old or the complete new one; with `durable`, it is the new one once the block has ended. Writing
    many files without it takes half the time.
    Raises InputError if `path` is a folder, RunError if the folder is not writable or the disk is full.
    """
    path = Path(path)
    if is_folder(path):
        raise InputError(f"{path}: is a folder, expected a file name")
    temporary = path.with_name(f".{path.name[:_KEPT]}.{secrets.token_hex(4)}.part")
    try:
        make_folder(path.parent)
        stream = temporary.open("xb")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with stream:
            _lock(stream)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        _discard(temporary)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    """Remove a temporary file, unless the fault that stopped its writing prevents that too."""
    with suppress(OSError):
        temporary.unlink()


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder next to `path`; all files in it are moved if the block succeeds.

    On any exception the temporary folder is removed and existing files stay as they were. `path` itself is moved last:
    if it exists after a crash, the files that belong to it do too. InputError and RunError name `path` instead of the
    temporary one. Raises RunError if the folder is not writable or the disk is full.
    """
    path = Path(path)
    try:
        make_folder(path.parent)
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:_KEPT]}.", suffix=".part", dir=path.parent) as folder:
            with _named(Path(folder) / path.name, path) as target:
                yield target
            files = sorted(Path(folder).iterdir(), key=lambda file: (file.name == path.name, file.name))
            for file in files:
                _sync(file)
            if len(files) > 1 and path.is_file():
                path.unlink()
                sync_folder(path.parent)
            for file in files:
                file.replace(path.parent / file.name)
                sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def publish(temporary: Path, path: Path) -> None:
    """Rename a complete file in the same folder to `path`, durably. Raises OSError or RunError."""
    _sync(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; those still being written stay."""
    for path in folder.glob(".*.part"):
        if path.is_file():
            with path.open("rb") as stream:
                if _lock(stream):
                    path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk if its file system can. Raises RunError."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from error


def _lock(stream: BinaryIO) -> bool:
    """Lock a file while it is open; return False if another process has it locked, or the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Flush a file, or all files in a folder, to the disk."""
    if path.is_dir():
        for each in path.iterdir():
            _sync(each)
        sync_folder(path)
    else:
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())


@contextmanager
def _named(temporary: Path, path: Path) -> Iterator[Path]:
    try:
        yield temporary
    except (RunError, InputError) as error:
        if str(temporary) not in str(error):
            raise
        kind = RunError if isinstance(error, RunError) else InputError
        raise kind(str(error).replace(str(temporary), str(path))) from error


def write_text(path: str | Path, text: str, *, durable: bool = True) -> None:
    """Write `text` as UTF-8, completely or not at all; see `atomic_write`."""
    with atomic_write(path, durable=durable) as stream:
        stream.write(text.encode("utf-8"))


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file. Raises OSError, also for devices, some of which never end (/dev/zero)."""
    with Path(path).open("rb") as stream:
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is a device, not a file", str(path))
        return stream.read()


def read_text(path: str | Path, what: str, *, exact: bool = False, paths: bool = False) -> str:
    """Return the text of a user's file; `what` ("cfg", "names", ...) is for the message. Raises InputError.

    The encoding is UTF-8, or UTF-16 with a byte order mark, which is dropped. Other bytes are an error unless the text
    contains `paths`; then `surrogateescape` keeps them, so that they still name the file.
    exact: keep everything, to write the text back unchanged.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what} file") from None
    except OSError as error:
        raise InputError(f"{path}: {what} file cannot be read: {error.strerror}") from error
    return data.decode("utf-8", "surrogateescape") if exact else decoded(data, path, what, paths=paths)


def decoded(data: bytes, path: str | Path, what: str, *, paths: bool = False) -> str:
    """Decode the bytes of the file `path`; see `read_text`. Raises InputError."""
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
    """Return the codec of a text: UTF-16 with a byte order mark, as some Windows programs write it; else UTF-8."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def latest_run(project: str | Path, file: str, what: str) -> Path:
    """Return the folder in `project` whose `file` was modified last. Raises InputError, calling it `what`."""
    runs = [folder for folder in Path(project).glob("*") if is_file(folder / file)]
    if not runs:
        raise InputError(
            f"--resume: no {what} in {project}; name the one to resume, or leave --resume out to start one"
        )
    return max(runs, key=lambda folder: (folder / file).stat().st_mtime)


def run_folder(project: str | Path, name: str, *, exist_ok: bool = False) -> Path:
    """Create the folder `project/name`, or `name2`, `name3`, ... if it exists."""
    if not name:
        raise InputError("--name: is empty, expected the name of a folder")
    base = Path(project) / name
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{name}{number}")
        try:
            make_folder(folder.parent)
            folder.mkdir(exist_ok=exist_ok)
            sync_folder(folder.parent)
            return folder
        except FileExistsError:
            if exist_ok:
                raise InputError(f"{folder}: is a file, expected a folder") from None
            number += 1
        except OSError as error:
            raise RunError(f"{folder}: cannot be created: {error.strerror}") from error
