"""Fuzz every reader with damaged and hostile files, requests and command lines.

An input may be accepted, or rejected with one of our own errors. Anything else is a finding: another exception, processor time
or memory beyond the limits, a crash, execution of code from the input, a file written outside the input's folder, a connection.
Inputs are made by changing the structure of valid ones (benchmarks/fuzz_targets.py); target, seed and number determine an input.
They run in forked processes, so a crash or a hang costs only one input. The campaign can be stopped at any time and continues
where it stopped. Every finding is saved as a folder with the files of its input.

  python -m benchmarks.fuzz --minutes 60 --seed 1
  python -m benchmarks.fuzz --target coco --seed 1 --number 4711   # repeat one input, with its traceback
"""

from __future__ import annotations

import errno
import importlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2
import torch

from benchmarks.fuzz_targets import SCRIPTS, TARGETS, Target, make_seeds
from utils.cli import EXIT_FAILED, EXIT_OK, above_zero, options_from, positive, run_script, script_parser, whole
from utils.errors import InputError, RunError
from utils.files import write_text

STUCK_S = 60.0  # time without progress, counted while the watching process is awake
_POLL_S = 0.05
_KEPT = 3  # inputs saved per finding
_FOUND = 3  # exit code of a process that ended with a finding


class Hang(BaseException):
    """An input took more processor time than its limit."""


class Forbidden(BaseException):
    """An input made the program write outside its folder, execute something, or connect."""


@dataclass
class Count:
    """Statistics of a target's inputs.

    next: number of the next input.
    seconds: processor time of all inputs.
    worst_*: maximum of a single input.
    """

    next: int = 0
    accepted: int = 0
    refused: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    worst_s: float = 0.0
    slowest: int = 0
    worst_mib: float = 0.0
    largest: int = 0


class Progress:
    """Numbers shared by a worker and the process that watches it."""

    _LAYOUT = struct.Struct("=qqqdqqq")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._LAYOUT.size)

    def write(self, *values: float) -> None:
        """Store number, accepted, refused, seconds of the slowest, slowest, KiB of the largest, largest, in this order."""
        self._LAYOUT.pack_into(self._memory, 0, *values)

    def read(self) -> tuple[int, int, int, float, int, int, int]:
        return self._LAYOUT.unpack_from(self._memory)


class Sandbox:
    """A folder to run inputs in: `case` is the working folder, `tmp` holds temporary files, nothing else may change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.case, self.tmp = folder, folder / "case", folder / "tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)
        (folder / "outside").mkdir(exist_ok=True)
        self._own = {"case", "tmp", "outside", "seeds", "finding.json"}

    def fresh(self) -> Path:
        """Create an empty working folder."""
        os.chdir(self.folder)
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        os.chdir(self.case)
        return self.case

    def strays(self) -> list[str]:
        """Find and remove files written outside the sandbox by native code, which the audit hook does not see."""
        found = [path for path in self.folder.iterdir() if path.name not in self._own]
        found += (self.folder / "outside").iterdir()
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return [path.name for path in found]


# Audit event of a change -> positions of its path arguments, each with the position of its folder descriptor.
_CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
}
_PROGRAMS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pty.spawn"}
_DECODER = "from serving.decoder import work"  # the program that serve.py starts
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Guard:
    """An audit hook that while `active` forbids writing outside the sandbox, other programs, pickled code and connections."""

    def __init__(self, sandbox: Sandbox, target: Target) -> None:
        self.active, self._is_command = False, target.is_command
        self._named = (Path(os.sep), sandbox.folder.resolve())  # reached by "/" and ".." on a command line
        self._allowed = tuple(f"{path.resolve()}{os.sep}" for path in (sandbox.case, sandbox.tmp))
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            if arguments[2] & _WRITING:
                self._change(event, arguments[0])
        elif event in _CHANGES:
            for place, descriptor in _CHANGES[event]:
                self._change(event, arguments[place], -1 if descriptor is None else arguments[descriptor])
        elif event in ("os.listdir", "os.scandir") and arguments[0] in (os.sep, 2 * os.sep):
            self._deny(arguments[0])  # searching all disks takes too long
        elif event in _PROGRAMS and not (arguments[0] == sys.executable and _DECODER in arguments[1][-1]):
            raise Forbidden(f"executes: {event} {arguments[:2]}")
        elif event == "pickle.find_class":
            raise Forbidden(f"unpickles: {'.'.join(arguments)}")
        elif event == "socket.connect":
            self._connect(arguments[1][0])
        elif event == "socket.getaddrinfo":
            self._connect(arguments[0])

    def _change(self, event: str, path: Any, folder: int = -1) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # the file is already open
        base = Path.cwd() if folder == -1 else Path(f"/proc/self/fd/{folder}")
        full = os.path.realpath(base / os.fsdecode(path))
        if full == os.devnull or f"{full}{os.sep}".startswith(self._allowed):
            return
        if Path(full) in self._named:
            return  # it already exists and stays as it is
        if self._is_command and Path(full).parent in self._named:
            self._deny(full)
        raise Forbidden(f"writes outside: {event} {os.fsdecode(path)}")

    @staticmethod
    def _deny(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def _connect(self, address: Any) -> None:
        if address in ("127.0.0.1", "localhost", "::1"):
            return
        if self._is_command:
            raise OSError(101, "Network is unreachable")
        raise Forbidden(f"connects: {address}")


def draw_of(target: Target, seed: int, number: int) -> random.Random:
    """The random generator of an input."""
    return random.Random(f"{target.name}/{seed}/{number}")


def worker(
    target: Target, seed: int, sandbox: Sandbox, first: int, seconds: float, count: int, progress: Progress
) -> None:
    """Run up to `count` inputs, starting with number `first`, until the time is up. Never returns."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    target.begin(sandbox.folder / "seeds")
    confine(target)
    guard = Guard(sandbox, target)
    accepted = refused = slowest = largest = 0
    worst, base = 0.0, peak_kib()
    most, deadline, number = base, time.monotonic() + seconds, first
    while number < first + count and (time.monotonic() < deadline or number == first):
        progress.write(number, accepted, refused, worst, slowest, most - base, largest)
        begun = time.process_time()
        try:
            taken = attempt(target, seed, number, sandbox, guard)
        except BaseException as error:
            note = {"signature": signature(error), "text": "".join(traceback.format_exception(error))[-6000:]}
            os.chdir(sandbox.folder)
            (sandbox.folder / "finding.json").write_text(json.dumps(note))
            os._exit(_FOUND)
        accepted, refused = accepted + taken, refused + (not taken)
        if (used := time.process_time() - begun) > worst:
            worst, slowest = used, number
        if (kib := peak_kib()) > most:
            most, largest = kib, number
        number += 1
    progress.write(number, accepted, refused, worst, slowest, most - base, largest)
    os._exit(EXIT_OK)


def confine(target: Target) -> None:
    """Limit this process: memory beyond what it uses now, and processor time per input."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + target.memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def hang(*_: object) -> None:
        raise Hang(f"more than {target.seconds:g} s of processor time")

    signal.signal(signal.SIGPROF, hang)


def attempt(target: Target, seed: int, number: int, sandbox: Sandbox, guard: Guard) -> bool:
    """Make and run an input; True if it was accepted, False if it was rejected. Any other exception is a finding."""
    folder = sandbox.fresh()
    arguments = target.make(draw_of(target, seed, number), sandbox.folder / "seeds", folder)
    signal.setitimer(signal.ITIMER_PROF, target.seconds)
    guard.active = True
    try:
        target.run(*arguments)
        accepted = True
    except (InputError, RunError) as error:
        assert str(error), "an error without a message"
        accepted = False
    finally:
        guard.active = False
        signal.setitimer(signal.ITIMER_PROF, 0)
    if strays := sandbox.strays():
        raise Forbidden(f"writes outside: {strays[0]}")
    return accepted


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def signature(error: BaseException) -> str:
    """Identifies findings with the same cause: the type of the error and the innermost line in the project."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    inner = [frame for frame in frames if "/benchmarks/" not in frame.filename]
    at = f" in {Path(inner[-1].filename).relative_to(ROOT)} {inner[-1].name}" if inner else ""
    detail = f": {error}" if isinstance(error, Hang | Forbidden) else ""
    return f"{type(error).__name__}{detail}{at}"


class Campaign:
    """Runs inputs of `targets` in turn. Counts are stored in out/counts.json, inputs of findings in out/findings."""

    def __init__(self, targets: Sequence[Target], seed: int, out: Path, folder: Path) -> None:
        self.targets, self.seed, self.out, self.sandbox = targets, seed, out, Sandbox(folder)
        kept = json.loads(self._state.read_text("utf-8")) if self._state.exists() else {}
        self.counts = {target.name: Count(**kept.get(target.name, {})) for target in targets}
        self.others = {name: value for name, value in kept.items() if name not in self.counts}

    @property
    def _state(self) -> Path:
        return self.out / f"counts-{self.seed}.json"

    @property
    def findings(self) -> dict[str, int]:
        return {f"{name}: {what}": n for name, count in self.counts.items() for what, n in count.findings.items()}

    def run(self, *, seconds: float, count: int | None) -> None:
        """Give each target a slice of time in turn, until the time is up or each has had `count` inputs."""
        deadline = time.monotonic() + seconds
        ends = {name: None if count is None else value.next + count for name, value in self.counts.items()}
        left = list(self.targets)
        while left and time.monotonic() < deadline:
            for target in list(left):
                end = ends[target.name]
                self._slice(target, min(target.slice_s, deadline - time.monotonic()), end)
                if end is not None and self.counts[target.name].next >= end:
                    left.remove(target)
                if time.monotonic() >= deadline:
                    break
            self.save()

    def save(self) -> None:
        values = self.others | {name: asdict(count) for name, count in self.counts.items()}
        write_text(self._state, json.dumps(values, indent=1) + "\n")

    def _slice(self, target: Target, seconds: float, end: int | None) -> None:
        deadline, count = time.monotonic() + seconds, self.counts[target.name]
        while True:
            most = 10**9 if end is None else end - count.next
            if most <= 0 or not self._fork(target, deadline - time.monotonic(), most):
                return
            if time.monotonic() >= deadline:
                return

    def _fork(self, target: Target, seconds: float, most: int) -> bool:
        """Run inputs in a child process; True if it ended with a finding, so that its slice is not finished."""
        count, progress = self.counts[target.name], Progress()
        (self.sandbox.folder / "finding.json").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            try:
                worker(target, self.seed, self.sandbox, count.next, seconds, most, progress)
            finally:
                os._exit(EXIT_FAILED)
        try:
            code, used = watched(child, target.seconds, progress)
        except KeyboardInterrupt:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            raise
        number, accepted, refused, worst, slowest, kib, largest = progress.read()
        count.accepted, count.refused = count.accepted + accepted, count.refused + refused
        count.seconds += used
        if worst > count.worst_s:
            count.worst_s, count.slowest = worst, slowest
        if kib / 1024 > count.worst_mib:
            count.worst_mib, count.largest = kib / 1024, largest
        count.next = number
        if code == EXIT_OK:
            return False
        note = self.sandbox.folder / "finding.json"
        if code == _FOUND and note.exists():
            found = json.loads(note.read_text())
        else:
            what = f"crash: {code}" if isinstance(code, int) else code
            found = {"signature": what, "text": what}
        self._keep(target, number, found)
        count.next = number + 1
        return True

    def _keep(self, target: Target, number: int, found: dict[str, str]) -> None:
        findings, what = self.counts[target.name].findings, found["signature"]
        findings[what] = findings.get(what, 0) + 1
        if findings[what] > _KEPT:
            return
        print(f"{target.name} {self.seed} {number}: {what}", file=sys.stderr, flush=True)
        folder = self.out / "findings" / f"{target.name}-{self.seed}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        if self.sandbox.case.is_dir():
            shutil.copytree(self.sandbox.case, folder, symlinks=True)
        write_text(folder / "FINDING.txt", found["text"] + "\n")

    def table(self) -> str:
        """The counts as a Markdown table."""
        rows = [
            "| target | inputs | accepted | refused | findings | slowest [s] | most memory [MiB] |",
            "|---|---|---|---|---|---|---|",
        ]
        total = Count()
        for name, each in self.counts.items():
            rows.append(_row(name, each))
            total.accepted, total.refused = total.accepted + each.accepted, total.refused + each.refused
            total.findings |= {f"{name} {what}": n for what, n in each.findings.items()}
            total.worst_s, total.worst_mib = max(total.worst_s, each.worst_s), max(total.worst_mib, each.worst_mib)
        return "\n".join([*rows, _row("**all**", total)])


def _row(name: str, count: Count) -> str:
    found = sum(count.findings.values())
    values = (f"{count.accepted + count.refused + found:,}", f"{count.accepted:,}", f"{count.refused:,}", f"{found:,}")
    return f"| {' | '.join((name, *values, f'{count.worst_s:.2f}', f'{count.worst_mib:.0f}'))} |"


def watched(child: int, bound_s: float, progress: Progress) -> tuple[int | str, float]:
    """Wait for a child; returns its exit code, or why it was killed, and its processor time.

    Only time during which this process is awake counts, because the machine may pause both.
    """
    waited, last, cpu = 0.0, -1, 0.0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        number = progress.read()[0]
        if number != last:
            waited, last, cpu = 0.0, number, processor_time(child)
        used = processor_time(child) - cpu
        if waited > STUCK_S or used > 2 * bound_s + 2:  # its own alarm did not stop it
            os.kill(child, signal.SIGKILL)
            usage = os.wait4(child, 0)[2]
            what = "hang: waits without end" if waited > STUCK_S else "hang: in code that cannot be interrupted"
            return what, usage.ru_utime + usage.ru_stime
        time.sleep(_POLL_S)
        waited += _POLL_S


def processor_time(process: int) -> float:
    try:
        values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def prepared(folder: Path) -> None:
    """Make the valid files in a child process: this one must not have any threads when it forks."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder / "tmp"),
        "MPLCONFIGDIR": str(folder / "tmp"),
        "MPLBACKEND": "agg",
        "XDG_CACHE_HOME": str(folder / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "tmp"),
    }
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    for module in (*SCRIPTS.values(), "matplotlib.pyplot", "torch._dynamo"):
        importlib.import_module(module)  # here, instead of in every forked process
    child = os.fork()
    if not child:
        code = EXIT_FAILED
        try:
            make_seeds(folder / "seeds")
            code = EXIT_OK
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the valid files could not be made"


def again(target: Target, seed: int, number: int, folder: Path, out: Path) -> int:
    """Run one input in this process, show the outcome, and keep its files."""
    sandbox = Sandbox(folder)
    target.begin(folder / "seeds")
    confine(target)
    sandbox.fresh()
    kept = out / "findings" / f"{target.name}-{seed}-{number}"
    try:
        print("accepted" if attempt(target, seed, number, sandbox, Guard(sandbox, target)) else "refused")
        return EXIT_OK
    except BaseException:
        traceback.print_exc()
        return EXIT_FAILED
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(sandbox.case, kept, symlinks=True)
        print(f"its files: {kept}")


@dataclass(frozen=True, kw_only=True)
class FuzzOptions:
    minutes: float
    count: int | None
    seed: int
    target: tuple[str, ...]
    number: int | None
    out: str


def parse_arguments(arguments: Sequence[str] | None) -> FuzzOptions:
    parser = script_parser("python -m benchmarks.fuzz", __doc__)
    add = parser.add_argument
    add("--minutes", type=positive, default=10.0, metavar="T", help="duration of the campaign (default %(default)s)")
    add(
        "--count",
        type=above_zero,
        metavar="N",
        help="maximum number of inputs per target (default: as many as the time allows)",
    )
    add("--seed", type=whole, default=0, metavar="N", help="random seed (default 0)")
    add("--target", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS), metavar="NAME",
        help=f"targets (default all: {', '.join(sorted(TARGETS))})")  # fmt: skip
    add("--number", type=whole, metavar="N", help="run only this input, with its traceback")
    add("--out", default="runs/fuzz", metavar="DIR", help="folder for counts and findings (default %(default)s)")
    return options_from(FuzzOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    out = Path(options.out).resolve()
    with home() as folder:
        prepared(folder)
        if options.number is not None:
            return again(TARGETS[options.target[0]], options.seed, options.number, folder, out)
        campaign = Campaign([TARGETS[name] for name in options.target], options.seed, out, folder)
        try:
            campaign.run(seconds=60 * options.minutes, count=options.count)
        finally:
            campaign.save()
            print(campaign.table())
    for what, count in campaign.findings.items():
        print(f"{what} ({count})")
    return EXIT_FAILED if campaign.findings else EXIT_OK


class home:
    """Context manager of a temporary folder that restores the working directory at its end."""

    def __enter__(self) -> Path:
        self._before, self._folder = Path.cwd(), tempfile.TemporaryDirectory(prefix="fuzz-")
        return Path(self._folder.name)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
        self._folder.cleanup()


if __name__ == "__main__":
    sys.exit(run_script(main))
