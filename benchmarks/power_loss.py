"""Simulate a power loss after every system call of the commands that write results, and check what would be on the disk.

strace records what a command does to its files: create, write, truncate, sync, rename, remove. The recording is replayed on a
model of a disk that keeps only what POSIX guarantees: the content of a file after fsync of the file, a name after fsync of its
folder. After every call, all states that a power loss could leave are generated: each unsynced name kept or lost, and unsynced
content missing, cut in half, zeros, or complete. In every state, each file must be the old one, the new one, or absent; after
the end of the command, everything that it wrote must be there.

  python benchmarks/power_loss.py
  python benchmarks/power_loss.py --only export
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from benchmarks.kills import COMMANDS, Command, fork, inputs, torn_sets
from inference.journal import JOURNAL
from utils.cli import EXIT_OK, run_script

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,lseek,ftruncate,truncate,fallocate,fsync,fdatasync,sync,rename,renameat,"
    "renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,dup,dup2,dup3,close,copy_file_range,sendfile,chdir"
)
_SEPARATE = 8  # number of unsynced names that are kept or lost independently; older ones only together
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_HANDLE = re.compile(r"(?:(\d+)|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Call:
    """A successful system call.

    handles: (number, path) of its file descriptors.
    texts: its string arguments.
    found: its return value.
    """

    name: str
    handles: tuple[tuple[int, str], ...]
    texts: tuple[bytes, ...]
    rest: str
    found: int

    @property
    def folder(self) -> str:
        """The folder that its paths are relative to; empty for the working folder."""
        return self.handles[0][1] if self.handles else ""


def record(command: list[str], log: Path) -> list[Call]:
    """Run a command under strace; returns its calls in order. Raises RuntimeError if it fails."""
    strace = ["strace", "-f", "-y", "-xx", "-s", str(2**24), "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run([*strace, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stderr}")
    return list(_calls(log))


def _calls(log: Path) -> Iterator[Call]:
    begun: dict[str, str] = {}
    with log.open() as lines:
        for line in lines:
            thread = line.split(maxsplit=1)[0]
            if line.endswith("<unfinished ...>\n"):
                begun[thread] = line.removesuffix("<unfinished ...>\n")
                continue
            if "resumed>" in line[:60]:
                line = begun.pop(thread) + line.partition("resumed>")[2]
            match = _LINE.match(line)
            if match is None or match[3].startswith("-"):
                continue
            arguments = match[2]
            strings = _STRING.findall(arguments)
            assert not any(cut for _, cut in strings), f"strace cut a string: {line[:100]}"
            handles = tuple((int(number or -1), _bytes(path).decode()) for number, path in _HANDLE.findall(arguments))
            rest = _HANDLE.sub("", _STRING.sub("", arguments))
            yield Call(match[1], handles, tuple(_bytes(text) for text, _ in strings), rest, int(match[3]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(eq=False)
class Entry:
    """A file, folder or link; data: what was written; synced: what fsync has brought to the disk, None if nothing."""

    folder: bool = False
    link: bytes | None = None
    data: bytes = b""
    synced: bytes | None = None
    names: dict[str, Entry] = field(default_factory=dict)
    durable: dict[str, Entry] = field(default_factory=dict)


def _set(names: dict[str, Entry], name: str, entry: Entry | None) -> None:
    """Bind a name to an entry; None removes the name."""
    if entry is None:
        names.pop(name, None)
    else:
        names[name] = entry


class Disk:
    """The files below `root`, and what would survive a power loss."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, _read(root)
        self.pending: list[tuple[Entry, str, Entry | None]] = []  # unsynced changes of names, in order
        self.whole: dict[str, set[bytes]] = {}
        """Contents that a name may have: those before, and those that it had when a complete file was renamed to it."""
        for name, entry in _files(self.top.names):
            self.whole.setdefault(name, set()).add(entry.data)
        self._working = Path.cwd()
        self._opened: dict[int, tuple[Entry, int, bool]] = {}

    def apply(self, call: Call) -> bool:
        """Apply a call; returns whether it changed anything."""
        act = getattr(self, f"_{call.name.rstrip('0123456789')}", None)
        return bool(act(call)) if act is not None else self._refuse(call)

    def _refuse(self, call: Call) -> bool:
        assert not any(self._inside(path) for _, path in call.handles), f"{call.name} is not in the model"
        return False

    # What can be on the disk after a power loss

    def states(self) -> Iterator[dict[str, bytes]]:
        """Yield the visible files by name, for each state that a power loss at this point could leave."""
        pending = len(self.pending)
        choices = [set(range(count)) for count in range(max(0, pending - _SEPARATE), pending + 1)]
        choices += [{number} for number in range(max(0, pending - _SEPARATE), pending)]
        choices += [set(range(pending)) - choice for choice in choices] + [set()]
        for chosen in {frozenset(choice) for choice in choices}:
            changed: dict[Entry, dict[str, Entry]] = {}
            for number in sorted(chosen):
                folder, name, entry = self.pending[number]
                _set(changed.setdefault(folder, dict(folder.durable)), name, entry)
            for content in (_synced, _half, _zeros, _complete):
                yield {name: content(entry) for name, entry in _files(changed.get(self.top, self.top.durable), changed)}

    def now(self) -> dict[str, bytes]:
        """The visible files as the command sees them."""
        return {name: entry.data for name, entry in _files(self.top.names)}

    # System calls

    def _openat(self, call: Call) -> bool:
        where = self._place(call.folder, call.texts[0])
        if where is None or "O_DIRECTORY" in call.rest:
            self._opened.pop(call.found, None)
            return False
        folder, name = where
        entry = folder.names.get(name)
        changed = False
        if entry is None:
            entry = Entry()
            self._name(folder, name, entry)
            changed = True
        elif "O_TRUNC" in call.rest and entry.data:
            entry.data = b""
            changed = True
        self._opened[call.found] = (entry, 0, "O_APPEND" in call.rest)
        return changed

    _open = _creat = _openat

    def _chdir(self, call: Call) -> bool:
        self._working /= call.texts[0].decode()
        return False

    def _close(self, call: Call) -> bool:
        self._opened.pop(call.handles[0][0], None) if call.handles else None
        return False

    def _dup(self, call: Call) -> bool:
        if call.handles and call.handles[0][0] in self._opened:
            self._opened[call.found] = self._opened[call.handles[0][0]]
        return False

    def _lseek(self, call: Call) -> bool:
        if (known := self._known(call)) is not None:
            self._opened[call.handles[0][0]] = (known[0], call.found, known[2])
        return False

    def _write(self, call: Call) -> bool:
        if (known := self._known(call)) is None:
            return False
        entry, place, append = known
        place = len(entry.data) if append else place
        self._put(entry, place, b"".join(call.texts)[: call.found])
        self._opened[call.handles[0][0]] = (entry, place + call.found, append)
        return True

    _writev = _write

    def _pwrite(self, call: Call) -> bool:
        if (known := self._known(call)) is None:
            return False
        self._put(known[0], int(call.rest.rpartition(",")[2]), b"".join(call.texts)[: call.found])
        return True

    _pwritev = _pwrite

    def _put(self, entry: Entry, place: int, data: bytes) -> None:
        before = entry.data.ljust(place, b"\0")
        entry.data = before[:place] + data + before[place + len(data) :]

    def _ftruncate(self, call: Call) -> bool:
        if (known := self._known(call)) is None:
            return False
        length = int(call.rest.rpartition(",")[2])
        known[0].data = known[0].data[:length].ljust(length, b"\0")
        return True

    def _fsync(self, call: Call) -> bool:
        where = self._inside(call.handles[0][1])
        entry = self._entry(where) if where is not None else None
        if entry is None:
            return False
        if entry.folder:
            for folder, name, other in [change for change in self.pending if change[0] is entry]:
                _set(folder.durable, name, other)
            self.pending = [change for change in self.pending if change[0] is not entry]
        else:
            entry.synced = entry.data
        return True

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        folders = [path for _, path in call.handles] or ["", ""]
        source, target = (self._place(folder, text) for folder, text in zip(folders, call.texts, strict=True))
        assert (source is None) == (target is None), "renamed across the border"
        if source is None or target is None:
            return False
        entry = source[0].names[source[1]]
        self._name(target[0], target[1], entry)
        self._name(source[0], source[1], None)
        for name, each in _files(self.top.names):
            self.whole.setdefault(name, set()).add(each.data) if each is entry or entry.folder else None
        return True

    _renameat = _rename

    def _unlinkat(self, call: Call) -> bool:
        return self._named(call, call.texts[0], None)

    _unlink = _rmdir = _unlinkat

    def _mkdirat(self, call: Call) -> bool:
        return self._named(call, call.texts[0], Entry(folder=True))

    _mkdir = _mkdirat

    def _symlinkat(self, call: Call) -> bool:
        return self._named(call, call.texts[1], Entry(link=call.texts[0]))

    _symlink = _symlinkat

    def _named(self, call: Call, path: bytes, entry: Entry | None) -> bool:
        where = self._place(call.folder, path)
        if where is not None:
            self._name(*where, entry)
        return where is not None

    def _name(self, folder: Entry, name: str, entry: Entry | None) -> None:
        _set(folder.names, name, entry)
        self.pending.append((folder, name, entry))

    def _known(self, call: Call) -> tuple[Entry, int, bool] | None:
        if not call.handles or self._inside(call.handles[0][1]) is None:
            return None
        return self._opened.get(call.handles[0][0])

    def _inside(self, path: str) -> tuple[str, ...] | None:
        """Parts of a path relative to the root; None if it is outside."""
        given = Path(path)
        return given.relative_to(self.root).parts if given.is_relative_to(self.root) else None

    def _entry(self, parts: Iterable[str]) -> Entry | None:
        entry: Entry | None = self.top
        for part in parts:
            entry = entry.names.get(part) if entry is not None else None
        return entry

    def _place(self, folder: str, text: bytes) -> tuple[Entry, str] | None:
        """Parent entry and name of a path relative to `folder`; None if it is outside the root."""
        parts = self._inside(str(self._working / folder / text.decode()))
        if not parts:
            return None
        parent = self._entry(parts[:-1])
        assert parent is not None, f"{text!r}: its folder is unknown"
        return parent, parts[-1]


def _read(path: Path) -> Entry:
    """Read what is already on the disk, as durable."""
    if path.is_symlink():
        return Entry(link=bytes(path.readlink()))
    if not path.is_dir():
        data = path.read_bytes()
        return Entry(data=data, synced=data)
    entry = Entry(folder=True, names={each.name: _read(each) for each in path.iterdir()})
    entry.durable = dict(entry.names)
    return entry


def _files(
    names: dict[str, Entry], changed: dict[Entry, dict[str, Entry]] | None = None, at: str = ""
) -> Iterator[tuple[str, Entry]]:
    """Yield the user-visible files.

    changed: names in folders that differ from the durable ones; None: the names that the command sees.
    """
    for name, entry in names.items():
        if name.startswith(".") or name.endswith(".part") or name == JOURNAL or "tfevents" in name:
            continue
        if entry.folder:
            inner = entry.names if changed is None else changed.get(entry, entry.durable)
            yield from _files(inner, changed, f"{at}{name}/")
        else:
            yield f"{at}{name}", entry


def _synced(entry: Entry) -> bytes:
    return entry.link or entry.synced or b""


def _half(entry: Entry) -> bytes:
    return entry.link or (entry.data if entry.data == entry.synced else entry.data[: len(entry.data) // 2])


def _zeros(entry: Entry) -> bytes:
    return entry.link or (entry.data if entry.data == entry.synced else bytes(len(entry.data)))


def _complete(entry: Entry) -> bytes:
    return entry.link or entry.data


@dataclass
class Found:
    """What was found.

    calls: number of calls that changed something.
    states: number of states after a power loss.
    different: number of distinct states.
    bad: descriptions of what was wrong.
    late: files that a power loss directly after the end of the command could revert.
    """

    calls: int = 0
    states: int = 0
    different: int = 0
    bad: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


def examine(calls: Iterable[Call], disk: Disk, sets: tuple[tuple[str, str], ...] = (), grows: str = "") -> Found:
    """Replay calls and check every state; sets: see Command; grows: name of a file that is written incrementally."""
    found, seen, bad = Found(), set[int](), dict[str, None]()
    before = disk.now()
    states: list[dict[str, bytes]] = []
    for call in calls:
        if not disk.apply(call):
            continue
        found.calls += 1
        for state in disk.states():
            found.states += 1
            key = hash(frozenset(state.items()))
            if key not in seen:
                seen.add(key)
                states.append(state)
    real = {name: entry.data for name, entry in _files(_read(disk.root).names)}
    after = disk.now()
    assert after == real, "the recording is not what the command did"
    for state in states:
        for name, data in state.items():
            whole = disk.whole.get(name, {after.get(name)})
            if data not in whole and not (grows and name.endswith(grows)):
                bad[f"{name}: {len(data)} bytes"] = None
        bad |= dict.fromkeys(torn_sets(state, (before, after), sets))
    found.different, found.bad = len(seen), tuple(bad)
    worst = list(disk.states())
    found.late = tuple(name for name, data in after.items() if any(state.get(name) != data for state in worst))
    return found


def _train(folder: Path, version: int) -> int:
    flags = ["--cfg", f"{folder}/my.cfg", "--data", f"{folder}/my.data", "--project", str(folder), "--name", "out"]
    return run_script(train.main, [*flags, "--iterations", str(4 + version), "--exist-ok", "--workers", "0"])


ALL = {name: command for name, command in COMMANDS.items() if name != "compiled models"} | {
    "training": Command(run=_train)
}
"""Compiled models are not synced: a hash detects damaged ones when they are read, and they are compiled again."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ALL), help="commands to examine (default all)")
    parser.add_argument("--run", nargs=3, metavar=("COMMAND", "FOLDER", "VERSION"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    options = parse_arguments()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if options.run:
        name, folder, version = options.run
        return ALL[name].run(Path(folder), int(version))
    if shutil.which("strace") is None:
        sys.exit("needs strace")
    print("| what | calls | states | different | result | not durable at the end |\n|---|---|---|---|---|---|")
    failed = False
    for name in options.only or ALL:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary).resolve() / "disk"
            folder.mkdir()
            inputs(folder)
            if not ALL[name].fresh:
                old = fork(folder / "log", lambda name=name, folder=folder: ALL[name].run(folder, 0))  # type: ignore[misc]
                assert os.waitstatus_to_exitcode(os.waitpid(old, 0)[1]) == EXIT_OK, (folder / "log").read_text()
            (folder / "out").mkdir(exist_ok=True)
            disk = Disk(folder / "out")
            calls = record([sys.executable, __file__, "--run", name, str(folder), "1"], folder.parent / "strace.log")
            found = examine(calls, disk, ALL[name].sets, "results.csv")
        result = f"BROKEN: {', '.join(found.bad[:5])}" if found.bad else "all old, new or absent"
        counts = f"{found.calls} | {found.states} | {found.different}"
        print(f"| {name} | {counts} | {result} | {len(found.late)} |", flush=True)
        failed |= bool(found.bad)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
