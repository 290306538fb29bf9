"""Train a network as its cfg says, the way the original does.

examples:
  python train.py --cfg cfg/csppeleenet-efm.cfg                                 drawn scenes, to see it work
  python train.py --cfg cfg/csppeleenet-efm.cfg --data my.data
  python train.py --cfg my.cfg --data my.data --weights backbone.conv.74 --img-size 320 --iterations 4000
  python train.py --resume runs/train/exp/weights/last.pt
  torchrun --nproc_per_node 2 train.py --cfg my.cfg --data my.data --sync-bn    two GPUs
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from data.image_cache import DISK, RAM
from training.checkpoint import Checkpoint, load_checkpoint, require_cfg
from training.options import TrainOptions, write_record
from training.prepare import Sets, fitted, open_sets, require_labels
from training.run import Run
from utils import cfg as cfg_text
from utils.cli import EXIT_INTERRUPTED, EXIT_OK, above_zero, positive, run_script, script_parser, share, whole
from utils.errors import InputError
from utils.files import run_folder
from utils.net_options import ScheduleOptions
from utils.processes import Processes, joined

logger = logging.getLogger(__name__)

LATEST = "latest"
# Of the flags beside --resume: what may change, and what does not concern the run itself. All others stay as they were.
_CHANGEABLE, _ABOUT_RESUME = ("data", "names"), ("cfg", "project", "device", "workers")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser("train.py", __doc__)
    add = parser.add_argument
    add("--cfg", help="Darknet cfg file; fitted to the classes of the data in memory")
    add("--data", help=".data, .yaml, COCO .json or folder, Pascal VOC, images or list; default: drawn scenes")
    add("--names", help="names file to use in place of the data set's own")
    add("--weights", help="to begin with: .weights, a backbone (.conv.N) or a checkpoint (.pt)")
    add("--clear", action="store_true", help="count iterations from 0, whatever the weights have seen")
    add(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="FILE",
        help="go on from a last.pt, by the run's own flags (--data if it moved); default the latest one in --project",
    )
    group = parser.add_argument_group("what the cfg says, changed for this run")
    add = group.add_argument
    length = group.add_mutually_exclusive_group()
    length.add_argument("--iterations", type=above_zero, metavar="N", help="max_batches; steps move in proportion")
    length.add_argument("--epochs", type=above_zero, metavar="N", help="the same in passes over the training images")
    add("--batch-size", type=above_zero, metavar="N", help="batch: images of one weight update")
    add("--subdivisions", type=above_zero, metavar="N", help="subdivisions: parts of a batch, to save memory")
    add("--img-size", type=above_zero, nargs="+", default=[], metavar="N", help="width and height; one number: square")
    add("--multi-scale", action="store_true", help="random=1: change the size every ten iterations")
    add("--anchors", metavar="auto|N", help="compute anchors from the data, as many as there are, or N")
    add("--adam", action="store_true", help="adam=1: Adam instead of SGD")
    add(
        "--set",
        dest="net",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any other keys of [net]: --set learning_rate=0.002 burn_in=100",
    )
    add("--ema-alpha", type=share, metavar="A", help="ema_alpha: moving average of the weights")
    group = parser.add_argument_group("beside the original")
    add = group.add_argument
    add("--augment", metavar="FILE", help="further augmentations, a file of albumentations")
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--cache-images", nargs="?", const=RAM, choices=(RAM, DISK),
        help="keep decoded images in memory (without a word: ram), or in a file in the folder cache of --project")  # fmt: skip
    add("--adamw", action="store_true", help="AdamW; wants its own --set learning_rate=... decay=...")
    add("--clip-grad-norm", type=positive, default=0.0, metavar="X", help="largest norm of a batch's mean gradient")
    add(
        "--class-balanced",
        action="store_true",
        help="draw a class, then an image with it: rare classes come up as often",
    )
    add("--rect", action="store_true", help="batches of images of similar proportions, in a shape that fits them")
    add("--cos-lr", action="store_true", help="learning rate along half a cosine")
    add("--freeze", type=above_zero, default=0, metavar="N", help="leave the first N layers as they are")
    add(
        "--bn-momentum",
        type=share,
        metavar="M",
        help="of the rolling statistics, default 0.01 (the original's GPU build)",
    )
    add("--sync-bn", action="store_true", help="several processes: batch normalisation over the images of all")
    add("--amp", choices=("bf16", "fp16"), help="forward pass in 16-bit floats")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True,
        help="memory layout; the other one is slower on most processors")  # fmt: skip
    add("--device", default="", help="cpu, mps, or a CUDA index; default: a GPU if there is one")
    add("--workers", type=whole, default=2, help="processes that prepare images, default 2; 0: none")
    add("--seed", type=whole, default=0, help="of weights and augmentation, default 0")
    group = parser.add_argument_group("watching and saving")
    add = group.add_argument
    add(
        "--eval-period",
        type=above_zero,
        metavar="N",
        help="iterations between evaluations; default 4 epochs, at least 100",
    )
    add("--patience", type=whole, default=0, metavar="N", help="end after N evaluations without a better mAP; 0: never")
    add("--notest", action="store_true", help="do not evaluate")
    add("--nosave", action="store_true", help="save at the end only")
    add(
        "--save-period",
        type=whole,
        metavar="N",
        help="keep weights every N iterations, default 1000 (long runs: 10000); 0: none",
    )
    add("--noplots", action="store_true", help="no charts and no images")
    add("--tensorboard", action=argparse.BooleanOptionalAction, help="scalars for it; default: if it is installed")
    add("--print", choices=("bar", "darknet"), default="bar", help="darknet: the original's lines")
    add("--project", default="runs/train", help="folder of the run folders, default runs/train")
    add("--name", default="exp", help="name of the run folder, default exp, exp2, ...")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    values = vars(options)
    resume = values.pop("resume")
    values["img_size"], values["net"] = tuple(values["img_size"]), tuple(values["net"])
    settings = TrainOptions(**values)
    if len(settings.img_size) > 2:
        raise InputError(f"--img-size: found {len(settings.img_size)} numbers, expected one, or width and height")
    with joined(settings.device) as processes:
        if not processes.main:  # it would say everything once more
            logging.getLogger().setLevel(logging.ERROR)
        path = None if resume is None else _checkpoint_path(settings, resume)
        run = _new_run(settings, processes) if path is None else _continued_run(settings, path, processes)
        if not processes.main:
            logging.getLogger().setLevel(logging.WARNING)
            return EXIT_OK if run.follow() else EXIT_INTERRUPTED
        folder = _new_folder(run) if path is None else _folder_of(path)
        finished = run.execute(folder)
    print(f"Results saved to {folder}")
    return EXIT_OK if finished else EXIT_INTERRUPTED


def _new_run(settings: TrainOptions, processes: Processes) -> Run:
    if settings.cfg is None:
        raise InputError("expected --cfg, or --resume to go on with a run")
    sets = processes.first(lambda: open_sets(settings))
    require_labels(settings.cfg, sets)
    return Run(settings, fitted(settings, sets), sets, processes=processes)


def _new_folder(run: Run) -> Path:
    settings, cfg = run.settings, run.cfg
    folder = run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    cfg.write(folder / Path(settings.cfg or cfg.path).name)
    write_record(folder / "opt.yaml", settings, cfg)
    return folder


def _continued_run(settings: TrainOptions, path: Path, processes: Processes) -> Run:
    checkpoint = load_checkpoint(path)
    kept = TrainOptions.from_plain(checkpoint.settings)
    _warn_of_kept(settings, kept)
    moved = {key: getattr(settings, key) for key in _CHANGEABLE if getattr(settings, key) is not None}
    given = dataclasses.replace(kept, device=settings.device, workers=settings.workers, **moved)
    cfg = cfg_text.parse(checkpoint.cfg, f"{path} (its cfg)")
    sets = processes.first(lambda: open_sets(given))
    _require_names(checkpoint, path, sets)
    if settings.cfg is not None:
        require_cfg(checkpoint, path, fitted(dataclasses.replace(given, cfg=settings.cfg), sets))
    if checkpoint.iteration >= ScheduleOptions.from_raw(cfg.sections[0]).max_batches:
        text = "a longer one begins with --weights and more --iterations"
        raise InputError(f"{path}: the run is at its end, iteration {checkpoint.iteration}; {text}")
    logger.info("%s: going on from iteration %d", path, checkpoint.iteration)
    return Run(given, cfg, sets, checkpoint, processes)


def _warn_of_kept(settings: TrainOptions, kept: TrainOptions) -> None:
    """Say which flags beside --resume differ from the run's own, which count."""
    usual = TrainOptions()
    for field in dataclasses.fields(TrainOptions):
        given, own = getattr(settings, field.name), getattr(kept, field.name)
        if field.name not in _CHANGEABLE + _ABOUT_RESUME and given not in (getattr(usual, field.name), own):
            flag = "set" if field.name == "net" else field.name.replace("_", "-")
            logger.warning("--%s has no effect beside --resume, the run goes on with its own flags", flag)


def _require_names(checkpoint: Checkpoint, path: Path, sets: Sets) -> None:
    names = list(sets.train.names)
    if names != checkpoint.names:
        raise InputError(f"{sets.train.source}: classes {names}, expected those of {path}: {checkpoint.names}")


def _checkpoint_path(settings: TrainOptions, resume: str) -> Path:
    return _latest(Path(settings.project)) if resume == LATEST else Path(resume)


def _latest(project: Path) -> Path:
    found = sorted(project.glob("*/weights/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"--resume: no */weights/last.pt in {project}, name the file")
    return found[-1]


def _folder_of(path: Path) -> Path:
    """The run folder of a checkpoint; its own folder if it was moved out of one."""
    return path.parent.parent if path.parent.name == "weights" else path.parent


if __name__ == "__main__":
    sys.exit(run_script(main))
