"""The original's command line: python darknet.py detector test cfg/coco.data yolov4.cfg yolov4.weights dog.jpg

Commands, argument order, printed lines, files and exit codes are those of AlexeyAB's darknet.
docs/from-alexeyab.md lists every command and every difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from darknet_cli import classify, demo, detect, measure, tools, train
from darknet_cli.grammar import USAGE, Words, parse, refusal
from darknet_cli.network import stderr
from utils.cli import EXIT_FAILED, EXIT_OK, as_typed, run_script, script_parser

BAD_INPUT = EXIT_FAILED  # the original's exit code for all errors
COMMANDS: dict[str, Callable[[Words], int | None]] = {  # their exit code; None: EXIT_OK
    "detect": detect.detect,
    "detector test": detect.detect_images,
    "detector demo": demo.demo,
    "detector train": train.start,
    "classifier train": train.start,
    "detector map": measure.map_table,
    "detector valid": measure.valid,
    "detector recall": measure.recall,
    "detector calc_anchors": measure.calc_anchors,
    "classify": classify.classify,
    "classifier demo": demo.classifier_demo,
    "classifier predict": classify.predict,
    "classifier valid": classify.valid,
    "classifier valid10": classify.valid10,
    "partial": tools.partial,
    "average": tools.average,
    "denormalize": tools.denormalize,
    "reset": tools.reset,
    "normalize": tools.normalize,
    "rescale": tools.rescale,
    "rgbgr": tools.rgbgr,
    "statistics": tools.statistics,
    "ops": tools.ops,
    "speed": tools.speed,
    "imtest": detect.imtest,
    "test": detect.imtest,
}


def parse_arguments(arguments: Sequence[str] | None) -> Words:
    return parse(sys.argv[1:] if arguments is None else arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    if list(sys.argv[1:] if arguments is None else arguments) in (["--version"], ["--help"], ["-h"]):
        script_parser("python darknet.py", f"{__doc__}\ncommands:\n  {f'{chr(10)}  '.join(COMMANDS)}").parse_args(
            arguments
        )
    parsed = parse_arguments(arguments)
    words = parsed.words
    program = as_typed("python darknet.py")
    if not words:
        stderr(USAGE[""].format(program=program))
        return EXIT_OK
    if words[0] in ("detector", "classifier") and len(words) < 3:
        stderr(USAGE[words[0]].format(program=program))
        return EXIT_OK
    command = COMMANDS.get(" ".join(words[:2])) or COMMANDS.get(words[0])
    if command is None:
        raise refusal(words)
    return command(parsed) or EXIT_OK


if __name__ == "__main__":
    sys.exit(run_script(main, bad_input=BAD_INPUT))
