"""detect.py as run by a user, with a small network whose boxes are known."""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from queue import Queue

import cv2
import numpy as np
import pytest

import convert
import detect
from inference.first_look import STEPS, Suggestion, interpreter, next_steps
from inference.recorder import Recorder
from inference.results import Result
from models.formats.files import LoadOptions, load_model, save_model
from tests.paths import REPOSITORY
from tests.small_model import make_small_model
from tests.test_docs import parsed
from utils.cli import run_script


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """A network that finds a box of class 1 in each of 8 x 8 cells; boxes of 16 x 16 pixels overlap by less than 0.45."""
    return make_model(tmp_path, 3)


def make_model(folder: Path, channels: int) -> list[str]:
    cfg, weights, names = make_small_model(folder, channels)
    return ["--cfg", str(cfg), "--weights", str(weights), "--names", str(names)]


def image(path: Path, width: int = 160, height: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1].tofile(path)
    return path


def video(path: Path, frames: int, fps: float = 20.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (96, 64))
    for number in range(frames):
        writer.write(np.full((64, 96, 3), number % 200, np.uint8))
    writer.release()
    return path


def run(model: list[str], tmp_path: Path, *arguments: str) -> tuple[int, Path]:
    code = run_script(detect.main, [*model, "--project", str(tmp_path / "runs"), "--name", "a", *arguments])
    return code, tmp_path / "runs" / "a"


def test_a_folder_with_every_output(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "in" / "12.png")
    image(tmp_path / "in" / "größe.jpg", 64, 64)
    flags = ("--save-txt", "--save-conf", "--save-json", "--save-csv", "--save-crop")
    code, folder = run(model, tmp_path, "--source", str(tmp_path / "in"), *flags)
    assert code == 0
    assert cv2.imread(str(folder / "12.png")).shape == (80, 160, 3)
    results = json.loads((folder / "results.json").read_text())
    assert len(results) == 128
    first = next(each for each in results if each["image_id"] == 12)
    assert first["category_id"] == 1 and first["name"] == "dog" and first["file_name"].endswith("12.png")
    assert first["bbox"][2:] == pytest.approx([16 / 64 * 160, 16 / 64 * 80])
    lines = (folder / "labels" / "12.txt").read_text().splitlines()
    assert len(lines) == 64
    class_id, *numbers = lines[0].split()
    assert class_id == "1" and len(numbers) == 5 and float(numbers[2]) == pytest.approx(0.25)
    assert len((folder / "results.csv").read_text().splitlines()) == 129
    assert list((folder / "crops" / "dog").glob("12_*.jpg"))
    out = capsys.readouterr().out
    assert "2 images: 128 dog" in out and " images/s with PyTorch, fp32; ms per image: " in out


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--classes", "0"), 0),
        (("--classes", "1"), 64),
        (("--classes", "cat", "dog"), 64),
        (("--conf-thres", "0.999"), 0),
        (("--iou-thres", "0.2"), 32),
        (("--iou-thres", "0.1"), 16),
        (("--max-det", "5"), 5),
        (("--letter-box", "1"), 64),
        (("--img-size", "32"), 16),
        (("--img-size", "64", "32"), 32),
        (("--resize", "opencv"), 64),
        (("--batch-size", "4"), 64),
        (("--augment",), 64),
    ],
)
def test_flags_change_what_is_found(model: list[str], tmp_path: Path, flags: tuple[str, ...], count: int) -> None:
    code, folder = run(model, tmp_path, "--source", str(image(tmp_path / "a.png", 64, 64)), "--save-json", *flags)
    assert code == 0
    assert len(json.loads((folder / "results.json").read_text())) == count


def test_a_video_keeps_rate_and_frames(model: list[str], tmp_path: Path) -> None:
    source = video(tmp_path / "clip.mp4", 30)
    code, folder = run(model, tmp_path, "--source", str(source), "--save-json", "--batch-size", "4")
    assert code == 0
    capture = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (20, 30)
    results = json.loads((folder / "results.json").read_text())
    assert {each["frame"] for each in results} == set(range(30))
    assert results[-1]["time_s"] == pytest.approx(29 / 20)


def test_vid_stride(model: list[str], tmp_path: Path) -> None:
    code, folder = run(model, tmp_path, "--source", str(video(tmp_path / "clip.mp4", 30)), "--vid-stride", "3")
    capture = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert (code, capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (0, 10)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20 / 3, rel=0.01)


def test_nosave_and_equal_names(model: list[str], tmp_path: Path) -> None:
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "y" / "a.png")
    code, folder = run(model, tmp_path, "--source", str(tmp_path / "*" / "a.png"))
    assert code == 0 and sorted(path.name for path in folder.iterdir()) == ["a.png", "a_2.png"]
    for flag in ("--no-save", "--nosave"):
        code, _ = run(model, tmp_path, "--source", str(tmp_path / "x"), flag)
        assert code == 0 and not (tmp_path / "runs" / "a2").exists()


def test_no_folder_without_a_frame(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    code, folder = run(model, tmp_path, "--source", str(tmp_path / "a.jpg"))
    assert code == 2 and "a.jpg" in capsys.readouterr().err and not folder.exists()


def test_several_sources(model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "ä b" / "a.png")
    image(tmp_path / "ä b" / "deep" / "c.png")
    sources = [str(tmp_path / "ä b"), str(image(tmp_path / "b.png")), str(tmp_path / "ä b" / "**" / "c.png")]
    code, folder = run(model, tmp_path, "--source", *sources)
    assert code == 0 and sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "c.png"]
    repeated = [word for source in sources for word in ("--source", source)]
    code, _ = run(model, tmp_path, *repeated, "--exist-ok", "--name", "b")
    assert code == 0 and len(list((tmp_path / "runs" / "b").iterdir())) == 3
    text = f"{tmp_path / 'b.png'}\n{tmp_path / 'ä b' / 'a.png'}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, _ = run(model, tmp_path, "--source", "-")
    assert code == 0 and sorted(path.name for path in (tmp_path / "runs" / "a2").iterdir()) == ["a.png", "b.png"]


def test_names_of_a_data_file(model: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "my.data").write_text("classes = 2\nnames = small.names\n")
    source = ["--source", str(image(tmp_path / "a.png", 64, 64)), "--save-json"]
    code, folder = run(model[:4], tmp_path, *source, "--data", str(tmp_path / "cfg" / "my.data"))
    assert code == 0 and json.loads((folder / "results.json").read_text())[0]["name"] == "dog"
    assert "no class names" not in caplog.text
    assert run(model[:4], tmp_path, *source)[0] == 0
    assert caplog.text.count("no class names, expected --names or --data") == 1


def test_out_names_the_one_file(model: list[str], tmp_path: Path) -> None:
    for source, out in ((image(tmp_path / "a.png"), "x/found.jpg"), (video(tmp_path / "a.mp4", 5), "found.avi")):
        code, folder = run(model, tmp_path, "--source", str(source), "--out", str(tmp_path / out))
        assert code == 0 and (tmp_path / out).stat().st_size > 0 and not folder.exists()
    code, folder = run(
        model, tmp_path, "--source", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png"), "--save-txt"
    )
    assert code == 0 and (tmp_path / "b.png").exists() and [path.name for path in folder.iterdir()] == ["labels"]


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        (["in"], ["--out", "b.png"], "--out b.png: the source has 2 images and videos"),
        (["in/a.png"], ["--out", "b.mp4"], "--out b.mp4: the source is an image, expected a file name with .bmp"),
        (["clip.mp4"], ["--out", "b.png"], "--out b.png: the source is a video, expected a file name with .avi"),
        (["in/a.png"], ["--out", "in/../in/a.png"], "is the source itself"),
        (["in/a.png"], ["--out", "folder.png"], "--out folder.png: is a folder"),
        (["in/a.png"], ["--out", "b.png", "--no-save"], "cannot be combined with --no-save"),
        (["in", "0"], [], "0: a camera or stream has to be the only source"),
        (["deep"], [], "'deep/**' takes those of its subfolders"),
        (["-"], [], "standard input: list names no images"),
    ],
)
def test_conflicting_sources(
    model: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: list[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    for each in ("in/a.png", "in/b.png", "deep/er/a.png", "folder.png/a.png"):
        image(tmp_path / each)
    video(tmp_path / "clip.mp4", 3)
    before = (tmp_path / "in" / "a.png").read_bytes()
    code, folder = run(model, tmp_path, "--source", *source, *flags)
    assert code == 2 and message in capsys.readouterr().err
    assert not folder.exists() and (tmp_path / "in" / "a.png").read_bytes() == before


def test_files_of_one_name_in_several_folders(
    model: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Images, videos and frames may share a name: every label file, crop and annotated file is kept."""
    sources = tmp_path / "in"
    image(sources / "x" / "a.png", 64, 64)
    image(sources / "x" / "clip_1.png", 64, 64)
    image(sources / "y" / "A.png", 96, 96)
    image(sources / "y" / "a.jpg", 96, 96)
    (sources / "z").mkdir()
    video(sources / "y" / "clip.mp4", 2)
    video(sources / "z" / "clip.mp4", 3)
    flags = ("--save-txt", "--save-crop", "--save-json", "--img-size", "32")
    code, folder = run(model, tmp_path, "--source", str(sources / "*" / "*"), *flags)
    images = {"a", "clip_1", "A_2", "a_3"}
    frames = {*(f"clip_2_{number}" for number in range(2)), *(f"clip_3_{number}" for number in range(3))}
    assert code == 0 and {path.stem for path in (folder / "labels").iterdir()} == images | frames
    assert {path.name.rpartition("_")[0] for path in (folder / "crops" / "dog").iterdir()} == images | frames
    assert {path.name for path in folder.glob("*.*")} == {
        *("a.png", "clip_1.png", "A_2.png", "a_3.jpg", "clip_2.mp4", "clip_3.mp4", "results.json")
    }
    assert caplog.text.count("several sources have the same name") == 1
    entries = json.loads((folder / "results.json").read_text())
    assert len({each["image_id"] for each in entries}) == len({each["file_name"] for each in entries}) == 6


def test_names_that_are_the_same_number(model: list[str], tmp_path: Path) -> None:
    for name in ("x/012", "x/12", "x/7", "y/7"):
        image(tmp_path / "in" / f"{name}.png", 64, 64)
    flags = ("--save-json", "--no-save", "--img-size", "32")
    code, folder = run(model, tmp_path, "--source", str(tmp_path / "in" / "**"), *flags)
    results = json.loads((folder / "results.json").read_text())
    ids = {Path(each["file_name"]).relative_to(tmp_path / "in").as_posix(): each["image_id"] for each in results}
    assert code == 0 and ids == {"x/012.png": 12, "x/12.png": "12", "x/7.png": 7, "y/7.png": "7_2"}


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("video", ()),
        ("csv", ("--no-save", "--save-csv")),
        ("json", ("--no-save", "--save-json")),
    ],
)
def test_full_disk(model: list[str], tmp_path: Path, kind: str, flags: tuple[str, ...]) -> None:
    """With files limited to 4 kB: exit code 1, one sentence, and no broken video or JSON file."""
    source = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 20, (128, 96))
    rng = np.random.default_rng(0)
    for _ in range(12):
        writer.write(rng.integers(0, 256, (96, 128, 3), np.uint8))
    writer.release()
    code = (
        "import resource, sys, detect; from utils.cli import run_script; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.exit(run_script(detect.main))"
    )
    arguments = [*model, "--source", str(source), "--project", str(tmp_path / "runs"), *flags]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "cannot be written" in done.stderr.strip().split("\n")[-1]
    if kind == "csv":
        return
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_label_files_of_images_without_objects(model: list[str], tmp_path: Path) -> None:
    code, folder = run(
        model, tmp_path, "--source", str(image(tmp_path / "a.png")), "--save-txt", "--conf-thres", "0.999"
    )
    assert code == 0 and (folder / "labels" / "a.txt").read_bytes() == b""


def test_an_unreadable_image_among_good_ones(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    code, folder = run(model, tmp_path, "--source", str(tmp_path / "in"))
    shown = capsys.readouterr()
    assert code == 1 and (folder / "a.png").exists()
    assert "b.png" in shown.err and "1 could not be read" in shown.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--source", "missing.jpg"), "missing.jpg: no such image"),
        (("--source", "."), "folder has no images"),
        (("--source", "*.png"), "pattern matches no images"),
        (("--cfg", "missing.cfg"), "missing.cfg: no such cfg file"),
        (("--weights", "missing.weights"), "missing.weights: "),
        (("--names", "short.names"), "has 1 names"),
        (("--classes", "2"), "--classes: no class '2', expected a name or 0 to 1"),
        (("--classes", "dogs"), "--classes: no class 'dogs', expected a name or 0 to 1, did you mean dog?"),
        (("--name", ""), "--name: is empty"),
        (("--device", "9"), "--device 9"),
        (("--device", "tpu"), "--device tpu"),
        (("--half", "--device", "cpu", "--backend", "torch"), "--half"),
        (("--img-size", "1", "2", "3"), "--img-size"),
        (("--img-size", "4"), "small.cfg"),
    ],
)
def test_bad_input_is_exit_code_two(
    model: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    (tmp_path / "empty" / "short.names").write_text("cat\n")
    code, _ = run(model, tmp_path, "--source", str(image(tmp_path / "a.png")), *change)
    shown = capsys.readouterr().err
    assert code == 2 and message in shown and shown.count("error:") == 1


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_other_kinds_of_files(model: list[str], tmp_path: Path, suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    cfg, weights, names = model[1::2]
    out = str(tmp_path / f"small.{suffix}")
    command = ["weights", "--cfg", cfg, "--weights", weights, "--names", names, "--out", out]
    assert run_script(convert.main, command) == 0
    code, folder = run(["--weights", out], tmp_path, "--source", str(image(tmp_path / "a.png", 64, 64)), "--save-json")
    assert code == 0
    found = json.loads((folder / "results.json").read_text())
    assert len(found) == 64 and found[0]["name"] == "dog"


@pytest.mark.parametrize(("given", "message"), [(["--cfg"], "--weights is required"), (["--weights"], "cfg")])
def test_a_cfg_or_weights_alone(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    half = [given[0], model[model.index(given[0]) + 1]]
    code, _ = run(half, tmp_path, "--source", str(image(tmp_path / "a.png")))
    assert code == 2 and message in capsys.readouterr().err


def test_darknet_lines(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, tmp_path, "--source", str(image(tmp_path / "a.png", 64, 64)), "--print", "darknet")
    lines = capsys.readouterr().out.splitlines()
    assert "a.png: Predicted in " in lines[0] and lines[0].endswith(" milli-seconds.")
    assert lines[1] == "dog: 99%"


def test_grey_network(tmp_path: Path) -> None:
    code, _ = run(make_model(tmp_path, 1), tmp_path, "--source", str(image(tmp_path / "a.jpg")))
    assert code == 0


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat_over_a_thousand_frames(model: list[str], tmp_path: Path) -> None:
    run(model, tmp_path, "--source", str(video(tmp_path / "short.mp4", 200)), "--save-json", "--save-csv")
    gc.collect()
    before = resident_mib()
    run(model, tmp_path, "--source", str(video(tmp_path / "long.mp4", 1000)), "--save-json", "--save-csv")
    gc.collect()
    assert resident_mib() - before < 25


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_closes_the_video(model: list[str], tmp_path: Path, number: signal.Signals) -> None:
    source = video(tmp_path / "clip.mp4", 4000)
    command = [
        sys.executable,
        "detect.py",
        *model,
        "--source",
        str(source),
        "--project",
        str(tmp_path / "runs"),
        "--save-json",
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "runs" / "exp" / ".clip.part.mp4"
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in out
    capture = cv2.VideoCapture(str(tmp_path / "runs" / "exp" / "clip.mp4"))
    assert 0 < capture.get(cv2.CAP_PROP_FRAME_COUNT) < 4000
    assert json.loads((tmp_path / "runs" / "exp" / "results.json").read_text())


def test_ctrl_c_in_the_middle_of_a_queue(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """KeyboardInterrupt inside a queue would lose a result, or a notification, so that threads wait forever."""

    class Interrupted(Queue):
        def _put(self, item: object) -> None:
            if isinstance(item, Result) and item.frame.index == 3:
                signal.raise_signal(signal.SIGINT)
            super()._put(item)

    monkeypatch.setattr("utils.background.queue.Queue", Interrupted)
    code, folder = run(model, tmp_path, "--source", str(video(tmp_path / "clip.mp4", 400)), "--save-json")
    assert code == 130 and "; interrupted" in capsys.readouterr().out
    assert {each["frame"] for each in json.loads((folder / "results.json").read_text())} == {0, 1, 2, 3}


def test_a_second_ctrl_c_ends_at_once(model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Recorder, result: Result) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        pytest.fail("it goes on")

    monkeypatch.setattr(Recorder, "add", twice)
    assert run(model, tmp_path, "--source", str(video(tmp_path / "clip.mp4", 40)))[0] == 130


def test_a_first_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without model and source, the shipped ones are used, and next steps are suggested."""
    assert run_script(detect.main, ["--project", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "scene1.jpg: 640x480 " in out and "79 images: " in out and " hex-nut, " in out
    assert {path.name for path in (tmp_path / "exp").iterdir()} == {
        *(f"scene{i}.jpg" for i in range(1, 5)),
        "scenes.mp4",
    }
    assert out.endswith(next_steps() + "\n")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.what)
def test_suggested_commands_parse(step: Suggestion) -> None:
    parsed(f"python {step.script}")
    assert not step.extra or (REPOSITORY / f"requirements-{step.extra}.txt").is_file()
    named = [word for word in step.script.split() if word.startswith(("cfg/", "weights/", "data/"))]
    assert all((REPOSITORY / word).exists() for word in named)
    assert any(line.strip() == f"{interpreter()} {step.script}" for line in next_steps().splitlines())


def test_names_in_a_file_that_do_not_fit(model: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    network, _ = load_model(model[3], LoadOptions(cfg=model[1]))
    save_model(network, path, ("one",))
    source = ["--weights", str(path), "--source", str(image(tmp_path / "a.png"))]
    assert run(source, tmp_path)[0] == 2
    assert run([*source, *model[4:]], tmp_path)[0] == 0


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u017a\\xfc.png: "), ("cp1252", "\\u017aü.png: ")])
def test_paths_that_the_code_page_cannot_express(model: list[str], tmp_path: Path, encoding: str, shown: str) -> None:
    source = image(tmp_path / "źü.png")
    command = [sys.executable, "detect.py", *model, "--source", str(source), "--out", str(tmp_path / "ź.png")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout.decode(encoding) and (tmp_path / "ź.png").exists()


def test_a_window_without_a_screen(model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    code, folder = run(model, tmp_path, "--source", str(image(tmp_path / "a.png")), "--view-img")
    assert code == 2 and not folder.exists()
