"""Run the examples in README and docs as a reader would: every block of commands or Python, in order, from the root.

python3 -m docs.examples

Meant for a fresh clone (`.ci/readme` makes one): the first command in README creates the environment that all others use.
Blocks marked `sh` and `python` run as they are. An HTML comment directly above a block, invisible on the page, changes this:

    <!-- example: not run, REASON -->     skip the block; the reason is required
    <!-- example: add FLAGS -->           add FLAGS to each command, to keep it short or to find a free port
    <!-- example: until TEXT -->          press Ctrl-C as soon as the command prints TEXT

The shipped detector and sample images stand in for the reader's own files, such as yolov4.weights or street.jpg. This uses
only the standard library, because it runs before the environment exists.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = ("README.md", "docs/tutorial.md")
ENVIRONMENT = ".venv"
LIMIT_S = 600.0
_BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- example: (.*?) -->")
_MODEL = ("yolov4", "a", "my")
_IMAGES = ("street.jpg", "dog.jpg", "my.jpg")
_DATA = "classes = 10\ntrain = drawn/scenes-train.txt\nvalid = drawn/scenes-val.txt\nnames = drawn/scenes.names\n"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A command or a block of Python.

    line: line number in the page.
    skip: why it is not run; empty if it is.
    add: extra flags.
    until: output after which to interrupt it.
    """

    page: str
    line: int
    kind: str
    text: str
    skip: str = ""
    add: str = ""
    until: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0] if self.kind == 'python' else self.command}"

    @property
    def command(self) -> str:
        return f"{self.text} {self.add}".strip()


class Failed(Exception):
    """An example does not do what the page says."""


def examples(page: Path) -> Iterator[Example]:
    """Yield all commands and Python blocks of a page. Raises ValueError for a malformed HTML comment."""
    text, name = page.read_text("utf-8"), page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    for block in _BLOCK.finditer(text):
        marks = _marks(block[1], f"{name}:{text.count(chr(10), 0, block.start()) + 1}")
        line = text.count("\n", 0, block.start(3)) + 1
        if block[2] == "python":
            yield Example(page=name, line=line, kind="python", text=block[3], **marks)
            continue
        for command in re.finditer(r"(?:.*\\\n)*.*\S.*", block[3]):
            joined = re.sub(r"\s*\\\n\s*", " ", command[0]).strip()
            if joined.startswith("#"):
                continue
            at = line + block[3].count("\n", 0, command.start())
            yield Example(page=name, line=at, kind="sh", text=joined, **marks)


def _marks(comments: str, place: str) -> dict[str, str]:
    marks = {}
    for mark in _MARK.findall(comments):
        found = re.fullmatch(r"(not run,|add|until) +(\S.*)", mark)
        if found is None:
            raise ValueError(
                f"{place}: cannot read 'example: {mark}', expected 'not run, REASON', 'add FLAGS' or 'until TEXT'"
            )
        marks[{"not run,": "skip"}.get(found[1], found[1])] = found[2]
    return marks


def pages() -> list[Path]:
    """All pages, in the order in which they run."""
    first = [ROOT / name for name in FIRST]
    return first + sorted(set((ROOT / "docs").glob("*.md")) - set(first))


def first_steps() -> Iterator[Example]:
    """Yield the commands that detect.py suggests when it is done; see inference/first_look.py."""
    own = Path(ENVIRONMENT) / "bin" / "python"
    python = str(own) if own.exists() else sys.executable  # this script itself runs without the project's requirements
    ask = "from inference.first_look import STEPS; print(*(step.script for step in STEPS), sep='\\n')"
    for script in subprocess.check_output([python, "-c", ask], text=True, cwd=ROOT).splitlines():
        until = "http://" if script == "serve.py" else ""
        add = "--port 0" if until else ""
        yield Example(page="detect.py", line=1, kind="sh", text=f"python {script}", add=add, until=until)


def stand_ins(environment: dict[str, str]) -> None:
    """Write stand-ins for the reader's own files into the current folder."""
    shipped = (ROOT / "weights" / "scenes.cfg").read_text("utf-8")
    for name in _MODEL:
        shutil.copy(ROOT / "weights" / "scenes.weights", f"{name}.weights")
        side = 608 if name == "yolov4" else 192
        Path(f"{name}.cfg").write_text(re.sub(r"(?m)^(width|height)=.*$", rf"\1={side}", shipped), "utf-8")
    for name in ("coco", *_MODEL):
        shutil.copy(ROOT / "weights" / "scenes.names", f"{name}.names")
        Path(f"{name}.data").write_text(_DATA, "utf-8")
    for name in _IMAGES:
        shutil.copy(ROOT / "data" / "samples" / "scene1.jpg", name)
    shutil.copy(ROOT / "data" / "samples" / "scenes.mp4", "video.mp4")
    Path("exported").mkdir(exist_ok=True)
    for image in sorted((ROOT / "data" / "samples").glob("*.jpg")):
        shutil.copy(image, "exported")
        Path("exported", f"{image.stem}.txt").write_text("0 0.5 0.5 0.1 0.2\n", "utf-8")
    Path("exported", "classes.txt").write_text("part\n", "utf-8")
    Path("list.txt").write_text("".join(f"{name}\n" for name in _IMAGES), "utf-8")
    for number, (split, name) in enumerate(itertools.product(("train", "val"), ("n01440764", "n01443537")), start=1):
        folder = Path("imagenet", split, name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "data" / "samples" / f"scene{number}.jpg", folder)
    Path("cifar-10").mkdir(exist_ok=True)
    Path("cifar-10/batches.meta.txt").write_text("".join(f"class{number}\n" for number in range(10)), "utf-8")
    for name in ("data_batch_1.bin", "test_batch.bin"):
        Path("cifar-10", name).write_bytes(b"".join(bytes([number, *[25 * number] * 3072]) for number in range(10)))
    for command in (
        "data.scenes --out drawn --count 24 --img-size 192",
        "convert partial --cfg yolov4.cfg --weights yolov4.weights --layers 20 --out yolov4.conv.137",
        "convert weights --cfg a.cfg --weights a.weights --out other.pt",
    ):
        subprocess.run(["python", "-m", *command.split()], env=environment, check=True, stdout=subprocess.DEVNULL)


def run(example: Example, environment: dict[str, str]) -> None:
    """Run one example. Raises Failed with its output."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ["python", "-"] if example.kind == "python" else ["bash", "-euo", "pipefail", "-c", example.command]
    process = subprocess.Popen(
        command, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if example.until:
        output, wanted = _interrupted(process, example.until), 130
    else:
        output, wanted = _ended(process, example.text if example.kind == "python" else ""), 0
    if process.returncode != wanted:
        raise Failed(f"{example}\n{output}\nended with {process.returncode}, expected {wanted}")


def _ended(process: subprocess.Popen[str], given: str) -> str:
    try:
        return process.communicate(given, timeout=LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"{process.communicate()[0]}\ntimed out after {LIMIT_S:g} seconds"


def _interrupted(process: subprocess.Popen[str], until: str) -> str:
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if until in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    return output + _ended(process, "")


def active(environment: dict[str, str]) -> dict[str, str]:
    """The environment variables after `source .venv/bin/activate`."""
    folder = Path(ENVIRONMENT).resolve()
    return environment | {"VIRTUAL_ENV": str(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"}


def follow(chosen: Sequence[Path]) -> None:
    """Run all examples of the pages and, after README, the commands that detect.py suggests. Raises Failed."""
    environment = dict(os.environ)
    for page in chosen:
        for example in chain(examples(page), first_steps() if page.name == "README.md" else ()):
            if example.skip:
                print(f"   not run  {example}: {example.skip}", flush=True)
                continue
            if "VIRTUAL_ENV" not in environment and Path(ENVIRONMENT).exists():
                environment = active(environment)
                stand_ins(environment)
            start = time.monotonic()
            run(example, environment)
            print(f"{time.monotonic() - start:7.1f} s  {example}", flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="default: README, tutorial and the other pages of docs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse_arguments(arguments).pages
    os.chdir(ROOT)
    try:
        follow([page.resolve() for page in chosen] or pages())
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
