"""`detector train` and `classifier train`: a run of training/ with the original's lines, files and evaluations."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from darknet_cli.chart import Chart
from darknet_cli.classify import measured_accuracy
from darknet_cli.detect import save_jpeg, show
from darknet_cli.grammar import Words
from darknet_cli.measure import measured_map
from darknet_cli.network import (
    base_name,
    class_names,
    device_of,
    option,
    print_heads,
    print_network,
    print_weights,
    require_names,
    stderr,
    stdout,
)
from darknet_cli.streams import Broadcaster
from data.formats.darknet import read_data, read_list
from data.image import jpeg, save_image
from data.loader import TrainBatch
from inference.detector import Detector
from inference.model import model_of
from inference.predictor import Classifier
from models.fit import classes_of
from models.plan import Plan, make_plan
from training.loop import Update
from training.options import TrainOptions
from training.prepare import DataSplits, box_head, open_splits, require_labels
from training.progress import DarknetLines
from training.run import Run, batch_sizes
from utils.cfg import Cfg
from utils.cli import EXIT_INTERRUPTED, EXIT_OK
from utils.errors import InputError, RunError
from utils.files import is_file
from utils.net_options import ScheduleOptions
from utils.processes import Processes, joined

_FEED_QUALITY, _FEED_EVERY = 70, 1.0
_BOX_COLOUR = (106, 156, 206)  # -show_imgs: 150, 100, 50 times 255, which overflows a byte in the original
_SHOWN = "\nYou use flag -show_imgs, so will be saved aug_...jpg images. Click on window and press ESC button \n"


def start(words: Words) -> int:
    """`detector train DATA CFG [WEIGHTS]` (detector.c train_detector), `classifier train ...` (classifier.c train_classifier).

    Runs in this process, or with several GPUs in a process for each.
    """
    gpus = words["-gpus"].split(",") if words["-gpus"] else []
    if gpus:
        stdout(f"{words['-gpus']}\n")
        if not all(number.strip().isdecimal() for number in gpus):
            raise InputError(f"-gpus {words['-gpus']}: expected numbers separated by commas")
    on_gpu = torch.cuda.is_available() and not words["-nogpu"]
    if len(gpus) > 1 and not on_gpu:
        stderr("-gpus: there are no GPUs here, this is one process on the CPU")
    if len(gpus) > 1 and on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # read when the new processes start CUDA
        return start_processes(words, len(gpus))
    return train(words, gpus[0].strip() if gpus and on_gpu else device_of(words), 1)


def start_processes(words: Words, count: int) -> int:
    """Train in `count` new processes, each with a GPU of its own, or on the CPU if there is none. Raises RunError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = torch.multiprocessing.spawn(_process, (words, count, port), nprocs=count, join=False)
    try:
        while not context.join():
            pass
    except torch.multiprocessing.ProcessExitedException as error:
        raise RunError(f"a process ended with exit code {error.exit_code}") from None
    except torch.multiprocessing.ProcessRaisedException as error:
        raise RunError(str(error).strip().splitlines()[-1]) from None
    return EXIT_OK


def _process(rank: int, words: Words, count: int, port: int) -> None:
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, format="%(message)s")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **address}
    train(words, "cpu" if words["-nogpu"] else "", count)


def _all_off(**values: object) -> TrainOptions:
    """Return options of train.py with everything off except `values`."""
    zero = {"bool": False, "int": 0, "float": 0.0, "str": ""}
    fields = {field.name: str(field.type) for field in dataclasses.fields(TrainOptions)}
    nothing = {name: () if kind.startswith("tuple") else zero.get(kind) for name, kind in fields.items()}
    return TrainOptions(**(nothing | values))  # type: ignore[arg-type]


def train(words: Words, device: str, count: int) -> int:
    """Train in this process, one of `count` that work together; only the main one prints and writes."""
    options = read_data(words.at(2, "the .data file"))
    with joined(device) as processes, contextlib.ExitStack() as stack:
        if not processes.main:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        plan, periods = _announced(words, options, count)
        run = _run(words, options, plan, device, periods, processes)
        if not processes.main:
            return EXIT_OK if run.train_along() else EXIT_INTERRUPTED
        return run.execute_as_darknet()


@dataclass(frozen=True, kw_only=True)
class _Periods:
    """Iterations between saved weights: numbered files that are kept, and the file of the last weights."""

    kept: int
    last: int


def _announced(words: Words, options: Mapping[str, str], count: int) -> tuple[Plan, _Periods]:
    """Print the original's lines before training; return the plan and the saving periods. Raises InputError, RunError."""
    data, cfg, weights, boxes = words.words[2], words.at(3, "the cfg file"), words.get(4), words.words[0] == "detector"
    if boxes and words["-map"]:
        _announce_map(options, data, cfg)
    stdout(f"{base_name(cfg)}\n")
    if not boxes:
        stdout(f"{count}\n")
    for _ in range(count):
        plan = print_network(cfg, batch=None, train=True)
        if weights:
            print_weights(plan, weights)
    batch, _ = batch_sizes(plan)
    schedule = ScheduleOptions.from_raw(plan.cfg.sections[0])
    if not schedule.max_batches:
        raise InputError(f"{cfg}: [net] max_batches=0: expected the number of iterations")
    default = "1000" if schedule.max_batches < 10000 or not boxes else "10000"
    periods = _Periods(kept=int(options.get("saveweights", default)), last=int(options.get("savelast", "100")))
    if boxes and batch < 8:
        stdout(f"\n Warning: You set batch={batch} lower than 64! It is recommended to set batch=64 subdivision=64 \n")
    if boxes:
        stdout(f"Weights are saved after: {periods.kept} iterations. "
            f"Last weights (*_last.weight) are stored every {periods.last} iterations. \n")  # fmt: skip
    rate = schedule.learning_rate * count
    stdout(f"Learning Rate: {rate:g}, Momentum: {schedule.momentum:g}, Decay: {schedule.decay:g}\n")
    if boxes:
        print_heads(plan)
    elif classes_of(plan) != (classes := int(option(options, "classes", "2"))):
        text = f"num of filters = {classes_of(plan)} in the last conv-layer in cfg-file doesn't match to"
        stdout(f"\n Error: {text} classes = {classes} in data-file \n")
        raise RunError(f"{data}: classes={classes}, but {cfg} has {classes_of(plan)}")
    return plan, periods


def _announce_map(options: Mapping[str, str], data: str, cfg: str) -> None:
    """Check the files for -map and print the original's lines about it."""
    train = option(options, "train", "data/train.txt")
    valid = options.get("valid", train)
    if not is_file(valid):
        stdout(f"\n Error: There is no {valid} file for mAP calculation!\n Don't use -map flag.\n"
            f" Or set valid={train} in your {data} file. \n")  # fmt: skip
        raise RunError(f"{valid}: no such list of images")
    stdout(" Prepare additional network for mAP calculation...\n")
    plan = print_network(cfg)
    require_names(class_names(options), classes_of(plan), options, cfg)


def _run(
    words: Words, options: Mapping[str, str], plan: Plan, device: str, periods: _Periods, processes: Processes
) -> DarknetRun:
    """Create the run. With several GPUs, each has its own batch and learning rates add up (network_kernels.cu, detector.c)."""
    data, cfg, weights, count = words.words[2], words.words[3], words.get(4), processes.count
    settings = _all_off(
        cfg=cfg, data=data, weights=weights, clear=words["-clear"] and weights is not None, channels_last=True, device=device,
        workers=2, no_val=True, no_plots=True, print="darknet", tensorboard=False,
    )  # fmt: skip
    if count > 1:
        rate = ScheduleOptions.from_raw(plan.cfg.sections[0]).learning_rate
        values = {"batch": plan.net.batch * count, "learning_rate": rate * count}
        plan = make_plan(plan.cfg.with_values(0, values))
    splits = processes.first(lambda: open_splits(data, None, single_cls=False, validation=False, workers=2))
    require_labels(plan, splits)
    backup = Path(option(options, "backup", "/backup/"))
    try:
        backup.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{backup}: cannot be created: {error.strerror}") from None
    return DarknetRun(settings, plan.cfg, splits, processes, words=words, data=options, backup=backup, periods=periods)


class DarknetRun(Run):
    """A run with the original's output lines and files, in the folder `backup` of the .data file."""

    def __init__(
        self,
        settings: TrainOptions,
        cfg: Cfg,
        splits: DataSplits,
        processes: Processes,
        *,
        words: Words,
        data: Mapping[str, str],
        backup: Path,
        periods: _Periods,
    ) -> None:
        # The original writes the final weights of a finished training again.
        super().__init__(settings, cfg, splits, processes=processes, finished_ok=True)
        self._words, self._data, self._backup, self._periods = words, data, backup, periods
        self._boxes = words.words[0] == "detector"
        self._base = base_name(settings.cfg or "")
        start = self.trainer.iteration
        self._kept_at = self._last_at = self._measured_at = start
        self._accuracy = self._best = -1.0
        self._lines = DarknetLines(self.history, self.last, lambda text: stdout(f"{text}\n"))
        metric = "mAP%" if self._boxes else f"top{data.get('top', '1')}"
        self._chart = Chart(
            words["-chart"], max_batches=self.last, max_loss=self.schedule.max_chart_loss, metric=metric
        )
        self._saved_chart_at = 0
        self._feed: Broadcaster | None = None
        self._fed_at = 0.0

    def execute_as_darknet(self) -> int:
        with contextlib.ExitStack() as stack:
            if (port := self._words["-mjpeg_port"]) > 0:
                self._feed = stack.enter_context(Broadcaster.of_mjpeg(port))
            report = self._report_detector if self._boxes else self._report_classifier
            hooks: list[Callable[[Update], None]] = [self.history.add, self._average, report, self._draw, self._keep]
            if not self._boxes:
                stdout(f"{self.splits.images}\n")
            interrupted = self._train(self._shown(self.loader) if self._words["-show_imgs"] else self.loader, hooks)
        self._save("last" if interrupted else "final")
        if self._boxes and not interrupted:
            stdout("If you want to train from the beginning, then use flag in the end of training command: -clear \n")
        return EXIT_INTERRUPTED if interrupted else EXIT_OK

    def _save(self, which: object) -> None:
        path = self._backup / f"{self._base}_{which}.weights"
        stderr(f"Saving weights to {path}")
        self.write_weights(path)

    def _shown(self, batches: Iterable[TrainBatch]) -> Iterator[TrainBatch]:
        """Yield the batches; save and show each image with its boxes (data.c load_data_detection, load_data_augment)."""
        for batch in batches:
            sides = np.array(batch.size_wh * 2)
            for number, (planes, rows) in enumerate(zip(batch.images.numpy(), batch.ground_truth.numpy(), strict=True)):
                image = np.ascontiguousarray(np.broadcast_to(planes.transpose(1, 2, 0), (*planes.shape[1:], 3)))
                for x, y, w, h in rows[rows[:, 0] != 0, :4] if self._boxes else ():
                    corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * sides
                    left, top, right, bottom = np.clip(corners.astype(int), 0, sides - 1).tolist()
                    cv2.rectangle(image, (left, top), (right, bottom), _BOX_COLOUR)
                save_jpeg(f"aug_{batch.iteration + 1}_{batch.subdivision}_{number}.jpg", image)
                if not self._boxes:
                    classes = "".join(f" {index} ({rows[index]:f}), " for index in np.flatnonzero(rows > 0))
                    stdout(f"\n Classes: {classes} \n")
                if not self._words["-dont_show"]:
                    show(image)
                if self._boxes or number == len(batch.images) - 1:
                    stdout(_SHOWN)
            yield batch

    def _loaded(self, update: Update) -> None:
        slow = update.waited > 0.1 and update.iteration > 1 and self._boxes
        stdout(
            f"Loaded: {update.waited:f} seconds{' - performance bottleneck on CPU or Disk HDD/SSD' if slow else ''}\n"
        )

    def _report_detector(self, update: Update) -> None:
        head = box_head(self.network.plan)
        if head is not None and head.random and (update.iteration - 1) % 10 == 0:
            factor = 1.4 if head.random == 1 else head.random
            stdout("Resizing, random_coef = {:.2f} \n\n {} x {} \n".format(factor, *update.size_wh))
        self._loaded(update)
        period = max(self._words["-mAP_epochs"] * self.splits.images // self.trainer.batch, 100)
        due = max(self._measured_at + period, self.schedule.burn_in)
        name, accuracy, best = f"mAP@{self._words['-iou_thresh']:0.2f}", self._accuracy, self._best
        if self._words["-map"]:
            stdout(f"\n (next mAP calculation at {due} iterations) ")
            if accuracy > 0:
                stdout(f"\n Last accuracy {name} = {100 * accuracy:2.2f} %, best = {100 * best:2.2f} % ")
        known = f" map={accuracy:0.2f} best={best:0.2f}" if accuracy > 0 else ""
        stdout(f"\033[H\033[J{update.iteration}/{self.last}: loss={update.loss:0.1f}{known} "
            f"hours left={self._lines.hours:0.1f}\007")  # fmt: skip
        self._lines(update)
        if self._words["-map"] and (update.iteration >= due or update.iteration == self.last):
            self._measured_at = update.iteration
            self._accuracy = self._measured_map()
            stdout(f"\n mean_average_precision ({name}) = {self._accuracy:f} \n")
            if self._accuracy >= self._best:
                self._best = self._accuracy
                stdout("New best mAP!\n")
                self._save("best")

    def _measured_map(self) -> float:
        model = model_of(copy.deepcopy(self.network), self.device)
        assert isinstance(model, Detector)
        model.names = class_names(self._data)
        valid, flags = Path(self._data.get("valid") or self._data["train"]), self._words
        _, _, found = measured_map(model, valid, self._data, thresh=flags["-thresh"], iou_thresh=flags["-iou_thresh"])
        self.history.evaluated({"mAP": found})
        return found

    def _report_classifier(self, update: Update) -> None:
        self._loaded(update)
        two_epochs = self._measured_at + 2 * self.splits.images // self.trainer.batch
        due, top = max(two_epochs, self.schedule.burn_in, 100), self._data.get("top", "1")
        if self._words["-topk"] and update.iteration % 10 == 0:
            known = f" Last accuracy TOP{top} = {100 * self._accuracy:2.2f} % \n" if self._accuracy > 0 else ""
            stderr(f"\n (next TOP{top} calculation at {due} iterations) {known}")
        if self._words["-topk"] and (update.iteration >= due or update.iteration == self.last):
            self._measured_at = update.iteration
            model = model_of(copy.deepcopy(self.network), self.device)
            assert isinstance(model, Classifier)
            images = read_list(Path(self._data.get("valid") or self._data["train"]))
            stdout(" TOP calculation...\n")
            _, self._accuracy = measured_accuracy(model, images, self._data, "\r{}")
            self.history.evaluated({"mAP": self._accuracy})
            stdout(f"\n accuracy top{top} = {self._accuracy:f} \n")
        self._lines.estimate(update)
        images_seen = update.iteration * update.images
        stdout(
            f"{update.iteration}, {images_seen / self.splits.images:.3f}: {update.loss:f}, {self.history.average:f} avg, "
            f"{update.rate:f} rate, {update.seconds:f} seconds, {images_seen} images, {self._lines.hours:f} hours left\n"
        )

    def _draw(self, update: Update) -> None:
        """Write chart.png and chart_BASE.png to the working directory when the original does (image_opencv.cpp)."""
        measured = self._accuracy if self._measured_at == update.iteration else None
        self._chart.add(update.iteration, self.history.average, measured, self._lines.hours)
        due = update.iteration == self.last - 1 or update.iteration // 100 > self._saved_chart_at // 100
        feed_due = self._feed is not None and time.monotonic() - self._fed_at >= _FEED_EVERY
        if not due and not feed_due:
            return
        chart = self._chart.image
        if due:
            self._saved_chart_at = update.iteration
            for path in (f"chart_{self._base}.png", "chart.png"):
                save_image(path, chart)
            if not self._words["-dont_show"]:
                show(chart, 1)
        if self._feed:
            self._feed.send_jpeg(jpeg(chart, _FEED_QUALITY))
            self._fed_at = time.monotonic()

    def _keep(self, update: Update) -> None:
        """Save numbered and last weights when due (detector.c train_detector; a classifier has fixed periods)."""
        iteration, periods = update.iteration, self._periods
        if iteration >= self._kept_at + periods.kept or iteration % periods.kept == 0:
            self._kept_at = iteration
            self._save(iteration)
        wanted = periods.kept > periods.last and iteration > 1
        if wanted and (iteration >= self._last_at + periods.last or iteration % periods.last == 0):
            self._last_at = iteration
            self._save("last")
