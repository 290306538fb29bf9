"""The loop with a network of one weight: accumulation, memory, non-finite values, stopping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from data.loader import TrainBatch
from models.heads.base import HeadLoss
from models.training import TrainedTensor
from training.loop import Precision, Trainer, Update, clip_norm, run
from training.optimizer import DarknetOptimizer
from training.schedule import Schedule
from utils.errors import RunError
from utils.net_options import ScheduleOptions

OPTIONS = ScheduleOptions(learning_rate=0.1, momentum=0.0, decay=0.0, max_batches=100)


def batch_of(images: Tensor, targets: Tensor) -> TrainBatch:
    return TrainBatch(images=images, ground_truth=targets, iteration=0, subdivision=0)


class Number:
    """A network whose loss is (weight * mean of the image - target) ** 2, summed over the images."""

    def __init__(self, memory: int = 1000) -> None:
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 2.0)
        self.memory, self.seen = memory, list[int]()

    def begin(self, iteration: int) -> None: ...

    def losses(self, images: Tensor, labels: Tensor, seen: int) -> Sequence[HeadLoss]:
        if len(images) > self.memory:
            raise torch.OutOfMemoryError
        self.seen.append(seen)
        error = (self.layer(images.float().mean((1, 2, 3))[:, None])[:, 0] - labels[:, 0]).square().sum()
        return [HeadLoss(error, float(error.detach()), {"box": float(error.detach())}, targets=1)]

    def attack(self, images: Tensor, labels: Tensor, seen: int) -> Tensor:
        return torch.zeros_like(images)

    def absorb(self, replica: Number) -> None: ...

    def statistics(self) -> list[Tensor]:
        return []

    def layer_names(self) -> list[tuple[str, nn.Module]]:
        return [("0 [number]", self.layer)]


def make(
    number: Number,
    batch: int = 4,
    subdivisions: int = 2,
    options: ScheduleOptions = OPTIONS,
    replicas: Sequence[Number] = (),
) -> Trainer:
    optimizer = DarknetOptimizer([TrainedTensor(tensor=number.layer.weight, layer=0)], options)
    return Trainer(
        number,
        optimizer,
        Schedule(options),
        batch=batch,
        subdivisions=subdivisions,
        device=torch.device("cpu"),
        files=lambda made: ["a.png"],
        replicas=replicas,
    )


def batches(count: int = 2, size: int = 2, value: float = 1.0) -> list[TrainBatch]:
    return [batch_of(torch.full((size, 3, 4, 6), value), torch.zeros(size, 1)) for _ in range(count)]


@pytest.mark.parametrize(("subdivisions", "memory"), [(1, 99), (2, 99), (4, 99), (1, 1), (2, 1)])
def test_the_update_does_not_depend_on_how_the_batch_is_divided(subdivisions: int, memory: int) -> None:
    number = Number(memory)
    trainer = make(number, subdivisions=subdivisions)
    update = trainer.update(batches(subdivisions, 4 // subdivisions))
    # gradient of one image: 2 * w; update: 0.1 / 4 * 4 * 4
    assert number.layer.weight.item() == pytest.approx(2.0 - 0.1 * 4)
    assert (update.images, update.loss, update.terms["box"]) == (4, pytest.approx(4.0), pytest.approx(4.0))
    assert (trainer.iteration, trainer.seen, update.size_wh) == (1, 4, (6, 4))
    assert trainer.pieces == (1 if memory == 99 else 4 // subdivisions)


@pytest.mark.parametrize(
    ("targets", "expected"), [((3, 1), (4 + 10) / 2), ((0, 2), 10), ((1, 0), 4), ((0, 0), (4 + 10) / 2)]
)
def test_terms_are_averaged_over_heads_with_targets(targets: tuple[int, int], expected: float) -> None:
    class TwoHeads(Number):
        def losses(self, images: Tensor, labels: Tensor, seen: int) -> Sequence[HeadLoss]:
            first, second = super().losses(images, labels, seen)[0].objective, torch.zeros(())
            terms = ({"box": 4.0 * len(images)}, {"box": 10.0 * len(images)})
            losses = zip((first, second), terms, targets, strict=True)
            return [HeadLoss(value, float(value.detach()), names, targets=count) for value, names, count in losses]

    assert make(TwoHeads()).update(batches()).terms["box"] == pytest.approx(expected)


def test_seen_includes_the_current_forward_pass() -> None:
    number = Number()
    trainer = make(number)
    trainer.iteration = 10
    trainer.update(batches())
    assert number.seen == [42, 44]


def test_bytes_are_scaled_to_one() -> None:
    number = Number()
    batch = batch_of(torch.full((4, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(4, 1))
    assert make(number, subdivisions=1).update([batch]).loss == pytest.approx(4.0)


def test_an_image_that_does_not_fit_in_memory_ends_the_run() -> None:
    with pytest.raises(RunError, match="out of memory"):
        make(Number(memory=0)).update(batches())


def test_a_loss_that_is_not_finite_names_layer_iteration_rate_and_files() -> None:
    number = Number()
    with pytest.raises(RunError, match=r"(?s)iteration 1, learning rate 0\.1.*layer 0 \[number\].*a\.png"):
        make(number).update(batches(value=float("nan")))
    assert number.layer.weight.item() == 2.0


def test_the_batch_of_a_loss_that_is_not_finite_is_named_if_passes_are_made_at_the_same_time() -> None:
    number = Number()
    trainer = make(number, replicas=[Number()])
    trainer.files = lambda batch: [f"{batch.images.isnan().any():d}.png"]
    good, bad = batches(1)[0], batches(1, value=float("nan"))[0]
    with pytest.raises(RunError, match=r"(?s)layer 0 \[number\].*1\.png"):
        trainer.update([good, bad])
    assert number.layer.weight.item() == 2.0


def test_a_gradient_that_is_not_finite_is_not_applied() -> None:
    number = Number()
    number.layer.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match=r"gradient is not finite.*layer 0"):
        make(number).update(batches())
    assert number.layer.weight.item() == 2.0


@pytest.mark.parametrize(("limit", "moved"), [(0.0, 0.4), (9.0, 0.4), (1.0, 0.1), (0.25, 0.025)])
def test_the_norm_of_the_mean_gradient_is_bounded(limit: float, moved: float) -> None:
    number = Number()
    trainer = make(number)
    trainer.max_norm = limit
    trainer.update(batches())  # the mean gradient is 2 * w = 4, the rate 0.1
    assert number.layer.weight.item() == pytest.approx(2.0 - moved)


def test_the_norm_is_that_of_all_gradients_together() -> None:
    gradients = [torch.full((2,), 3.0), torch.full((1, 1), -4.0), torch.zeros(3)]
    assert clip_norm(gradients, 1.0)
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm() == pytest.approx(1.0)
    assert gradients[1].item() == pytest.approx(-4 / 34**0.5)
    assert not clip_norm([torch.tensor([1.0, float("nan")])], 1.0)


def test_boxes_without_size_are_suspected_first() -> None:
    batch = batch_of(torch.full((2, 3, 4, 4), float("nan")), torch.tensor([[[0.5, 0.5, 0.0, 0.2, 1.0]]] * 2))
    number = Number()
    number.losses = lambda images, labels, seen: [HeadLoss(number.layer.weight.sum() * float("nan"), 0.0)]  # type: ignore[method-assign]
    with pytest.raises(RunError, match="2 boxes of the batch have no size"):
        make(number, subdivisions=1).update([batch])


def test_the_run_ends_at_the_last_iteration_or_when_it_is_told_to() -> None:
    def forever() -> Iterator[TrainBatch]:
        while True:
            yield from batches()

    updates = list[Update]()
    trainer = make(Number())
    run(trainer, forever(), 5, [updates.append], lambda: len(updates) == 3)
    assert [update.iteration for update in updates] == [1, 2, 3]
    run(trainer, forever(), 5, [updates.append])
    assert trainer.iteration == 5
    run(trainer, forever(), 5, [updates.append])
    assert len(updates) == 5


def test_bfloat16_is_near_float32() -> None:
    number = Number()
    trainer = make(number)
    trainer.precision = Precision(dtype=torch.bfloat16)
    trainer.update(batches())
    assert number.layer.weight.item() == pytest.approx(1.6, rel=0.02)
    assert number.layer.weight.dtype == torch.float32
