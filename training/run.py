"""A training run: assembles its parts and hooks, executes it, and handles its end."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.albumentations import read_albumentations
from data.dataset import ClassHierarchy
from data.evaluation_set import make_classification_set, make_evaluation_set
from data.image_cache import CacheOptions
from data.loader import TrainBatch, TrainLoader
from data.sampling import class_balanced_weights, size_coefficient
from data.training_set import BoxOptions, LoaderOptions, RectOptions, training_loader
from models.batchnorm import BatchNorm
from models.fit import classes_of
from models.heads.softmax import Softmax
from models.network import Network
from models.plan import Plan, make_plan
from models.training import Training
from models.weights import save_weights
from training.adversarial import AdversarialPerturbation
from training.checkpoint import Checkpoint, Saver, fitting, random_state, require_alike, restore_random_state
from training.history import Board, TrainingHistory, board_wanted
from training.loop import Precision, Trainer, Update, run
from training.optimizer import LAST_PART, AdamW, DarknetOptimizer, Ema, RunningAverage
from training.options import TrainOptions
from training.prepare import DataSplits, box_head, load_start
from training.progress import DarknetLines, EpochBar
from training.results import ResultFiles, has_matplotlib
from training.schedule import Schedule
from training.validation import (
    BOX_METRIC,
    CLASS_METRIC,
    EvaluationHook,
    Result,
    calibrated,
    default_period,
    evaluate_classifier,
    evaluate_detector,
)
from utils.cfg import Cfg
from utils.cli import stop_request
from utils.device import select_device
from utils.errors import DataLoadingError, InputError, RunError
from utils.memory import total_memory
from utils.net_options import ScheduleOptions
from utils.processes import Processes

logger = logging.getLogger(__name__)

_FP16_SCALE = 65536.0
_MOST_AT_ONCE = 8  # passes at the same time: Python runs one thread at a time between operations
_MEMORY_SHARE, _BYTES_PER_VALUE = 0.5, 16  # for passes at the same time; measured: 4 to 13 bytes for each output
_CALIBRATION_IMAGES, _CALIBRATION_BATCH = 128, 8  # images in total and per forward pass


def _announce_stop() -> None:
    """Announce the end from a signal handler, where sys.stderr may be in the middle of a write."""
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping after this iteration; once more to stop at once\n")


class Run:
    """A training run, given the fitted cfg and the data.

    checkpoint: the state to resume from.
    processes: the processes that train together; by default only this one.
    finished_ok: accept weights that have seen all iterations of the cfg.
    Raises InputError if the network cannot be trained with these options.
    """

    def __init__(
        self,
        options: TrainOptions,
        cfg: Cfg,
        splits: DataSplits,
        checkpoint: Checkpoint | None = None,
        processes: Processes | None = None,
        *,
        finished_ok: bool = False,
    ) -> None:
        random.seed(options.seed)
        torch.manual_seed(options.seed)
        self.options, self.cfg, self.splits = options, cfg, splits
        self.schedule = ScheduleOptions.from_raw(cfg.sections[0])
        self.last = self.schedule.max_batches
        self.processes = processes or Processes()
        self.device = self.processes.device or select_device(options.device)
        self.network = self._make_network(checkpoint)
        self.trainer = self._make_trainer()
        self.history = TrainingHistory.for_length(self.last)
        if options.average and self.schedule.ema_alpha:
            raise InputError(f"--average and [net] ema_alpha={self.schedule.ema_alpha:g} cannot be combined")
        self.ema = None
        if self.schedule.ema_alpha:
            self.ema = Ema(dict(self.network.named_parameters()), self.schedule.ema_alpha, self.last)
        self.average = RunningAverage(self.network, options.average) if options.average else None
        self.evaluation = self._make_evaluation()
        if checkpoint is not None:
            self._restore(checkpoint)
        if not finished_ok:
            self._refuse_finished()
        self._warn_of_no_effect()
        self._board = board_wanted(options.tensorboard)
        self.loader = self._make_loader()
        if checkpoint is not None:
            with fitting(cfg.path, "random state"):
                restore_random_state(checkpoint.random)

    @property
    def result(self) -> Network:
        """The network that is evaluated and saved: the one in training, or the average of its weights."""
        return self.average.network if self.average else self.network

    def execute(self, folder: Path) -> bool:
        """Train and write into `folder`; returns False if a signal ended it early, with the state saved. Raises RunError."""
        save = not self.options.no_save
        saver = self._make_saver(folder / "weights")
        results = self._make_results(folder, saver.last_every)
        results.write_labels(self.splits, self.network.plan)
        evaluation = self.evaluation
        evaluation.on_done, evaluation.on_best_result = results.write, results.write_validation
        if save:
            evaluation.on_best = partial(saver.save, "best")
        progress: EpochBar | DarknetLines
        if self.options.print == "darknet":
            progress = DarknetLines(self.history, self.last)
        else:
            progress = EpochBar(self.history, self.splits.images, self.trainer.batch, self.last)
        saving = [saver] if save else []
        hooks: list[Callable[[Update], None]] = [
            self.history.add,
            self._average,
            progress,
            *saving,
            evaluation,
            results,
            self._await_evaluation,
        ]
        saver.remove_unfinished()
        try:
            interrupted = self._train(results.previewed(self.loader, self.splits.train.names), hooks)
        except (RunError, KeyboardInterrupt) as error:
            with contextlib.suppress(RunError):  # the first failure is the one to report
                if isinstance(error, DataLoadingError):
                    saver.save("last")
                results.write()
            if (path := folder / "weights" / "last.pt").exists():
                logger.info("the last checkpoint is %s", path)
            raise
        finally:
            progress.close()
            results.write_problems(self.loader.findings)
            results.close()
        results.write()
        if interrupted:
            saver.save("last")
        else:
            saver.final()
        return not interrupted

    def train_along(self) -> bool:
        """`execute` for all processes except the main one: nothing is written, evaluated or logged."""
        return not self._train(self.loader, [self._average, self._note_evaluation, self._await_evaluation])

    def _train(self, batches: Iterable[TrainBatch], hooks: Sequence[Callable[[Update], None]]) -> bool:
        """Run the loop; returns whether a signal to any of the processes ended it."""

        def ended() -> bool:
            return self.processes.any(stop.made or self.evaluation.exhausted)

        with stop_request(_announce_stop if self.processes.main else None) as stop:
            try:
                run(self.trainer, batches, self.last, hooks, ended)
            except DataLoadingError:
                if not stop.made or self.processes.count > 1:
                    raise  # otherwise a signal to the whole process group killed a worker that was just starting
        return self.processes.any(stop.made)

    def state(self) -> Checkpoint:
        """Everything needed to resume."""
        scaler = self.trainer.precision.scaler
        return Checkpoint(
            cfg=self.cfg.text,
            names=list(self.splits.train.names),
            model=self.result.state_dict(),
            trained=self.network.state_dict() if self.average else {},
            optimizer=self.trainer.optimizer.state_dict(),
            iteration=self.trainer.iteration,
            seen=self.trainer.seen,
            best=self.evaluation.best,
            ema=self.ema.state_dict() if self.ema else {},
            scaler=scaler.state_dict() if scaler else {},
            random=random_state(),
            loader={"seed": self.options.seed, "iteration": self.trainer.iteration},
            history=self.history.state_dict() | self.evaluation.state_dict(),
            settings=self.options.plain(),
        )

    def write_weights(self, path: Path) -> None:
        """Write the network as a .weights file."""
        self.result.seen = self.trainer.seen
        save_weights(self.result, path)

    def _make_network(self, checkpoint: Checkpoint | None) -> Network:
        """Build the network with its initial weights, which are the same in all processes."""
        options, network = self.options, Network(make_plan(self.cfg))
        if checkpoint is not None:
            with fitting(self.cfg.path, "network"):
                network.load_state_dict(checkpoint.trained or checkpoint.model)
        elif options.weights is not None:
            load_start(network, options.weights, clear=options.clear)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.momentum = module.momentum if options.bn_momentum is None else options.bn_momentum
                module.processes = self.processes if options.sync_bn else module.processes
        network.to(self.device)
        if options.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes.broadcast(list(network.state_dict().values()))
        return network

    def _make_trainer(self) -> Trainer:
        """Build the trainer, starting at the iteration that the weights have reached."""
        options, schedule, count = self.options, self.schedule, self.processes.count
        training = Training(self.network, options.freeze)
        batch, subdivisions = batch_sizes(self.network.plan)
        if batch // subdivisions % count:
            text = f"batch={batch}, subdivisions={subdivisions} make {batch // subdivisions} images per forward pass"
            raise InputError(f"[net] {text}, expected a multiple of {count}, one part for each process")
        adversary = None
        if schedule.adversarial_lr:
            adversary = AdversarialPerturbation(
                rate=schedule.adversarial_lr, burn_in=schedule.burn_in, max_batches=self.last, seed=options.seed
            )
        optimizer = AdamW if options.adamw else DarknetOptimizer
        at_once = 1
        if self.device.type == "cpu" and count == 1 and adversary is None and training.has_independent_passes:
            at_once = passes_at_once(self.network.plan, torch.get_num_threads(), total_memory())
        trainer = Trainer(
            training,
            optimizer(training.tensors(schedule.burn_in), schedule),
            Schedule(schedule, cosine=bool(options.cos_lr), seed=options.seed),
            batch=batch,
            subdivisions=subdivisions,
            device=self.device,
            precision=_precision(options.amp, schedule.loss_scale, self.device),
            channels_last=options.channels_last,
            files=lambda batch: [str(path) for path in self.loader.files(batch)],
            max_norm=options.clip_grad_norm,
            adversary=adversary,
            processes=self.processes,
            replicas=[training.replica() for _ in range(at_once - 1)],
        )
        trainer.iteration = self.network.seen // batch
        return trainer

    def _make_evaluation(self) -> EvaluationHook:
        options, plan, batch = self.options, self.network.plan, self.trainer.batch
        head, val, path = box_head(plan), self.splits.val, plan.cfg.path
        size, workers, device = max(1, batch // self.trainer.subdivisions), options.workers, self.device
        evaluate: Callable[[Network], Result] | None = None
        if head is not None and not options.no_val:
            labelled = make_evaluation_set(val, "val", head.classes, path)
            evaluate = partial(evaluate_detector, dataset=labelled, batch=size, workers=workers, device=device)
        elif not options.no_val:
            images = make_classification_set(val, "val", classes_of(plan), path)
            evaluate = partial(evaluate_classifier, dataset=images, batch=size, workers=workers, device=device)
        return EvaluationHook(
            evaluate=evaluate,
            metric=BOX_METRIC if plan.box_heads else CLASS_METRIC,
            calibrate=self._calibrated,
            network=self.result,
            history=self.history,
            period=options.eval_period or default_period(self.splits.images, batch),
            earliest=0 if options.eval_period else self.schedule.burn_in,
            last=self.last,
            patience=options.patience,
            darknet=options.print == "darknet",
            at=self.trainer.iteration,
        )

    def _calibrated(self, network: Network, iterations: int) -> Network:
        """The network to evaluate after `iterations` updates; with --calibrate-bn, a calibrated copy until statistics settle."""
        if not self.options.calibrate_bn:
            return network
        passes, images = iterations * self.trainer.subdivisions, self.splits.train.splits["train"]
        images = images[:: max(1, len(images) // _CALIBRATION_IMAGES)][:_CALIBRATION_IMAGES]
        return calibrated(network, passes, images, _CALIBRATION_BATCH, self.options.workers, self.device)

    def _make_loader(self) -> TrainLoader:
        """Build the loader, which starts at the trainer's iteration."""
        options, plan, boxes = self.options, self.network.plan, None
        head = box_head(plan)
        if head is not None:
            sizes = {"jitter": head.jitter, "resize": head.resize, "random": head.random}
            boxes = BoxOptions(classes=head.classes, max_boxes=head.max_truths, **sizes)
        elif options.albumentations is not None:
            raise InputError("--albumentations works only for detectors")
        elif options.dihedral:
            raise InputError("--dihedral works only for detectors")
        loading = LoaderOptions(
            seed=options.seed,
            workers=options.workers,
            start=self.trainer.iteration,
            pin_memory=self.device.type == "cuda",
            cache=_cache_options(options.cache_images, options.project, options.workers),
            dihedral=bool(options.dihedral),
            albumentations=read_albumentations(options.albumentations) if options.albumentations else None,
            weights=_class_weights(self.splits, classifier=boxes is None) if options.class_balanced else None,
            rect=_rect_options(self.splits, plan) if options.rect else None,
            rank=self.processes.rank,
            world_size=self.processes.count,
        )
        return training_loader(
            self.splits.train,
            self.cfg.sections[0],
            boxes,
            hierarchy=_hierarchy(self.network),
            size_wh=plan.input.size_wh,
            channels=plan.input.channels,
            batch=self.trainer.batch,
            subdivisions=self.trainer.subdivisions,
            letter_box=plan.net.letter_box,
            options=loading,
        )

    def _make_saver(self, folder: Path) -> Saver:
        """Build the saver: intervals are savelast and saveweights of the .data file, or else depend on the length of the run."""
        data, period = self.splits.train.options, self.options.save_period
        if period is None:
            period = _whole(data.get("saveweights"), 1000 if self.last < 10_000 else 10_000)
        return Saver(
            folder=folder,
            stem=Path(self.options.cfg or "network.cfg").stem,
            checkpoint=self.state,
            write_weights=self.write_weights,
            last_every=_whole(data.get("savelast"), 100) or self.last,
            keep_every=period,
        )

    def _make_results(self, folder: Path, period: int) -> ResultFiles:
        plots = not self.options.no_plots
        if plots and not has_matplotlib():
            logger.warning("no charts: they need matplotlib (pip install matplotlib)")
        return ResultFiles(
            folder=folder,
            history=self.history,
            plots=plots,
            last=self.last,
            max_loss=self.schedule.max_chart_loss,
            period=period,
            metric=self.evaluation.metric,
            board=Board(folder, self.history) if self._board else None,
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.trainer.iteration = checkpoint.iteration
        optimizer, place = self.trainer.optimizer, self.cfg.path
        with fitting(place, "optimizer"):
            require_alike(checkpoint.optimizer, {**optimizer.state_dict(), "state": {}}, "state")
            optimizer.load_state_dict(checkpoint.optimizer)
            for tensor, moments in optimizer.state.items():
                require_alike(moments, dict.fromkeys(moments, tensor.detach()), "state of a tensor")
        with fitting(place, "history"):
            self.history.load_state_dict(checkpoint.history)
            self.evaluation.best = checkpoint.best
            self.evaluation.load_state_dict(checkpoint.history)
        if self.ema:
            with fitting(place, "EMA"):
                if checkpoint.ema:
                    require_alike(checkpoint.ema, self.ema.tensors, "ema")
                self.ema.load_state_dict(checkpoint.ema)
        if self.average:
            with fitting(place, "average of the weights"):
                self.average.network.load_state_dict(checkpoint.model)
        if self.trainer.precision.scaler:
            with fitting(place, "loss scale"):
                self.trainer.precision.scaler.load_state_dict(checkpoint.scaler)

    def _refuse_finished(self) -> None:
        place = f"{self.cfg.path}: [net] max_batches={self.last}"
        if not self.last:
            raise InputError(f"{place}: expected the number of iterations; set it, or use --iterations or --epochs")
        if self.trainer.iteration >= self.last:
            text = f"the weights have seen {self.trainer.seen} images, which is iteration {self.trainer.iteration}"
            raise InputError(f"{place}: {text}: nothing is left to train; use --clear, or more --iterations")

    def _warn_of_no_effect(self) -> None:
        """Warn of flags and [net] keys that are set but have no effect."""
        options, schedule = self.options, self.schedule
        fp16, average = self.trainer.precision.scaler is not None, schedule.ema_alpha
        checks = (
            ("--patience", "with --no-val", options.no_val and options.patience),
            ("--eval-period", "with --no-val", options.no_val and options.eval_period),
            ("--save-period", "with --no-save", options.no_save and options.save_period),
            ("--clear", "without --weights", options.clear and options.weights is None),
            ("--multi-scale", "on a classifier", options.multi_scale and box_head(self.network.plan) is None),
            ("--sync-bn", "in one process; torchrun starts several", options.sync_bn and self.processes.count == 1),
            (f"[net] loss_scale={schedule.loss_scale:g}", "without --amp fp16", schedule.loss_scale != 1 and not fp16),
            ("[net] adam=1", "with --adamw", schedule.adam and options.adamw),
            (
                f"[net] ema_alpha={average:g}",
                f"in {self.last} iterations, the average needs more than {2 * LAST_PART}",
                average and self.last <= 2 * LAST_PART,
            ),
        )
        for what, reason, applies in checks:
            if applies:
                logger.warning("%s has no effect %s", what, reason)

    def _note_evaluation(self, update: Update) -> None:
        if self.evaluation.due(update.iteration):
            self.evaluation.at = update.iteration

    def _await_evaluation(self, update: Update) -> None:
        if self.evaluation.at == update.iteration:
            self.processes.await_main()

    def _average(self, update: Update) -> None:
        if self.ema:
            self.ema.update(update.iteration)
        if self.average:
            self.average.update(update.iteration)


def batch_sizes(plan: Plan) -> tuple[int, int]:
    """(images, forward passes) per weight update; as in the original, a remainder of the division is dropped.

    Raises InputError for a batch of one image, which the original rejects too.
    """
    batch, subdivisions = max(1, plan.net.batch), max(1, plan.net.subdivisions)
    if batch == 1:
        text = "[net] batch=1 is for detection; set batch and subdivisions, or --batch-size"
        raise InputError(f"{plan.cfg.path}: {text}")
    used = max(1, batch // subdivisions) * subdivisions
    if used != batch:
        text = "[net] batch=%d is not a multiple of subdivisions=%d: using %d images per update"
        logger.warning(text, batch, subdivisions, used)
    return used, subdivisions


def passes_at_once(plan: Plan, threads: int, memory: int | None) -> int:
    """How many passes of an update a CPU makes at the same time: one per thread, up to eight, if memory (bytes) allows."""
    batch, subdivisions = batch_sizes(plan)
    head = box_head(plan)
    factor = 1.0 if head is None else max(1.0, size_coefficient(head.random))
    values = sum(step.shape.outputs for step in plan.steps) * factor**2 * batch / subdivisions
    count = min(threads, subdivisions, _MOST_AT_ONCE)
    if memory is not None:
        count = min(count, int(_MEMORY_SHARE * memory / (_BYTES_PER_VALUE * values)))
    return max(1, count)


def _precision(amp: str | None, loss_scale: float, device: torch.device) -> Precision:
    if amp != "fp16":
        return Precision(dtype=torch.bfloat16 if amp else torch.float32)
    if device.type != "cuda":
        raise InputError(f"--amp fp16 needs a CUDA device, this is {device}; use --amp bf16")
    scale = loss_scale if loss_scale != 1 else _FP16_SCALE
    return Precision(dtype=torch.float16, scaler=torch.amp.GradScaler("cuda", init_scale=scale))


def _cache_options(kind: str | None, project: str, workers: int) -> CacheOptions | None:
    if kind is None:
        return None
    copied = workers > 0 and multiprocessing.get_start_method() != "fork"
    return CacheOptions(kind=kind, folder=Path(project) / "cache", shared=copied)


def _class_weights(splits: DataSplits, *, classifier: bool) -> NDArray[np.float64]:
    """Sampling weight of each training image, higher for rare classes."""
    checked, train = splits.checked, splits.train
    if classifier:
        paths, labels = [str(path) for path in train.splits["train"]], train.labels_in_paths
        pairs = [(i, c) for i, path in enumerate(paths) for c, label in enumerate(labels) if label in path]
        image_of, class_ids = np.array(pairs, np.int64).reshape(-1, 2).T
    else:
        image_of, class_ids = np.repeat(np.arange(checked.images), checked.per_image), checked.class_ids
    if len(np.unique(class_ids)) < 2:
        logger.warning("--class-balanced has no effect with fewer than two classes")
    return class_balanced_weights(checked.images, image_of, class_ids)


def _rect_options(splits: DataSplits, plan: Plan) -> RectOptions:
    sizes_wh = np.zeros((splits.checked.images, 2), np.int64)
    sizes_wh[splits.checked.readable] = splits.checked.sizes_wh
    widths = [step.shape.width for step in plan.box_heads]
    return RectOptions(sizes_wh, max((plan.input.width // width for width in widths), default=1))


def _hierarchy(network: Network) -> ClassHierarchy | None:
    """The class tree of the last [softmax], if it has one (parser.c parse_network_cfg_custom)."""
    tree = next((layer.tree for layer in reversed(list(network)) if isinstance(layer, Softmax)), None)
    if tree is None:
        return None
    return ClassHierarchy(parents=tree.parents, group_sizes=np.bincount(tree.groups).tolist())


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default
