"""One training run: its parts put together, its hooks, its end."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from data.loader import TrainBatch
from models.training import Training
from models.weights import save_weights
from training.build import make_ema, make_evaluation, make_loader, make_network, make_progress, make_saver, make_trainer
from training.checkpoint import Checkpoint, random_state, restore_random_state
from training.ema import LAST_PART
from training.history import TrainingHistory
from training.loop import Update, run
from training.options import TrainOptions, without_effect
from training.prepare import Sets
from training.results import Results, warn_without_matplotlib
from training.tensorboard import Board, board_wanted
from training.validation import EvaluationHook, usual_period
from utils.cfg import Cfg
from utils.device import select_device
from utils.errors import DataLoadingError, InputError, RunError
from utils.net_options import ScheduleOptions
from utils.processes import Processes

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context manager; `received` is true once a signal came. A second one ends the process at once (KeyboardInterrupt)."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        logger.info("%s: stopping after this iteration, once more to stop at once", signal.Signals(number).name)


class Run:
    """A training from its fitted cfg on; `checkpoint`: the state to go on from; `processes`: those that train together.

    Raises InputError for what cannot be trained.
    """

    def __init__(
        self,
        settings: TrainOptions,
        cfg: Cfg,
        sets: Sets,
        checkpoint: Checkpoint | None = None,
        processes: Processes | None = None,
    ) -> None:
        random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.settings, self.cfg, self.sets = settings, cfg, sets
        self.options = ScheduleOptions.from_raw(cfg.sections[0])
        self.processes = together = processes or Processes()
        device = together.device or select_device(settings.device)
        self.network = make_network(settings, cfg, checkpoint, device, together)
        training = Training(self.network, settings.freeze)
        self.trainer = make_trainer(settings, training, self.options, device, self._files, together)
        self.history = TrainingHistory.for_length(self.options.max_batches)
        self.ema = make_ema(self.network, self.options)
        self.examination = self._examination()
        if checkpoint is not None:
            self._continue_from(checkpoint)
        self._refuse_finished()
        self._warn_without_effect()
        self._board = board_wanted(settings.tensorboard)
        self.loader = make_loader(settings, cfg, sets, self.network, self.trainer)
        if checkpoint is not None:
            restore_random_state(checkpoint.random)

    @property
    def last(self) -> int:
        return self.options.max_batches

    def execute(self, folder: Path) -> bool:
        """Train to the end, writing into `folder`; false if a signal ended it before, with the state saved. Raises RunError."""
        settings, examination = self.settings, self.examination
        saver = make_saver(settings, self.sets, self.last, folder / "weights", self.state, self.write_weights)
        results = self._results(folder, saver.last_every)
        results.labels(self.sets, self.network.plan)
        examination.on_done, examination.show = results.write, results.validation
        if not settings.nosave:
            examination.on_best = saver.best
        progress = make_progress(settings, self.history, self.sets.images, self.trainer.batch, self.last)
        hooks: list[Callable[[Update], None]] = [self.history.add, self._average, progress, saver, examination, results]
        if settings.nosave:
            hooks.remove(saver)
        saver.tidy()
        try:
            interrupted = self._train(results.previewed(self.loader, self.sets.train.names), hooks)
        except (RunError, KeyboardInterrupt) as error:
            with contextlib.suppress(RunError):  # of two failures the first one says what is wrong
                if isinstance(error, DataLoadingError):
                    saver.last()
                results.write()
            raise
        finally:
            progress.close()
            results.unusable(self.loader.findings)
            results.close()
        results.write()
        if interrupted:
            saver.last()
        else:
            saver.final()
        return not interrupted

    def follow(self) -> bool:
        """`execute` for all processes but the main one: train along; nothing is written, measured or said."""
        return not self._train(self.loader, [self._average])

    def _train(self, batches: Iterable[TrainBatch], hooks: Sequence[Callable[[Update], None]]) -> bool:
        """Whether a signal, to any of the processes, ended it."""

        def ended() -> bool:
            return self.processes.any(stop.received or self.examination.exhausted)

        with StopRequest() as stop:
            try:
                run(self.trainer, batches, self.last, hooks, ended)
            except DataLoadingError:  # a signal to the whole group may have ended a worker that was just starting
                if not stop.received or self.processes.count > 1:
                    raise
        return self.processes.any(stop.received)

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
            best=self.examination.best,
            ema=self.ema.state_dict() if self.ema else {},
            scaler=scaler.state_dict() if scaler else {},
            random=random_state(),
            loader={"seed": self.settings.seed, "iteration": self.trainer.iteration},
            history=self.history.state_dict() | self.examination.state_dict(),
            settings=self.settings.plain(),
        )

    def write_weights(self, path: Path) -> None:
        """The network as a .weights file."""
        self.network.seen = self.trainer.seen
        save_weights(self.network, path)

    def _files(self, batch: object) -> list[str]:
        return [str(path) for path in self.loader.files(batch)]  # type: ignore[arg-type]

    def _examination(self) -> EvaluationHook:
        settings = self.settings
        return EvaluationHook(
            evaluation=make_evaluation(settings, self.sets, self.network.plan, self.trainer),
            network=self.network,
            history=self.history,
            period=settings.eval_period or usual_period(self.sets.images, self.trainer.batch),
            earliest=0 if settings.eval_period else self.options.burn_in,
            last=self.last,
            patience=settings.patience,
            darknet=settings.print == "darknet",
            at=self.trainer.iteration,
        )

    def _results(self, folder: Path, every: int) -> Results:
        plots = not self.settings.noplots
        if plots:
            warn_without_matplotlib()
        top = self.options.max_chart_loss
        board = Board(folder, self.history) if self._board else None
        history, last = self.history, self.last
        metric = self.examination.evaluation.metric if self.examination.evaluation else ""
        return Results(
            folder=folder, history=history, plots=plots, last=last, top=top, every=every, metric=metric, board=board
        )

    def _continue_from(self, checkpoint: Checkpoint) -> None:
        self.trainer.iteration = checkpoint.iteration
        try:
            self.trainer.optimizer.load_state_dict(checkpoint.optimizer)
        except (ValueError, KeyError) as error:
            raise InputError(f"{self.cfg.path}: the checkpoint's optimizer does not fit: {error}") from None
        self.history.load_state_dict(checkpoint.history)
        self.examination.best = checkpoint.best
        self.examination.load_state_dict(checkpoint.history)
        if self.ema:
            self.ema.load_state_dict(checkpoint.ema)
        if self.trainer.precision.scaler:
            self.trainer.precision.scaler.load_state_dict(checkpoint.scaler)

    def _refuse_finished(self) -> None:
        place = f"{self.cfg.path}: [net] max_batches={self.last}"
        if not self.last:
            raise InputError(f"{place}: expected the number of iterations; set it, or use --iterations or --epochs")
        if self.trainer.iteration >= self.last:
            text = f"the weights have seen {self.trainer.seen} images, which is iteration {self.trainer.iteration}"
            raise InputError(f"{place}: {text}: nothing is left to train; use --clear, or more --iterations")

    def _warn_without_effect(self) -> None:
        for text in without_effect(self.settings, self.network.plan):
            logger.warning("%s", text)
        if self.options.loss_scale != 1 and self.trainer.precision.scaler is None:
            logger.warning("[net] loss_scale=%g has no effect without --amp fp16", self.options.loss_scale)
        if self.settings.sync_bn and self.processes.count == 1:
            logger.warning("--sync-bn has no effect in one process; torchrun starts several")
        if self.options.adam and self.settings.adamw:
            logger.warning("[net] adam=1 has no effect beside --adamw")
        if self.options.ema_alpha and self.last <= 2 * LAST_PART:
            text = "[net] ema_alpha=%g has no effect in %d iterations, the average needs more than %d"
            logger.warning(text, self.options.ema_alpha, self.last, 2 * LAST_PART)

    def _average(self, update: Update) -> None:
        if self.ema:
            self.ema.update(update.iteration)
