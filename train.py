"""Train the network of a cfg, with the original's gradients and schedule.

examples:
  python train.py --cfg cfg/csppeleenet-efm.cfg                                 on generated scenes, as a first try
  python train.py --cfg cfg/csppeleenet-efm.cfg --data my.data
  python train.py --cfg my.cfg --data my.data --weights backbone.conv.74 --img-size 320 --iterations 4000
  python train.py --resume runs/train/exp
  torchrun --nproc_per_node 2 train.py --cfg my.cfg --data my.data --sync-bn    on two GPUs
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data.image_cache import DISK, RAM
from models.fit import read_plan_to_fit
from models.heads.base import locate
from models.plan import make_plan
from training.checkpoint import Checkpoint, fitting, load_checkpoint, require_cfg, require_types
from training.options import TrainOptions, write_record
from training.prepare import DataSplits, fit_cfg, open_splits, require_labels
from training.recipe import advice, describe, modern
from training.run import Run
from utils import cfg as cfg_text
from utils.cfg import Cfg
from utils.cli import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    above_zero,
    flags_of,
    fraction,
    options_from,
    positive,
    run_script,
    script_parser,
    whole,
)
from utils.errors import InputError
from utils.files import is_file, is_folder, latest_run, read_text, run_folder, write_text
from utils.net_options import ScheduleOptions
from utils.processes import Processes, joined

logger = logging.getLogger(__name__)

LATEST, AUTO = "latest", "auto"
_LAST = "weights/last.pt"
# Flags that take effect with --resume, and flags that are not options of the run itself. All others keep their values.
_CHANGEABLE, _NOT_OF_THE_RUN = ("data", "names"), ("cfg", "resume", "project", "device", "workers")


def make_parser() -> argparse.ArgumentParser:
    parser = script_parser("train.py", __doc__)
    add = flags_of(parser)
    add("--cfg", help="Darknet cfg file; adapted in memory to the classes of the data")
    add(
        "--data",
        help="dataset: .data, .yaml, COCO .json or folder, Pascal VOC, ImageNet, CIFAR-10, folder or list of images; "
        "default: generated scenes",
    )
    add("--names", help="class names, one per line; default: those of the dataset")
    add(
        "--weights",
        metavar="FILE",
        help="initial weights: .weights, a backbone (.conv.N), .pt, .safetensors or the name of a shipped model",
    )
    add("--clear", action="store_true", help="reset the iteration count of --weights")
    text = (
        "resume a run, given its folder or last.pt, with its own flags (pass --data if the data has moved); default: the "
        "latest run in --project; auto: the run --name, or start it if there is none"
    )
    add("--resume", nargs="?", const=LATEST, metavar="RUN", help=text)

    text = "modern: settings for small datasets, which other flags override; default: the original's rules"
    add("--recipe", choices=("modern",), help=text)
    add("--plan", action="store_true", help="print the flags and keys that this run would use, then exit")

    group = parser.add_argument_group("overriding the cfg")
    add = flags_of(group)
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--iterations", type=above_zero, metavar="N", help="max_batches; steps are scaled in proportion"
    )
    length.add_argument("--epochs", type=above_zero, metavar="N", help="the same, in passes over the training images")
    add("--batch-size", type=above_zero, default=None, metavar="N", help="batch: images per weight update")
    add("--subdivisions", type=above_zero, metavar="N", help="subdivisions: forward passes per batch, to save memory")
    add("--img-size")
    add("--multi-scale", action="store_true", help="random=1: change the input size every ten iterations")
    text = "compute N anchors from the data; auto: as many as the cfg has; cfg: keep those of the cfg"
    add("--anchors", metavar="auto|N|cfg", help=text)
    add("--adam", action="store_true", help="adam=1: Adam instead of SGD")
    text = "override any key of [net] or of the heads: --set learning_rate=0.002 burn_in=100"
    add("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)
    add("--ema-alpha", type=fraction, metavar="A", help="ema_alpha: moving average of the weights")

    add = flags_of(parser.add_argument_group("beyond the original"))
    add("--albumentations", "--augment", metavar="FILE", help="additional augmentation, saved by albumentations.save")
    add("--single-cls")
    text = "keep decoded images in memory (ram, also without a value) or in a file below --project (disk)"
    add("--cache-images", nargs="?", const=RAM, choices=(RAM, DISK), help=text)
    add("--adamw", action="store_true", help="AdamW; set learning_rate and decay for it with --set")
    add("--clip-grad-norm", type=positive, default=0.0, metavar="X", help="maximum norm of a batch's mean gradient")
    add("--class-balanced", action="store_true", help="sample images so that all classes appear equally often")
    add("--rect", action="store_true", help="rectangular batches of images with similar aspect ratios")
    add("--cos-lr", action=argparse.BooleanOptionalAction, help="cosine learning rate schedule")
    text = "evaluate and save a moving average of the weights with this decay, starting at the first iteration"
    add("--average", type=fraction, metavar="D", help=text)
    text = "mirror images along both axes and transpose them, for images without an up or down"
    add("--dihedral", action=argparse.BooleanOptionalAction, help=text)
    add("--freeze", type=above_zero, default=0, metavar="N", help="freeze the first N layers")
    add(
        "--bn-momentum", type=fraction, metavar="M", help="batch-norm momentum, default 0.01 (the original's GPU build)"
    )
    text = (
        "use batch-norm statistics of training images in early evaluations; saved weights are not affected; default: on"
    )
    add("--calibrate-bn", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--sync-bn", action="store_true", help="batch normalisation over the images of all processes")
    add("--amp", choices=("bf16", "fp16"), help="mixed precision: 16-bit forward pass")
    text = "channels-last memory layout, usually faster; default: on"
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--device")
    add(
        "--workers",
        type=whole,
        default=2,
        metavar="N",
        help="processes that load images, default 2; 0: the main process",
    )
    add("--seed", type=whole, default=0, metavar="N", help="random seed of weights and augmentation, default 0")

    add = flags_of(parser.add_argument_group("validation and output"))
    text = "iterations between evaluations; default: 4 epochs, at least 100"
    add("--eval-period", type=above_zero, metavar="N", help=text)
    text = "stop after N evaluations without a better mAP; default 0: never"
    add("--patience", type=whole, default=0, metavar="N", help=text)
    add("--no-val", "--notest", action="store_true", help="do not evaluate")
    add("--no-save", help="save weights only at the end")
    text = "keep weights every N iterations, default 1000 (long runs: 10000); 0: never"
    add("--save-period", type=whole, metavar="N", help=text)
    add("--no-plots")
    text = "write TensorBoard scalars; default: on if tensorboard is installed"
    add("--tensorboard", action=argparse.BooleanOptionalAction, help=text)
    add("--print", choices=("bar", "darknet"), default="bar", help="darknet: print as the original does")
    add("--project", default="runs/train")
    add("--name")
    add("--exist-ok")
    return parser


def parse_arguments(arguments: Sequence[str] | None) -> TrainOptions:
    return options_from(TrainOptions, make_parser(), arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with joined(options.device) as processes:
        if not processes.main:  # otherwise every process would log the same messages
            logging.getLogger().setLevel(logging.ERROR)
        if options.plan:
            if options.resume is not None:
                raise InputError("--plan: describes a new run, expected no --resume; opt.yaml has the flags of a run")
            options, cfg, splits = _fitted(options, processes)
            if processes.main:
                print(describe(options, parse_arguments([]), cfg, splits.images))
            return EXIT_OK
        found = None if options.resume is None else _find_checkpoint(options, processes)
        if found is None:
            run = Run(*_fitted(options, processes), processes=processes)
        elif options.resume == AUTO and (done := _complete(found[1])):
            logger.info("%s: the run is complete at iteration %d", found[0], done)
            return EXIT_OK
        else:
            run = _resumed_run(options, *found, processes)
        if not processes.main:
            logging.getLogger().setLevel(logging.WARNING)
            return EXIT_OK if run.train_along() else EXIT_INTERRUPTED
        folder = _folder_of(found[0]) if found and found[0].exists() else _new_folder(run.options, run.cfg)
        finished = run.execute(folder)
    print(f"Results saved to {folder}")
    return EXIT_OK if finished else EXIT_INTERRUPTED


def _fitted(options: TrainOptions, processes: Processes) -> tuple[TrainOptions, Cfg, DataSplits]:
    """Return the flags with the recipe applied, the cfg fitted to the data, and the checked data."""
    if options.cfg is None:
        raise InputError("expected --cfg, or --resume to continue a run")
    plan = read_plan_to_fit(options.cfg)
    splits = _open_splits(options, processes)
    require_labels(plan, splits)
    if options.recipe:
        options = modern(options, plan, splits.images)
    cfg = fit_cfg(plan, options, splits)
    for line in advice(make_plan(cfg), splits.checked, options.bn_momentum):
        logger.info("%s", line)
    return options, cfg, splits


def _open_splits(options: TrainOptions, processes: Processes) -> DataSplits:
    validation, workers = not options.no_val, options.workers
    return processes.first(
        lambda: open_splits(
            options.data, options.names, single_cls=options.single_cls, validation=validation, workers=workers
        )
    )


def _new_folder(options: TrainOptions, cfg: Cfg) -> Path:
    folder = run_folder(options.project, options.name, exist_ok=options.exist_ok or options.resume == AUTO)
    cfg.write(folder / Path(options.cfg or cfg.path).name)
    _copy_trees(cfg, folder)
    write_record(folder / "opt.yaml", options, cfg)
    return folder


def _copy_trees(cfg: Cfg, folder: Path) -> None:
    """Copy the class trees that the cfg names, so that its copy in the run folder finds them."""
    for entry in (entry for raw in cfg.sections[1:] for entry in raw.entries if entry.key == "tree"):
        if not Path(entry.value).is_absolute() and ".." not in Path(entry.value).parts:
            write_text(folder / entry.value, read_text(locate(entry.value, cfg.path), entry.key))


def _resumed_run(options: TrainOptions, path: Path, checkpoint: Checkpoint, processes: Processes) -> Run:
    with fitting(str(path), "settings"):
        kept = parse_arguments([]).with_plain(checkpoint.settings)
    require_types(TrainOptions, kept.plain(), str(path))
    _warn_of_kept(options, kept)
    changed = {key: getattr(options, key) for key in _CHANGEABLE if getattr(options, key) is not None}
    resumed = dataclasses.replace(kept, device=options.device, workers=options.workers, **changed)
    cfg = cfg_text.parse(checkpoint.cfg, f"{path} (its cfg)")
    splits = _open_splits(resumed, processes)
    _require_names(checkpoint, path, splits)
    if options.cfg is not None:
        require_cfg(checkpoint, path, fit_cfg(read_plan_to_fit(options.cfg), resumed, splits))
    if done := _complete(checkpoint):
        text = "to train longer, start a new run with --weights and more --iterations"
        raise InputError(f"{path}: the run is complete at iteration {done}; {text}")
    logger.info("%s: resuming from iteration %d", path, checkpoint.iteration)
    return Run(resumed, cfg, splits, checkpoint, processes)


def _warn_of_kept(options: TrainOptions, kept: TrainOptions) -> None:
    """Warn about flags given with --resume that differ from those of the run, which are used."""
    defaults = parse_arguments([])
    for field in dataclasses.fields(TrainOptions):
        given, own = getattr(options, field.name), getattr(kept, field.name)
        if field.name not in _CHANGEABLE + _NOT_OF_THE_RUN and given not in (getattr(defaults, field.name), own):
            flag = "set" if field.name == "overrides" else field.name.replace("_", "-")
            logger.warning("--%s has no effect with --resume: the run keeps its own flags", flag)


def _require_names(checkpoint: Checkpoint, path: Path, splits: DataSplits) -> None:
    names = list(splits.train.names)
    if names != checkpoint.names:
        raise InputError(f"{splits.train.source}: classes {names}, expected those of {path}: {checkpoint.names}")


def _find_checkpoint(options: TrainOptions, processes: Processes) -> tuple[Path, Checkpoint] | None:
    """Return the checkpoint to resume from and its path in the main process; one process reads it for all machines."""
    automatic = options.resume == AUTO
    path = _checkpoint_path(options) if automatic or processes.main else Path()
    checkpoint = load_checkpoint(path) if (is_file(path) if automatic else processes.main) else None
    if processes.count == 1:
        return (path, checkpoint) if checkpoint else None
    iterations = processes.gather(checkpoint.iteration if checkpoint else -1)
    source = iterations.index(max(iterations))  # the newest: after a restart, another machine may be the main one
    if iterations[source] < 0:
        return None
    content = processes.broadcast_bytes(path.read_bytes() if processes.rank == source else b"", source)
    with tempfile.NamedTemporaryFile(suffix=".pt") as copy:
        copy.write(content)
        copy.flush()
        return path, load_checkpoint(copy.name)


def _checkpoint_path(options: TrainOptions) -> Path:
    if options.resume == AUTO:
        return Path(options.project) / options.name / _LAST
    if options.resume != LATEST:
        given = Path(options.resume or "")
        return given / _LAST if is_folder(given) else given
    return latest_run(options.project, _LAST, f"*/{_LAST}") / _LAST


def _complete(checkpoint: Checkpoint) -> int:
    """Return the iterations of a finished run; 0 for any other."""
    cfg = cfg_text.parse(checkpoint.cfg, "cfg of the checkpoint")
    last = ScheduleOptions.from_raw(cfg.sections[0]).max_batches
    return checkpoint.iteration if checkpoint.iteration >= last else 0


def _folder_of(path: Path) -> Path:
    """Return the run folder of a checkpoint; if it was moved, the folder it is in."""
    return path.parent.parent if path.parent.name == "weights" else path.parent


if __name__ == "__main__":
    sys.exit(run_script(main))
