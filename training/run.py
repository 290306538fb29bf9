"""One training run: everything assembled, its hooks, its end."""

from __future__ import annotations

import importlib.util
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from data.augment.extra import read_extra
from data.loader import TrainBatch, TrainLoader
from data.preview import save_batch
from data.training_set import BoxOptions, Supply, training_loader
from engine.charts import write_chart, write_results
from engine.checkpoint import Checkpoint, random_state, restore_random_state
from engine.ema import LAST_PART, Ema
from engine.history import History
from engine.interrupt import StopRequest
from engine.loop import Precision, Trainer, Update, run
from engine.metrics.report import darknet_text, table
from engine.optimizer import DarknetOptimizer
from engine.progress import DarknetLines, EpochBar
from engine.saving import Saver
from engine.schedule import Schedule
from models.batchnorm import BatchNorm
from models.heads.base import BoxSection
from models.network import Network
from models.plan import make_plan
from models.training import Training
from models.weights import save_weights
from training.evaluation import METRIC, Evaluation, columns
from training.prepare import Sets, load_start
from training.settings import Settings, batch_of
from utils.cfg import Cfg
from utils.device import select_device
from utils.errors import InputError
from utils.net_options import ScheduleOptions

logger = logging.getLogger(__name__)

_PREVIEWS = 3
_CHART_EVERY = 1000
_EVALUATION_EPOCHS, _EVALUATION_LEAST = 4, 100  # detector.c train_detector: mAP_epochs, and iterations at least
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """A training from its fitted cfg on; `checkpoint`: the state to go on from. Raises InputError for what cannot be trained."""

    def __init__(self, settings: Settings, cfg: Cfg, sets: Sets, checkpoint: Checkpoint | None = None) -> None:
        random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.settings, self.cfg, self.sets = settings, cfg, sets
        self.options = ScheduleOptions.from_raw(cfg.sections[0])
        self.device = select_device(settings.device)
        self.network = self._network(checkpoint)
        self.training = Training(self.network, settings.freeze)
        self.trainer = self._trainer()
        self.history = History.for_length(self.options.max_batches)
        self.ema = self._ema()
        self.best, self.evaluated_at, self.without_gain = -1.0, self.trainer.iteration, 0
        if checkpoint is not None:
            self._continue_from(checkpoint)
        self._refuse_finished()
        self._warn_without_effect()
        self.loader = self._loader()
        self.evaluation = self._evaluation()
        if checkpoint is not None:
            restore_random_state(checkpoint.random)
        self._plots = not settings.noplots and _matplotlib()
        self._wanted = True

    @property
    def last(self) -> int:
        return self.options.max_batches

    def execute(self, folder: Path) -> bool:
        """Train to the end, writing into `folder`; false if a signal ended it before, with the state saved. Raises RunError."""
        self.folder, self.saver = folder, self._saver(folder / "weights")
        progress = self._progress()
        hooks: list[Callable[[Update], None]] = [
            self.history.add,
            self._average,
            progress,
            self.saver,
            self._evaluate,
            self._report,
        ]
        if self.settings.nosave:
            hooks.remove(self.saver)
        try:
            with StopRequest() as stop:
                run(self.trainer, self._batches(), self.last, hooks, lambda: stop.received or not self._wanted)
        finally:
            progress.close()
            self._write_results()
        finished = not stop.received
        if finished:
            self.saver.final()
        else:
            self.saver.last()
        return finished

    def state(self) -> Checkpoint:
        """Everything a continuation needs."""
        scaler = self.trainer.precision.scaler
        return Checkpoint(
            cfg=self.cfg.text,
            names=list(self.sets.train.names),
            model=self.network.state_dict(),
            optimizer=self.trainer.optimizer.state_dict(),
            iteration=self.trainer.iteration,
            seen=self.trainer.seen,
            best=self.best,
            ema=self.ema.state_dict() if self.ema else {},
            scaler=scaler.state_dict() if scaler else {},
            random=random_state(),
            loader={"seed": self.settings.seed, "iteration": self.trainer.iteration},
            history=self.history.state_dict() | {"evaluated_at": self.evaluated_at},
            settings=self.settings.plain(),
        )

    def write_weights(self, path: Path) -> None:
        """The network as a .weights file."""
        self.network.seen = self.trainer.seen
        save_weights(self.network, path)

    def _network(self, checkpoint: Checkpoint | None) -> Network:
        network = Network(make_plan(self.cfg))
        if checkpoint is not None:
            network.load_state_dict(checkpoint.model)
        elif self.settings.weights is not None:
            load_start(network, self.settings.weights, clear=self.settings.clear)
        if self.settings.bn_momentum is not None:
            for module in network.modules():
                if isinstance(module, BatchNorm):
                    module.momentum = self.settings.bn_momentum
        return network.to(self.device)

    def _trainer(self) -> Trainer:
        batch, subdivisions = batch_of(self.network.plan)
        trainer = Trainer(
            self.training,
            DarknetOptimizer(self.training.tensors(self.options.burn_in), self.options),
            Schedule(self.options, cosine=self.settings.cos_lr, seed=self.settings.seed),
            batch=batch,
            subdivisions=subdivisions,
            device=self.device,
            precision=self._precision(),
            channels_last=self.settings.channels_last,
            files=lambda made: [str(path) for path in self.loader.files(made)],
        )
        trainer.iteration = self.network.seen // batch
        return trainer

    def _precision(self) -> Precision:
        if self.settings.amp is None:
            return Precision()
        dtype = _AMP[self.settings.amp]
        if dtype is torch.bfloat16:
            return Precision(dtype=dtype)
        if self.device.type != "cuda":
            raise InputError(f"--amp fp16 needs a CUDA device, this is {self.device}; use --amp bf16")
        scale = self.options.loss_scale if self.options.loss_scale != 1 else 65536.0
        return Precision(dtype=dtype, scaler=torch.amp.GradScaler("cuda", init_scale=scale))

    def _ema(self) -> Ema | None:
        if not self.options.ema_alpha:
            return None
        return Ema(dict(self.network.named_parameters()), self.options.ema_alpha, self.last)

    def _continue_from(self, checkpoint: Checkpoint) -> None:
        self.trainer.iteration = checkpoint.iteration
        self.trainer.optimizer.load_state_dict(checkpoint.optimizer)
        self.history.load_state_dict(checkpoint.history)
        self.best, self.evaluated_at = checkpoint.best, checkpoint.history["evaluated_at"]
        if self.ema:
            self.ema.load_state_dict(checkpoint.ema)
        if self.trainer.precision.scaler:
            self.trainer.precision.scaler.load_state_dict(checkpoint.scaler)

    def _loader(self) -> TrainLoader:
        plan, settings = self.network.plan, self.settings
        head = self._box_head()
        boxes = None
        if head is not None:
            boxes = BoxOptions(
                classes=head.classes,
                jitter=head.jitter,
                resize=head.resize,
                random=head.random,
                most=head.max_truths,
            )
        elif settings.augment is not None:
            raise InputError("--augment changes boxes, it does not serve for a classifier")
        supply = Supply(
            seed=settings.seed,
            workers=settings.workers,
            start=self.trainer.iteration,
            pin_memory=self.device.type == "cuda",
            cache=settings.cache_images,
            extra=read_extra(settings.augment) if settings.augment else None,
        )
        return training_loader(
            self.sets.train,
            self.cfg.sections[0],
            boxes,
            size_wh=(plan.input.width, plan.input.height),
            channels=plan.input.channels,
            batch=self.trainer.batch,
            subdivisions=self.trainer.subdivisions,
            letter_box=plan.net.letter_box,
            supply=supply,
        )

    def _box_head(self) -> BoxSection | None:
        """The last head with boxes: its keys hold for the pictures of all of them, as in the original."""
        found = [step.section for step in self.network.plan.steps if isinstance(step.section, BoxSection)]
        return found[-1] if found else None

    def _evaluation(self) -> Evaluation | None:
        head = self._box_head()
        if self.settings.notest or head is None:
            return None
        return Evaluation(
            data=self.sets.val,
            classes=head.classes,
            batch=max(1, self.trainer.batch // self.trainer.subdivisions),
            workers=self.settings.workers,
            device=self.device,
        )

    def _saver(self, folder: Path) -> Saver:
        """Intervals as in the original: keys saveweights and savelast of the .data file, else by the length of the run."""
        data = self.sets.train.options
        every = self.settings.save_period
        usual = 1000 if self.last < 10_000 else 10_000
        return Saver(
            folder=folder,
            stem=Path(self.settings.cfg or "network.cfg").stem,
            checkpoint=self.state,
            write_weights=self.write_weights,
            last_every=_whole(data.get("savelast"), 100),
            keep_every=_whole(data.get("saveweights"), usual) if every is None else every,
        )

    def _progress(self) -> EpochBar | DarknetLines:
        if self.settings.print == "darknet":
            return DarknetLines(self.history, self.last)
        return EpochBar(self.history, self.sets.pictures, self.trainer.batch, self.last)

    def _batches(self) -> Iterator[TrainBatch]:
        """Batches of the loader; the first ones also as pictures."""
        for number, batch in enumerate(self.loader):
            if number < _PREVIEWS and not self.settings.noplots and batch.truth.dim() == 3:
                path = self.folder / f"train_batch{number}.jpg"
                save_batch(path, batch.images.numpy(), batch.truth.numpy(), self.sets.train.names)
            yield batch

    def _refuse_finished(self) -> None:
        place = f"{self.cfg.path}: [net] max_batches={self.last}"
        if not self.last:
            raise InputError(f"{place}: expected the number of iterations; set it, or use --iterations or --epochs")
        if self.trainer.iteration >= self.last:
            text = f"the weights have seen {self.trainer.seen} pictures, which is iteration {self.trainer.iteration}"
            raise InputError(f"{place}: {text}: nothing is left to train; use --clear, or more --iterations")

    def _warn_without_effect(self) -> None:
        if self.options.adversarial_lr:
            logger.warning("[net] adversarial_lr=%g has no effect", self.options.adversarial_lr)
        if self.options.loss_scale != 1 and self.trainer.precision.scaler is None:
            logger.warning("[net] loss_scale=%g has no effect without --amp fp16", self.options.loss_scale)
        if self.options.ema_alpha and self.last <= 2 * LAST_PART:
            text = "[net] ema_alpha=%g has no effect in %d iterations, the average needs more than %d"
            logger.warning(text, self.options.ema_alpha, self.last, 2 * LAST_PART)

    def _average(self, update: Update) -> None:
        if self.ema:
            self.ema.update(update.iteration)

    def _evaluate(self, update: Update) -> None:
        """Measure every so often, not before burn_in, and at the end (detector.c train_detector)."""
        if self.evaluation is None:
            return
        epochs = _EVALUATION_EPOCHS * self.sets.pictures // self.trainer.batch
        period = self.settings.eval_period or max(epochs, _EVALUATION_LEAST)
        due = max(self.evaluated_at + period, 0 if self.settings.eval_period else self.options.burn_in)
        if update.iteration < due and update.iteration != self.last:
            return
        self.evaluated_at = update.iteration
        metrics = self.evaluation(self.network)
        values = columns(metrics)
        text = darknet_text(metrics.darknet, metrics.names, 0) if self.settings.print == "darknet" else table(metrics)
        logger.info("\niteration %d\n%s", update.iteration, text)
        self.history.evaluated(values)
        self.without_gain += 1
        if values[METRIC] >= self.best:
            self.best, self.without_gain = values[METRIC], 0
            if not self.settings.nosave:
                self.saver.best()
        if self.settings.patience and self.without_gain >= self.settings.patience:
            logger.info("%d evaluations without a better %s: training ends", self.without_gain, METRIC)
            self._wanted = False
        self._write_results()

    def _report(self, update: Update) -> None:
        if update.iteration % self.saver.last_every == 0:
            self.history.write(self.folder / "results.csv")
        if update.iteration % _CHART_EVERY == 0:
            self._write_results()

    def _write_results(self) -> None:
        self.history.write(self.folder / "results.csv")
        if self._plots and self.history.rows:
            top = self.options.max_chart_loss
            write_chart(self.history, self.folder / "chart.png", max_batches=self.last, max_loss=top, metric=METRIC)
            write_results(self.history, self.folder / "results.png")


def _matplotlib() -> bool:
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no charts: they need matplotlib (pip install matplotlib)")
        return False
    return True


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default
