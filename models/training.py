"""What training needs from a network: losses, trainable tensors with their update rules, and where gradients stop.

Keys that freeze parts of a network work as in the original's GPU build (network_kernels.cu backward_network_gpu and
update_network_gpu, parser.c parse_network_cfg_custom and set_train_only_bn).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batchnorm import BatchNorm, CrossBatchNorm
from models.heads.base import HeadLoss
from models.layers.base import LayerSection, Step, Stored
from models.network import Network
from utils.errors import InputError
from utils.net_options import ScheduleOptions


@dataclass(frozen=True, kw_only=True)
class TrainedTensor:
    """A trainable tensor and its update rules.

    layer: index of its layer.
    rate_factor: factor on the learning rate.
    decay: whether weight decay applies.
    adam: whether Adam, if selected, updates it.
    centred: subtract the mean of each output's update.
    update_limit: largest magnitude of the summed update; 0: no limit.
    weight_limit: largest magnitude of the tensor itself after an update; 0: no limit.
    first_iteration: the first iteration, counted from 1, that updates it.
    """

    tensor: Tensor
    layer: int
    rate_factor: float = 1.0
    decay: bool = False
    adam: bool = True
    centred: bool = False
    update_limit: float = 0.0
    weight_limit: float = 0.0
    first_iteration: int = 0


SHORTCUT_LIMIT = 1.0  # shortcut_layer.c update_shortcut_layer_gpu


class Training:
    """A network in training: call `begin` before each iteration, then `losses` for each of its subdivisions.

    freeze: layers before this index are frozen, in addition to those that the cfg freezes.
    Raises InputError if there is nothing to train: no layer has a loss, or all such layers are frozen.
    """

    def __init__(self, network: Network, freeze: int = 0) -> None:
        self.network = network
        sections = [step.section for step in network.plan.steps]
        stop = _last(sections, lambda section: section.stopbackward == 1)
        self.frozen = max(freeze, stop)  # layers before it are not updated, and normalise by rolling statistics
        self.statistics_only = _last(sections, lambda section: section.train_only_bn) + 1
        self._stop = stop + 1
        self._heads = tuple(step for step in network.plan.heads if self._has_loss(step))
        self._check_heads()
        self._first_trained: int | None = None
        self._stopped = False
        self._max_batches = ScheduleOptions.from_raw(network.plan.cfg.sections[0]).max_batches
        for index, section in enumerate(sections):
            if section.onlyforward:
                network.layers[index].register_forward_hook(_detached)

    def begin(self, iteration: int) -> None:
        """Set training modes and gradient flags for an iteration, counted from 1."""
        first = self._layers_without_gradient(iteration)
        if self._first_trained != first:
            for index, layer in enumerate(self.network):  # for a shared tensor, the last layer that uses it decides
                layer.requires_grad_(index >= first)
            self._first_trained = first
        self.network.train()
        for index, layer in enumerate(self.network):
            layer.at_iteration(iteration, self._max_batches)
            if index < self.frozen and any(True for _ in layer.stored()):
                layer.eval()

    def losses(self, images: Tensor, labels: Tensor, seen: int) -> list[HeadLoss]:
        """Losses of the heads in cfg order.

        images: (n, channels, height, width) in [0, 1].
        labels: see Head.loss.
        seen: images trained on so far, these included.
        """
        size_wh = (images.shape[3], images.shape[2])
        inputs = self._head_inputs(images)
        with torch.autocast(images.device.type, enabled=False):
            return [self.network.head(step).loss(inputs[step.index], labels, size_wh, seen) for step in self._heads]

    def attack(self, images: Tensor, labels: Tensor, seen: int) -> Tensor:
        """Gradient of the heads' adversarial losses with respect to the images; arguments as for `losses`.

        Batch normalisation uses its rolling statistics and leaves them unchanged (batchnorm_layer.c
        forward_batchnorm_layer_gpu); weights get no gradient. Zero if gradients stop before they reach the images.
        """
        if self._stopped:
            return torch.zeros_like(images)
        pixels = images.detach().requires_grad_()
        size_wh = (images.shape[3], images.shape[2])
        with self._rolling_statistics():
            inputs = self._head_inputs(pixels)
        with torch.autocast(images.device.type, enabled=False):
            heads = [(self.network.head(step), inputs[step.index]) for step in self._heads]
            parts = [head.adversarial_loss(x, labels, size_wh, seen) for head, x in heads]
        objective = torch.stack(parts).sum() + 0 * pixels.sum()  # ensures that a gradient exists, even if it is zero
        return torch.autograd.grad(objective, pixels)[0]

    @contextlib.contextmanager
    def _rolling_statistics(self) -> Iterator[None]:
        normalising = [module for module in self.network.modules() if isinstance(module, BatchNorm) and module.training]
        for module in normalising:
            module.eval()
        yield
        for module in normalising:
            module.train()

    def _head_inputs(self, images: Tensor) -> dict[int, Tensor]:
        heads = (step.index for step in self.network.plan.heads)
        inputs = self.network.head_inputs(images)
        return {index: each[0].float() for index, each in zip(heads, inputs, strict=True)}

    @property
    def has_independent_passes(self) -> bool:
        """Whether a forward pass of an iteration depends neither on the ones before it nor on random numbers."""
        shared = any(isinstance(module, CrossBatchNorm) for module in self.network.modules())
        return not shared and not any(layer.draws for layer in self.network)

    def replica(self) -> Training:
        """A network that shares the weights, so that another thread can make a pass; see `absorb`."""
        weights = {id(weight): nn.Parameter(weight.detach()) for weight in self.network.parameters()}
        network = copy.deepcopy(self.network, weights)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.deferred = []
        return Training(network, self.frozen)

    def absorb(self, replica: Training) -> None:
        """Take over gradients and batch statistics of a replica's pass, as if this network had made it now."""
        pairs = list(zip(self.network.parameters(), replica.network.parameters(), strict=True))
        added = [(own.grad, other.grad) for own, other in pairs if own.grad is not None and other.grad is not None]
        if added:
            torch._foreach_add_(*map(list, zip(*added, strict=True)))
        for own, other in pairs:
            own.grad = other.grad if own.grad is None else own.grad
            other.grad = None
        for module, copied in zip(self.network.modules(), replica.network.modules(), strict=True):
            if isinstance(module, BatchNorm) and isinstance(copied, BatchNorm) and copied.deferred:
                for mean, variance in copied.deferred:
                    module.follow(mean, variance)
                copied.deferred.clear()

    def tensors(self, burn_in: int) -> list[TrainedTensor]:
        """The trainable tensors; burn_in: warm-up iterations of the schedule."""
        found = {}
        for step, layer in zip(self.network.plan.steps, self.network, strict=True):
            if step.index < max(self.frozen, self.statistics_only):
                continue
            stored = {id(item.tensor): item for item in layer.stored()}
            for parameter in layer.parameters():
                if id(parameter) not in found:
                    item = stored.get(id(parameter), Stored(parameter, "biases"))
                    found[id(parameter)] = _trained(step, item, burn_in)
        return list(found.values())

    def statistics(self) -> list[Tensor]:
        """The rolling statistics that this iteration updates."""
        changing = [module for module in self.network.modules() if isinstance(module, BatchNorm) and module.training]
        return [tensor for module in changing for tensor in (module.rolling_mean, module.rolling_variance)]

    def layer_names(self) -> list[tuple[str, nn.Module]]:
        """("12 [convolutional]", module) for every layer, for messages."""
        steps = self.network.plan.steps
        return [(f"{step.index} [{step.raw.name}]", layer) for step, layer in zip(steps, self.network, strict=True)]

    def _layers_without_gradient(self, iteration: int) -> int:
        """Index of the first layer that gets a gradient. During a step, the original's iteration count is one behind."""
        sections = [step.section for step in self.network.plan.steps]
        held = _last(sections, lambda section: section.stopbackward > max(1, iteration - 1)) + 1
        self._stopped = max(self._stop, held) > 0
        return max(self._stop, self.frozen, self.statistics_only, held)

    def _has_loss(self, step: Step) -> bool:
        """Whether the layer has a loss; frozen heads and those with onlyforward have none (yolo_layer.c forward_yolo_layer)."""
        return step.section.is_head and not step.section.onlyforward and step.index >= self.frozen

    def _check_heads(self) -> None:
        path = self.network.plan.cfg.path
        if not any(step.section.is_head for step in self.network.plan.steps):
            raise InputError(f"{path}: has no layer with a loss, expected [yolo], [softmax] or another head at its end")
        if not self._heads:
            raise InputError(f"{path}: every layer with a loss is frozen, there is nothing to train")
        if not self.tensors(0):
            raise InputError(f"{path}: every layer with weights is frozen, there is nothing to train")


def _last(sections: list[LayerSection], condition: Callable[[LayerSection], bool]) -> int:
    return max((index for index, section in enumerate(sections) if condition(section)), default=-1)


def _trained(step: Step, item: Stored, burn_in: int) -> TrainedTensor:
    section = step.section
    shortcut = item.kind == "shortcut_weights"
    weights = item.decayed
    return TrainedTensor(
        tensor=item.tensor,
        layer=step.index,
        rate_factor=section.learning_rate,
        decay=weights and not shortcut,
        adam=not shortcut,
        centred=item.centred,
        update_limit=SHORTCUT_LIMIT if shortcut else 0.0,
        weight_limit=section.clip if weights and not shortcut else 0.0,
        first_iteration=max(section.dont_update + 1, section.burnin_update * burn_in),
    )


def _detached(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.detach()
