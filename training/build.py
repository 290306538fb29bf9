"""The parts of a training run, made from its flags, its fitted cfg and its data set."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.albumentations import read_albumentations
from data.dataset import ClassHierarchy
from data.evaluation_set import make_classification_set
from data.image_cache import DISK, RAM, CacheOptions
from data.loader import TrainLoader
from data.sampling import class_balanced_weights
from data.training_set import BoxOptions, LoaderOptions, RectOptions, training_loader
from models.batchnorm import BatchNorm
from models.fit import classes_of
from models.heads.base import BoxSection
from models.heads.softmax import Softmax
from models.network import Network
from models.plan import Plan, make_plan
from models.training import Training
from training.adversarial import AdversarialPerturbation
from training.checkpoint import Checkpoint, Saver
from training.ema import Ema
from training.history import TrainingHistory
from training.loop import Precision, Trainer
from training.optimizer import AdamW, DarknetOptimizer
from training.options import TrainOptions, batch_of
from training.prepare import Sets, fill, load_start
from training.progress import DarknetLines, EpochBar
from training.schedule import Schedule
from training.validation import ClassificationEvaluation, Evaluation, Measuring
from utils.cfg import Cfg
from utils.errors import InputError
from utils.net_options import ScheduleOptions
from utils.processes import Processes

logger = logging.getLogger(__name__)

_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_network(
    settings: TrainOptions, cfg: Cfg, checkpoint: Checkpoint | None, device: torch.device, processes: Processes
) -> Network:
    """The network with the weights to begin with, or those of `checkpoint`; the same in all processes."""
    network = Network(make_plan(cfg))
    if checkpoint is not None:
        fill(network, checkpoint)
    elif settings.weights is not None:
        load_start(network, settings.weights, clear=settings.clear)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.momentum = module.momentum if settings.bn_momentum is None else settings.bn_momentum
            module.processes = processes if settings.sync_bn else module.processes
    network.to(device)
    processes.share(list(network.state_dict().values()))
    return network


def make_trainer(
    settings: TrainOptions,
    training: Training,
    options: ScheduleOptions,
    device: torch.device,
    files: Callable[[Any], Sequence[str]],
    processes: Processes,
) -> Trainer:
    """The train loop's state, at the iteration that the weights have reached. files: names the images of a batch."""
    network = training.network
    batch, subdivisions = batch_of(network.plan)
    if batch // subdivisions % processes.count:
        text = f"batch={batch}, subdivisions={subdivisions} put {batch // subdivisions} into a forward pass"
        raise InputError(f"[net] {text}, expected a multiple of {processes.count}, one part for each process")
    optimizer = AdamW if settings.adamw else DarknetOptimizer
    trainer = Trainer(
        training,
        optimizer(training.tensors(options.burn_in), options),
        Schedule(options, cosine=settings.cos_lr, seed=settings.seed),
        batch=batch,
        subdivisions=subdivisions,
        device=device,
        precision=_precision(settings, options, device),
        channels_last=settings.channels_last,
        files=files,
        max_norm=settings.clip_grad_norm,
        adversary=_adversary(settings, options),
        processes=processes,
    )
    trainer.iteration = network.seen // batch
    return trainer


def _adversary(settings: TrainOptions, options: ScheduleOptions) -> AdversarialPerturbation | None:
    if not options.adversarial_lr:
        return None
    rate, length = options.adversarial_lr, options.max_batches
    return AdversarialPerturbation(rate=rate, burn_in=options.burn_in, max_batches=length, seed=settings.seed)


def _precision(settings: TrainOptions, options: ScheduleOptions, device: torch.device) -> Precision:
    if settings.amp is None:
        return Precision()
    dtype = _AMP[settings.amp]
    if dtype is torch.bfloat16:
        return Precision(dtype=dtype)
    if device.type != "cuda":
        raise InputError(f"--amp fp16 needs a CUDA device, this is {device}; use --amp bf16")
    scale = options.loss_scale if options.loss_scale != 1 else 65536.0
    return Precision(dtype=dtype, scaler=torch.amp.GradScaler("cuda", init_scale=scale))


def make_ema(network: Network, options: ScheduleOptions) -> Ema | None:
    """The moving average that the cfg asks for, if it does."""
    if not options.ema_alpha:
        return None
    return Ema(dict(network.named_parameters()), options.ema_alpha, options.max_batches)


def _cache_options(settings: TrainOptions) -> CacheOptions | None:
    if not settings.cache_images:
        return None
    copied = settings.workers > 0 and multiprocessing.get_start_method() != "fork"
    kind = DISK if settings.cache_images == DISK else RAM
    return CacheOptions(kind=kind, folder=Path(settings.project) / "cache", shared=copied)


def make_loader(settings: TrainOptions, cfg: Cfg, sets: Sets, network: Network, trainer: Trainer) -> TrainLoader:
    """Batches from the iteration on that `trainer` has reached."""
    plan = network.plan
    head = box_head(plan)
    boxes = None
    if head is not None:
        boxes = BoxOptions(
            classes=head.classes,
            jitter=head.jitter,
            resize=head.resize,
            random=head.random,
            max_boxes=head.max_truths,
        )
    elif settings.augment is not None:
        raise InputError("--augment changes boxes, it does not serve for a classifier")
    options = LoaderOptions(
        seed=settings.seed,
        workers=settings.workers,
        start=trainer.iteration,
        pin_memory=trainer.device.type == "cuda",
        cache=_cache_options(settings),
        albumentations=read_albumentations(settings.augment) if settings.augment else None,
        weights=_weights(sets, boxes is None) if settings.class_balanced else None,
        rect=_rect_options(sets, plan) if settings.rect else None,
        rank=trainer.processes.rank,
        world_size=trainer.processes.count,
    )
    return training_loader(
        sets.train,
        cfg.sections[0],
        boxes,
        hierarchy=_hierarchy(network),
        size_wh=(plan.input.width, plan.input.height),
        channels=plan.input.channels,
        batch=trainer.batch,
        subdivisions=trainer.subdivisions,
        letter_box=plan.net.letter_box,
        options=options,
    )


def _weights(sets: Sets, classifier: bool) -> NDArray[np.float64]:
    """Chance of each training image by the rarity of its classes."""
    found = sets.diagnosis
    if classifier:
        paths = [str(path) for path in sets.train.splits["train"]]
        pairs = [
            (i, c) for i, path in enumerate(paths) for c, name in enumerate(sets.train.labels_in_paths) if name in path
        ]
        image_of, class_ids = np.array(pairs, np.int64).reshape(-1, 2).T
    else:
        image_of, class_ids = np.repeat(np.arange(found.images), found.per_image), found.class_ids
    if len(np.unique(class_ids)) < 2:
        logger.warning("--class-balanced has no effect on fewer than two classes")
    return class_balanced_weights(found.images, image_of, class_ids)


def _rect_options(sets: Sets, plan: Plan) -> RectOptions:
    sizes_wh = np.zeros((sets.diagnosis.images, 2), np.int64)
    sizes_wh[sets.diagnosis.readable] = sets.diagnosis.sizes_wh
    widths = [step.shape.width for step in plan.box_heads]
    return RectOptions(sizes_wh, max((plan.input.width // width for width in widths), default=1))


def _hierarchy(network: Network) -> ClassHierarchy | None:
    """The tree of classes of the last [softmax], if it has one (parser.c parse_network_cfg_custom)."""
    tree = next((layer.tree for layer in reversed(list(network)) if isinstance(layer, Softmax)), None)
    if tree is None:
        return None
    return ClassHierarchy(parents=tree.parents, group_sizes=np.bincount(tree.groups).tolist())


def box_head(plan: Plan) -> BoxSection | None:
    """The last head with boxes: its keys hold for the images of all of them, as in the original."""
    return plan.box_sections[-1] if plan.box_heads else None


def make_evaluation(settings: TrainOptions, sets: Sets, plan: Plan, trainer: Trainer) -> Measuring | None:
    """The evaluation on split `val`; none with --notest, and for networks whose targets are no classes."""
    if settings.notest:
        return None
    head, workers, device = box_head(plan), settings.workers, trainer.device
    batch = max(1, trainer.batch // trainer.subdivisions)
    if head is None:
        exam = make_classification_set(sets.val, "val", classes_of(plan), plan.cfg.path)
        return ClassificationEvaluation(exam=exam, batch=batch, workers=workers, device=device)
    return Evaluation(data=sets.val, classes=head.classes, batch=batch, workers=workers, device=device)


def make_saver(
    settings: TrainOptions,
    sets: Sets,
    last: int,
    folder: Path,
    checkpoint: Callable[[], Checkpoint],
    write_weights: Callable[[Path], None],
) -> Saver:
    """Intervals as in the original: keys saveweights and savelast of the .data file, else by the length of the run; 0: at
    the end only."""
    data = sets.train.options
    every = settings.save_period
    usual = 1000 if last < 10_000 else 10_000
    return Saver(
        folder=folder,
        stem=Path(settings.cfg or "network.cfg").stem,
        checkpoint=checkpoint,
        write_weights=write_weights,
        last_every=_whole(data.get("savelast"), 100) or last,
        keep_every=_whole(data.get("saveweights"), usual) if every is None else every,
    )


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def make_progress(
    settings: TrainOptions, history: TrainingHistory, images: int, batch: int, last: int
) -> EpochBar | DarknetLines:
    """What the run says while it trains."""
    if settings.print == "darknet":
        return DarknetLines(history, last)
    return EpochBar(history, images, batch, last)
