"""`detector test` and `detect`: objects in images named on the command line, at a prompt or in a list on stdin; `imtest`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_cli.grammar import Words
from darknet_cli.network import append_line, open_printed, print_heads, stderr, stdout
from darknet_cli.objects import JsonList, boxes_of, json_entry, label_lines, listing, predict, visible
from data.augment.classification import distort_exact
from data.augment.colour import Distortion
from data.formats.darknet import original_label_path, read_data
from data.frames import Frame
from data.image import jpeg, read_image
from inference.recorder import has_screen
from inference.results import darknet_lines
from utils.draw import annotate
from utils.errors import InputError, RunError
from utils.files import atomic_write, is_folder, write_text

_PROMPT = "Enter Image Path: "
_QUALITY = 80  # of the JPEG files (image.c save_image)
_IMTEST_GRAY = (0.587, 0.299, 0.114)  # for R, G and B: the original swaps the first two
_IMTEST_CHANGES = ((0.1, 1.5, 1.5), (-0.1, 0.66666, 0.66666), (0.1, 1.5, 0.66666), (0.1, 0.66666, 1.5))


def detect(words: Words) -> None:
    """`detect CFG WEIGHTS [IMAGE]`: `detector test` with cfg/coco.data and -thresh 0.24 (darknet.c)."""
    test = Words(("detector", "test", "cfg/coco.data", *words.words[1:]), {**_NO_FLAGS, **words.flags})
    detect_images(test)


_NO_FLAGS = {"-letter_box": False, "-out": None, "-save_labels": False, "-benchmark_layers": False}


def detect_images(words: Words) -> None:
    """`detector test DATA CFG WEIGHTS [IMAGE]` (detector.c test_detector). Raises RunError if an image could not be read."""
    options = read_data(words.at(2, "the .data file"))
    model, image = open_printed(words, options), words.get(5)
    names = model.names
    letter_box = True if words["-letter_box"] else None
    nms = listing(words["-thresh"])
    unreadable = 0
    if words["-out"] and not is_folder(Path(words["-out"]).parent):
        raise RunError(f"{words['-out']}: cannot be written: there is no such folder")
    with ExitStack() as stack:
        entries = JsonList(stack.enter_context(atomic_write(words["-out"]))) if words["-out"] else None
        for number, path in enumerate([image] if image else prompted(), start=1):
            print_heads(model.network.plan)
            try:
                frame = Frame(image=read_image(path), path=path)
            except InputError as error:
                unreadable += 1
                report_bad_image(path, error)
                if entries:
                    entries.add(json_entry(number, path, [], names))
                continue
            found, milliseconds = predict(model, frame, nms, letter_box=letter_box)
            boxes = boxes_of(found, frame.size_wh)
            stdout(f"{path}: Predicted in {milliseconds:f} milli-seconds.\n")
            for line in darknet_lines(found, names, ext_output=words["-ext_output"]):
                stdout(f"{line}\n")
            drawn = annotate(frame.image, visible(found, names), names)
            save_jpeg("predictions.jpg", drawn)
            if entries:
                entries.add(json_entry(number, path, boxes, names))
            if words["-save_labels"]:
                write_text(original_label_path(Path(path)), label_lines(boxes))
            if not words["-dont_show"]:
                show(drawn)
        if entries:
            entries.close()
    if unreadable:
        raise RunError(f"{unreadable} images could not be read; bad.list names them")


def prompted() -> Iterator[str]:
    """Yield paths from stdin, one per line, prompting for each; empty lines are ignored."""
    stdout(_PROMPT)
    for line in sys.stdin:
        if path := line.strip():
            yield path
            stdout(_PROMPT)


def report_bad_image(path: str, error: InputError) -> None:
    """Print a line on stderr and add one to bad.list (image.c load_image_stb); the original continues with a black image."""
    stderr(f'Cannot load image "{path}"\n{error}')
    append_line("bad.list", path)


def save_jpeg(path: str, image: NDArray[np.uint8]) -> None:
    with atomic_write(path) as stream:
        stream.write(jpeg(image, _QUALITY))


def show(image: NDArray[np.uint8], milliseconds: int = 0) -> None:
    """Show the image in a window until a key is pressed (0) or for some time; warn once if there is no screen."""
    with suppress(cv2.error):
        if has_screen():
            cv2.imshow("predictions", image[:, :, ::-1])
            cv2.waitKey(milliseconds)
            return
    _warn_no_screen()


@cache
def _warn_no_screen() -> None:
    stderr("there is no screen for a window; -dont_show leaves it out")


def imtest(words: Words) -> None:
    """`imtest IMAGE` and `test IMAGE`: print the L2 norm; save the image, grey and in four other colours (image.c test_resize)."""
    path = words.at(1, "the image")
    try:
        image = read_image(path)
    except InputError as error:
        report_bad_image(path, error)
        raise RunError(f"{path}: could not be read; bad.list names it") from None
    stdout(f"L2 Norm: {np.sqrt(np.sum((image / 255.0) ** 2)):f}\n")
    images = {"Original": image, "Gray": (image @ np.array(_IMTEST_GRAY)).astype(np.uint8)}
    for number, (hue, saturation, exposure) in enumerate(_IMTEST_CHANGES, start=1):
        distortion = Distortion(hue=hue, saturation=saturation, exposure=exposure)
        images[f"C{number}"] = distort_exact(image, distortion)
    for name, each in images.items():
        stderr(f"saving {name}.jpg")
        save_jpeg(f"{name}.jpg", each)
