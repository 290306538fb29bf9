"""The keys of [net], with one option class per purpose.

[net] configures the network's input, the schedule, the batches and the augmentation. Their code lives in packages that do
not import each other, but whether a key is known depends on all of them, so the classes are defined here together.
Defaults are those of parser.c parse_net_options.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.options import Options, ignored, option

POLICIES = ("random", "poly", "constant", "step", "exp", "sigmoid", "steps", "sgdr")  # parser.c get_policy

_GPU_MEMORY = "PyTorch manages memory and streams"
_CONTRASTIVE = "contrastive training is not supported"
_TRACK = "training on consecutive video frames is not supported"


@dataclass(frozen=True, kw_only=True)
class NetSection(Options):
    """Keys of the network itself: the size of its input."""

    width: int = option(0, "width of the network's input in pixels", least=0)
    height: int = option(0, "height of the network's input in pixels", least=0)
    channels: int = option(0, "channels of the input: 3 for colour, 1 for grey", least=0)
    inputs: int = option(0, "length of a flat input vector, for networks without images", least=0)
    time_steps: int = option(1, "length of a sequence for recurrent layers", least=0)
    letter_box: bool = option(False, "keep the aspect ratio of images (letterbox)")
    batch: int = option(1, "images per weight update")
    subdivisions: int = option(1, "forward passes per batch, to save memory", least=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(Options):
    """Learning rate, optimizer and length of training."""

    max_batches: int = option(0, "total number of iterations (weight updates)", least=0)
    learning_rate: float = option(0.001, "learning rate after burn-in")
    learning_rate_min: float = option(0.00001, "minimum learning rate of policy sgdr")
    policy: str = option("constant", "learning rate policy: " + ", ".join(POLICIES) + "; any other word means constant")
    burn_in: int = option(0, "warm-up iterations, at learning_rate * (iteration / burn_in) ** power", least=0)
    power: float = option(4.0, "exponent of burn-in and of policy poly")
    steps: tuple[int, ...] = option((), "iterations at which policy steps multiplies the learning rate")
    scales: tuple[float, ...] = option((), "factors of policy steps")
    seq_scales: tuple[float, ...] = ignored((), _TRACK)
    step: int = option(1, "interval of policy step, centre of policy sigmoid")
    scale: float = option(1.0, "factor of policy step")
    gamma: float = option(1.0, "base of policy exp, slope of policy sigmoid")
    sgdr_cycle: int | None = option(None, "iterations of the first cycle of policy sgdr; default max_batches", least=1)
    sgdr_mult: int = option(2, "factor from one cycle of policy sgdr to the next", least=1)
    momentum: float = option(0.9, "momentum")
    decay: float = option(0.0001, "weight decay; applies to weights, not to biases and scales")
    adam: bool = option(False, "Adam instead of SGD")
    B1: float = option(0.9, "Adam: decay of the first moment")
    B2: float = option(0.999, "Adam: decay of the second moment")
    eps: float = option(0.000001, "Adam: term in the denominator")
    loss_scale: float = option(1.0, "factor on the gradients in mixed precision")
    ema_alpha: float = option(0.0, "decay of an exponential moving average of the weights; 0: off")
    adversarial_lr: float = option(0.0, "self-adversarial training: step size of the attack on the images; 0: off")
    attention: bool = ignored(False, "only displays an image in the original")
    max_chart_loss: float = option(20.0, "maximum of the loss axis in the training chart")
    label_smooth_eps: float = option(0.0, "classifiers: label smoothing")
    try_fix_nan: bool = ignored(False, "a non-finite loss stops the run and is diagnosed")
    weights_reject_freq: int = ignored(0, "experimental in the original")
    equidistant_point: int = ignored(0, "experimental in the original")
    badlabels_rejection_percentage: float = ignored(0.0, "experimental in the original")
    num_sigmas_reject_badlabels: float = ignored(0.0, "experimental in the original")


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """How training images are put into batches, and keys that concern only the original's own memory and display."""

    max_crop: int | None = option(None, "classifiers: maximum size of the shorter side; default twice the width")
    min_crop: int | None = option(None, "classifiers: minimum size of the shorter side; default the width")
    dynamic_minibatch: bool = option(False, "multi-scale training: larger batches at smaller sizes")
    resize_step: float = option(32.0, "grid of multi-scale sizes in pixels", least=1)
    sequential_subdivisions: int | None = ignored(None, _TRACK)
    track: bool = ignored(False, _TRACK)
    augment_speed: int = ignored(2, _TRACK)
    contrastive: bool = ignored(False, _CONTRASTIVE)
    contrastive_jit_flip: bool = ignored(False, _CONTRASTIVE)
    contrastive_color: bool = ignored(False, _CONTRASTIVE)
    unsupervised: bool = ignored(False, _CONTRASTIVE)
    optimized_memory: int = ignored(0, _GPU_MEMORY)
    workspace_size_limit_MB: float = ignored(1024.0, _GPU_MEMORY)
    use_cuda_graph: bool = ignored(False, _GPU_MEMORY)
    show_receptive_field: bool = ignored(False, "`info.py` has the layer table")


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(Options):
    """Augmentation of training images; jitter, resize, random and max are keys of the last head."""

    flip: bool = option(True, "flip half of the images horizontally")
    blur: int = option(0, "1: blur the background; above 1: kernel size for the whole image")
    gaussian_noise: float = option(0.0, "standard deviation of Gaussian noise, in grey levels")
    mixup: int = option(0, "1: two images blended; 2: cutmix; 3: mosaic; 4: cutmix or mosaic")
    cutmix: bool = option(False, "classifiers: a rectangle of one image pasted into another")
    mosaic: bool = option(False, "four images in one")
    mosaic_bound: bool = option(False, "clip the boxes of a mosaic to their quadrant")
    angle: float = option(0.0, "classifiers: maximum rotation in degrees")
    aspect: float = option(1.0, "classifiers: maximum change of the aspect ratio")
    saturation: float = option(1.0, "maximum factor of the saturation")
    exposure: float = option(1.0, "maximum factor of the brightness")
    hue: float = option(0.0, "maximum hue shift, as a fraction of the colour circle")


NET_AUDIENCES: tuple[type[Options], ...] = (NetSection, ScheduleOptions, BatchOptions, AugmentOptions)
