"""Every recorded command line of the original, run with darknet.py and compared line by line and file by file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import darknet
from darknet_cli.grammar import NOT_OFFERED
from tests.darknet_cli.inputs import free_port, prepare, write_inputs
from tests.paths import REFERENCE, REPOSITORY, SHARED, shared
from utils.cli import EXIT_FAILED, EXIT_OK, run_script

RECORDINGS = REFERENCE / "commands"
ROWS = {path.stem: json.loads(path.read_text("utf-8"))["cases"] for path in sorted(RECORDINGS.glob("*.json"))}

# Deliberate differences: text in docs/from-alexeyab.md, exit code, text in stderr, and the cases. Their output is not
# compared.
DIFFERENCES: list[tuple[str, int, str, str]] = [
    (
        "An unknown flag is an error",
        EXIT_FAILED,
        "has no such flag",
        "detector_test/unknown_flag "
        "detector_test/unknown_flag_before_image detect/letter_box_ignored detect/out_ignored",
    ),
    ("A flag without its value is an error", EXIT_FAILED, "its value is missing", "detector_test/flag_without_value"),
    (
        "A missing argument is an error",
        EXIT_FAILED,
        "is missing",
        "partial/no_number weights_tools/denormalize_no_out main_words/detector_no_cfg",
    ),
    ("An unknown command is an error", EXIT_FAILED, "Not an option", "main_words/unknown"),
    (
        "An unknown command is an error",
        EXIT_FAILED,
        "There isn't such command",
        "main_words/detector_unknown classifier/unknown",
    ),
    (
        "Not supported, each with an error",
        EXIT_FAILED,
        "not supported: ",
        "classifier/validmulti classifier/validfull classifier/validcrop classifier/label classifier/test "
        "classifier/try "
        + " ".join(f"weights_tools/reset_normalize_net_{stem}" for stem in ("det", "mixed", "fc", "fconly", "cls"))
        + "".join(
            f" main_words/{word}" for word in ROWS["main_words"] if word in NOT_OFFERED or word == "detector_draw"
        ),
    ),
    ("An unknown container,", EXIT_FAILED, "unknown container", "demo/out_unknown"),
    ("Tracking (`embedding_layer`) is an error", EXIT_FAILED, "tracking by embeddings", "demo/track"),
    ("Even values of `-avgframes` work", EXIT_OK, "", "demo/avgframes_6"),
    (
        "`-time_limit_sec` ends the program",
        EXIT_OK,
        "",
        "demo/time_limit demo/benchmark_out demo/json_port demo/mjpeg_port",
    ),
    ("`-http_post_host` without a path", EXIT_FAILED, "expected HOST/PATH", "demo/http_post_host_no_path"),
    (
        "a video or camera that cannot be opened",
        EXIT_FAILED,
        "error: ",
        "demo/missing_video demo/no_camera demo/image classifier/demo_cpu",
    ),
    ("the original has to be built with OpenCV", EXIT_OK, "", "demo/without_opencv"),
    ("`classifier demo` stops at the end of the video", EXIT_OK, "", "demo/classifier_demo"),
    (
        "`-chart` with a file that is not such a chart is an error",
        EXIT_FAILED,
        "none.png",
        "detector_train/chart_missing",
    ),
    ("`-gpus` starts one process per GPU", EXIT_OK, "", "detector_train/gpus classifier_train/gpus"),
    ("The backup folder is created at the start", EXIT_OK, "", "detector_train/no_backup_folder"),
    (
        "Wrong `filters=`, wrong class names, and images and labels that cannot be used are reported",
        EXIT_FAILED,
        "cfg/trainf.cfg:",
        "detector_train/wrong_filters",
    ),
    (
        "Wrong `filters=`, wrong class names, and images and labels that cannot be used are reported",
        EXIT_FAILED,
        "has 2 names",
        "detector_train/map_names",
    ),
    ("`-benchmark_layers` also works on the CPU", EXIT_OK, "", "detector_test/benchmark_layers"),
    ("`--help` prints a summary", EXIT_OK, "", "main_words/help"),
    ("`rescale` may differ", EXIT_OK, "", "weights_tools/rescale_det"),
    ("`-nogpu` is always accepted", EXIT_OK, "", "main_words/nogpu"),
    ("`average` handles grouped convolutions", EXIT_OK, "", "average/mixed_two average/mixed_three"),
    (
        "`denormalize` and `reset` scale each filter by its own factor",
        EXIT_OK,
        "",
        " ".join(
            f"weights_tools/{word}_{stem}"
            for word in ("denormalize", "reset")
            for stem in ("det", "mixed", "fc", "cls")
        ),
    ),
    ("So is an invalid number", EXIT_FAILED, "cannot read 'abc'", "detector_test/bad_number"),
    (
        "An unreadable image counts as one without detections",
        EXIT_FAILED,
        "could not be read",
        "detector_test/missing_image detector_test/missing_image_cv detector_test/missing_in_list "
        "unreadable/map_cpu main_words/imtest_missing "
        "classifier/predict_missing classifier/valid_missing unreadable/map_cv unreadable/valid_cpu "
        "unreadable/valid_cv unreadable/recall_cpu unreadable/recall_cv",
    ),
    (
        "A number of class names that does not match the cfg is an error",
        EXIT_FAILED,
        "has 2 names",
        "detector_test/names_too_few",
    ),
    (
        "Empty lines in a list are skipped",
        EXIT_OK,
        "",
        "unreadable/map_blank",
    ),
    ("`valid` creates the results folder", EXIT_OK, "", "detector_valid/no_folder"),
    ("`calc_anchors` keeps the best of several k-means runs", EXIT_OK, "", "calc_anchors/default_clusters"),
    ("Leaving out the size is an error", EXIT_FAILED, "-width and -height", "calc_anchors/no_size"),
    ("`eval=bdd` works; the original fails", EXIT_OK, "", "detector_valid/bdd"),
]
DIFFERENT = {case: (code, said) for _, code, said, cases in DIFFERENCES for case in cases.split()}
# Deliberate differences due to which the output equals that of another recording.
LIKE = {
    "detector_test/prompt_crlf": "detector_test/prompt",
    "detector_test/prompt_blank": "detector_test/prompt",
    "detect/dont_show_first": "detect/dont_show",
    "exif/test_cpu": "exif/test_cv",  # images are turned upright, as in the original's build with OpenCV
    "exif/valid_cpu": "exif/valid_cv",
    "exif/map_cpu": "exif/map_cv",
}
# Files of the original that are not valid JSON: it escapes nothing, and cuts off the bracket of an empty list.
REPAIRED = {"detector_test/odd_names/result.json", "detector_valid/nothing_found/results/coco_results.json"}
# Many boxes have scores that are equal up to rounding, which determines their order.
ANY_ORDER = {"detector_valid/region", "detector_valid/fastest_coco"}
SLOW = {"detector_train/hundred", "detector_train/repaired_map_hundred", "classifier_train/hundred"}

MASKS = (
    (re.compile(r"Predicted in [0-9.]+ milli"), "Predicted in # milli"),
    (re.compile(r"FPS:[0-9.]+ \t AVG_FPS:[0-9.]+"), "FPS:# \t AVG_FPS:#"),
    (re.compile(r"(Loaded: )-?[0-9.]+( seconds)( - performance bottleneck on CPU or Disk HDD/SSD)?"), r"\1#\2"),
    (re.compile(r"(rate, )[0-9.]+( seconds)"), r"\1#\2"),
    (re.compile(r"(images, )-?[0-9.]+( hours left)"), r"\1#\2"),
    (re.compile(r"(hours left=)-?[0-9.]+"), r"\1#"),
    (re.compile(r"evals, [0-9.]+ Seconds\nSpeed: [0-9.]+ sec/eval\nSpeed: ([0-9.]+|inf) Hz"), "evals"),
    (re.compile(r"iterations = \d+ \n"), "iterations = # \n"),
)
_TRAINED = re.compile(r"-nan|\d+(\.\d+)?")
_RANKS = re.compile(r"( rank = \S+ of ranks = \S+ \r)+")
_NUMBER = re.compile(r"-?\d+\.\d+")


def _cases() -> list[Any]:
    return [
        pytest.param(row, case, id=f"{row}-{case}", marks=[pytest.mark.slow] if f"{row}/{case}" in SLOW else [])
        for row, cases in ROWS.items()
        for case in cases
    ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def _masked(text: str) -> str:
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return text


def assert_same(ours: str, theirs: str, tolerance: float) -> None:
    """Compare words exactly, numbers with 5 or more decimals within `tolerance` (relative above 1), other numbers exactly."""
    ours, theirs = _masked(ours), _masked(theirs)
    mine, their = ours.split("\n"), theirs.split("\n")
    for number, (a, b) in enumerate(zip(mine, their, strict=False)):
        assert _NUMBER.sub("#", a) == _NUMBER.sub("#", b), f"line {number}:\n{a!r}\n{b!r}"
        for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True):
            fine = len(y.partition(".")[2]) >= 5
            limit = tolerance * max(1.0, abs(float(y))) if fine else 0.11 if "loss=" in a else 1e-9
            assert abs(float(x) - float(y)) <= limit, f"line {number}: {x} is not {y}:\n{a!r}\n{b!r}"
    assert len(mine) == len(their), f"{len(mine)} lines, expected {len(their)}:\n{ours}\n----\n{theirs}"


def _trained(text: str) -> str:
    """Remove numbers and what depends on them, for builds whose CPU training differs, and for random training."""
    return _RANKS.sub("", _TRAINED.sub("#", _masked(text)))


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "shared" not in path.relative_to(folder).parts
    }


def _assert_file(path: Path, recorded: Any, tolerance: float, *, exact: bool, colours: bool) -> None:
    if isinstance(recorded, str):
        return assert_same(path.read_text("utf-8"), recorded, tolerance)
    if "image" in recorded:
        image = cv2.imread(str(path))
        assert image is not None and [image.shape[1], image.shape[0]] == recorded["image"]
        if colours:
            np.testing.assert_allclose(
                image.mean((0, 1))[::-1], recorded["mean_rgb"], atol=1
            )  # the original rounds down
    elif "frames" in recorded:
        _assert_video(path, recorded)
    elif "sha256" in recorded:
        _assert_weights(path.read_bytes(), recorded, exact=exact)
    else:
        assert "head" in recorded and recorded["cut"], recorded
        text = path.read_text("utf-8")
        assert text.count("\n") == recorded["lines"]
        assert_same(text[: len(recorded["head"])].rpartition("\n")[0], recorded["head"].rpartition("\n")[0], tolerance)
    return None


def _assert_same_boxes(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Match COCO results one to one in any order, except those whose score equals the threshold up to rounding."""

    def table(entries: list[dict[str, Any]]) -> np.ndarray:
        rows = np.array([[e["image_id"], e["category_id"], e["score"], *e["bbox"]] for e in entries])
        return rows[rows[:, 2] > 0.001001]

    left, expected = table(ours), table(theirs)
    assert len(left) == len(expected)
    for entry in expected:
        near = np.flatnonzero((abs(left - entry) <= [0, 0, 2e-5] + [2e-3] * 4).all(axis=1))
        assert len(near), entry
        left = np.delete(left, near[0], axis=0)


def _assert_video(path: Path, recorded: dict[str, Any]) -> None:
    video = cv2.VideoCapture(str(path))
    size = [video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)]
    assert size == recorded["size"] and video.get(cv2.CAP_PROP_FPS) == pytest.approx(recorded["fps"])
    count = 0
    while video.read()[0]:
        count += 1
    assert count == recorded["frames"]


def _assert_weights(data: bytes, recorded: dict[str, Any], *, exact: bool) -> None:
    """Compare byte for byte if `exact`, else up to rounding and the different epsilon of the original's [connected]."""
    assert len(data) == recorded["bytes"] and np.frombuffer(data[:20], "<u4").tolist() == recorded["header"]
    if exact:
        assert hashlib.sha256(data).hexdigest() == recorded["sha256"]
    else:
        theirs = zlib.decompress(base64.b64decode(recorded["zlib_base64"]))
        ours, expected = (np.frombuffer(each[20:], "<f4") for each in (data, theirs))
        np.testing.assert_allclose(ours, expected, rtol=5e-6, atol=1e-7)


def _with_free_port(words: list[str]) -> list[str]:
    """Replace the port in a command, if it has one, by a free one."""
    if not {"-json_port", "-mjpeg_port"} & set(words):
        return words
    place = 1 + next(number for number, word in enumerate(words) if word.endswith("_port"))
    return [*words[:place], str(free_port()), *words[place + 1 :]]


def _exit_code(arguments: list[str]) -> int:
    try:
        return run_script(darknet.main, arguments, bad_input=EXIT_FAILED)
    except SystemExit as ended:  # --help
        return int(ended.code or 0)


_AUGMENTED = re.compile(r"\nYou use flag -show_imgs, [^\n]* \n")


def _without_augmented(said: Any, recorded: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """Compare the images written by -show_imgs, then remove them from both; the original loads some in advance."""
    (image,) = (content for name, content in recorded["files"].items() if name.startswith("aug_"))
    ours = list(folder.glob("aug_*_*_*.jpg"))
    assert len(ours) == len(_AUGMENTED.findall(said.out)) == 24 <= len(_AUGMENTED.findall(recorded["stdout"]))
    for path in ours:
        _assert_file(path, image, 0, exact=True, colours=True)
        path.unlink()
    files = {name: content for name, content in recorded["files"].items() if not name.startswith("aug_")}
    without = _AUGMENTED.sub("", recorded["stdout"])
    return said._replace(out=_AUGMENTED.sub("", said.out)), {**recorded, "stdout": without, "files": files}


@pytest.mark.parametrize(("row", "case"), _cases())
def test_row(
    row: str,
    case: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = ROWS[row][case]
    folder = tmp_path / "work"
    shutil.copytree(inputs, folder)
    prepare(folder, row, case)
    if recorded.get("needs"):
        shared("weights/yolo-fastest-1.1_coco")
        (folder / "shared").symlink_to(SHARED)
    before = _snapshot(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO(recorded.get("stdin", "")))
    code = _exit_code(_with_free_port(recorded["argv"]))
    said = capsys.readouterr()
    if f"{row}/{case}" in DIFFERENT:
        assert (code, DIFFERENT[f"{row}/{case}"][1] in said.err) == (DIFFERENT[f"{row}/{case}"][0], True), said.err
        return
    if f"{row}/{case}" in LIKE:
        like, _, other = LIKE[f"{row}/{case}"].partition("/")
        recorded = ROWS[like][other]
    assert code == (recorded["exit"] or 0), said.err
    tolerance = 1e-2 if row.endswith("train") else 3e-5 if row in ("detector_valid", "exif") else 2e-6
    if recorded.get("needs"):  # a network of 230 layers accumulates more rounding than one of 7
        tolerance = max(tolerance, 1e-5)
    training = row.endswith("train")
    if case == "show_imgs":
        said, recorded = _without_augmented(said, recorded, folder)
    if training and recorded.get("build") != "repaired":
        ours, theirs = _trained(said.out), _trained(recorded["stdout"])
        assert_same(ours[: len(theirs)] if "stdout_cut" in recorded else ours, theirs, 0)
    elif case == "repaired_map_hundred":  # rounding has grown over 100 updates
        ours, theirs = (
            re.sub(r"(detections_count|ranks|average IoU) = [0-9.]+", r"\1 = #", text)
            for text in (said.out, recorded["stdout"])
        )
        assert_same(ours, theirs, tolerance)
    elif recorded["exit"] is not None:  # otherwise it was killed, with lines still in a buffer
        assert_same(said.out, recorded["stdout"], tolerance)
    if "stderr" in recorded:
        assert_same(
            "\n".join(line for line in said.err.splitlines() if "RPs/Img" in line), "\n".join(recorded["stderr"]), 0
        )
    after = _snapshot(folder)
    changed = {name for name, data in after.items() if before.get(name) != data}
    files = recorded.get("files", {})
    if training and "build" not in recorded:  # only the original's OpenCV build draws charts
        changed = {name for name in changed if not name.startswith("chart")}
    assert changed == set(files), f"{changed ^ set(files)} only here or there"
    for name, content in files.items():
        if f"{row}/{case}/{name}" in REPAIRED:
            json.loads((folder / name).read_text("utf-8"))
        elif f"{row}/{case}" in ANY_ORDER:
            _assert_same_boxes(json.loads((folder / name).read_text("utf-8")), json.loads(content))
        elif training and name.endswith(".weights"):
            data = (folder / name).read_bytes()
            assert len(data) == content["bytes"] and np.frombuffer(data[:20], "<u4").tolist() == content["header"]
        elif content != "as the case without it":
            computed = case.startswith(("denormalize", "reset", "rescale"))
            _assert_file(
                folder / name,
                content,
                tolerance,
                exact=not computed,
                colours=row == "main_words" or name.startswith("chart"),
            )


def test_differences_are_in_the_docs() -> None:
    text = " ".join((REPOSITORY / "docs" / "from-alexeyab.md").read_text("utf-8").split())
    assert not [words for words, *_ in DIFFERENCES if words not in text]
