"""Layer types one by one: properties that the recordings of the forward pass do not cover."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.pooling import MaxpoolDepth, MaxpoolSection, Window
from models.layers.route import Route
from models.network import Network
from models.plan import make_plan
from models.training import Training
from utils.cfg import parse
from utils.errors import CfgError

NET = "[net]\nwidth=12\nheight=8\nchannels=3\ntime_steps={steps}\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
NARROW = "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n"


def network(layers: str, *, steps: int = 1) -> Network:
    torch.manual_seed(0)
    net = Network(make_plan(parse(NET.format(steps=steps) + layers, "test.cfg")))
    for _, item in net.stored():
        if item.kind == "rolling_variance":
            item.tensor.fill_(1)
    return net


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(1))


TRAINABLE = {
    "convolutional": "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=mish\n",
    "cross batch normalisation": "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=2\nactivation=leaky\n",
    "antialiasing": "[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\nantialiasing=1\n",
    "binary": "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\nbinary=1\n",
    "xnor": "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\nxnor=1\n",
    "depthwise": "[depthwise]\nsize=3\npad=1\nactivation=leaky\nbatch_normalize=1\n",
    "local": "[local]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n",
    "connected": "[connected]\noutput=5\nactivation=leaky\nbatch_normalize=1\n",
    "maxpool": "[maxpool]\nsize=2\nstride=2\n",
    "maxpool_depth": "[maxpool]\nmaxpool_depth=1\nout_channels=3\n",
    "local_avgpool": "[local_avgpool]\nsize=3\nstride=2\n",
    "avgpool": "[avgpool]\n",
    "reorg": "[reorg]\nstride=2\n",
    "reorg3d": "[reorg3d]\nstride=2\n",
    "upsample": "[upsample]\nstride=2\n",
    "downsample": "[upsample]\nstride=-2\nscale=.5\n",
    "route": "[route]\nlayers=-1,-1\ngroups=2\ngroup_id=1\n",
    "shortcut": "[shortcut]\nfrom=-1\nactivation=swish\n",
    "weighted shortcut": "[shortcut]\nfrom=-1\nweights_type=per_channel\nweights_normalization=softmax\n",
    "scale_channels": "[avgpool]\n[scale_channels]\nfrom=-2\n",
    "sam": "[activation]\nactivation=logistic\n[sam]\nfrom=-2\n",
    "se": "[se]\nreduction=2\n",
    "batchnorm": "[batchnorm]\n",
    "normalization": "[normalization]\n",
    "activation": "[activation]\nactivation=hard_mish\n",
    "dropout": "[dropout]\nprobability=.5\n",
    "dropblock": "[dropout]\ndropblock=1\ndropblock_size_abs=2\nprobability=.5\n",
    "crop": "[crop]\ncrop_width=6\ncrop_height=4\nflip=1\n",
    "implicit": "[implicit]\nfilters=8\natoms=1\n[scale_channels]\nfrom=-2\n",
    "implicit_add": "[implicit_add]\nfilters=8\n[route]\nlayers=-2\n[shift_channels]\nfrom=-2\n",
    "implicit_mul": "[implicit_mul]\nfilters=8\n[route]\nlayers=-2\n[control_channels]\nfrom=-2\n",
    "empty": "[empty]\n",
    "rnn": "[rnn]\nhidden=4\noutput=5\nactivation=tanh\n",
    "gru": "[gru]\noutput=5\n",
    "lstm": "[lstm]\noutput=5\nbatch_normalize=1\n",
    "crnn": "[crnn]\nhidden=4\noutput=5\npad=1\nactivation=leaky\nshortcut=1\nbatch_normalize=1\n",
    "conv_lstm": "[conv_lstm]\noutput=5\npad=1\npeephole=1\nbatch_normalize=1\n",
    "conv_lstm bottleneck": "[conv_lstm]\noutput=8\npad=1\nbottleneck=1\nshortcut=1\ntime_normalizer=.5\n",
    "history": "[history]\nhistory_size=3\n",
}


@pytest.mark.parametrize("layers", TRAINABLE.values(), ids=list(TRAINABLE))
def test_gradients_reach_every_tensor(layers: str) -> None:
    net = network(CONV + layers, steps=2).train()
    x = images(4).requires_grad_()
    (output,) = net(x)
    assert output.shape == (4, net.plan.steps[-1].shape.channels, *net.plan.steps[-1].shape.hwc[:2])
    (output * torch.rand(output.shape)).sum().backward()
    for index, item in net.stored():
        if isinstance(item.tensor, torch.nn.Parameter):
            assert item.tensor.grad is not None, f"layer {index} {item.kind}"
            assert torch.isfinite(item.tensor.grad).all()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("layers", TRAINABLE.values(), ids=list(TRAINABLE))
def test_parameters_are_counted_as_stored(layers: str) -> None:
    for text in (CONV + layers, CONV + layers + "dontloadscales=1\n"):
        net = network(text)
        assert net.plan.parameters == sum(count for _, count, _ in net.tensors())


@pytest.mark.parametrize("layers", TRAINABLE.values(), ids=list(TRAINABLE))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(layers: str, dtype: torch.dtype) -> None:
    net = network(CONV + layers).eval().to(dtype)
    (output,) = net(images().to(dtype))
    assert output.dtype == dtype
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("layers", TRAINABLE.values(), ids=list(TRAINABLE))
def test_a_batch_is_its_images_and_channels_last_changes_nothing(layers: str) -> None:
    net = network(CONV + layers).eval().requires_grad_(False)
    x = images(3)
    (together,) = net(x)
    (separate,) = zip(*(net(image[None]) for image in x), strict=True)
    assert torch.allclose(together, torch.cat(separate), atol=1e-5)
    (turned,) = net.to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
        x.to(memory_format=torch.channels_last)
    )
    assert torch.allclose(together, turned, atol=1e-5)


REFUSED = {
    "share of another size": (
        CONV + "[convolutional]\nfilters=8\nsize=1\nshare_index=-1\n",
        "share_index=-1 has weights 8x3x3x3, expected 8x8x1x1",
    ),
    "share of itself": (CONV + CONV + "share_index=1\n", "share_index=1 is layer 1, expected an earlier layer"),
    "share of a pooling": (CONV + "[maxpool]\n" + CONV + "share_index=-1\n", r"layer 1 \[maxpool\]"),
    "groups": (CONV + "[convolutional]\nfilters=9\ngroups=3\n", "groups=3 does not divide 8 input channels"),
    "dilation": (CONV + "[convolutional]\nsize=3\npadding=2\ndilation=2\n", "dilation=2 with size=3"),
    "kernel beyond the input": (CONV + "[convolutional]\nsize=13\n", "expected at least 1x1x1"),
    "route to itself": (CONV + "[route]\nlayers=1\n", "reads layer 1, expected an earlier layer"),
    "route of nothing": (CONV + "[route]\n", "layers is missing"),
    "route of other sizes": (CONV + NARROW + "[route]\nlayers=-1,-2\n", "layer 0 has size 12x8x8, expected 6x4"),
    "route group": (CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "group_id=2 is out of range"),
    "route groups": (CONV + "[route]\nlayers=-1\ngroups=3\n", "groups=3 does not divide the 8 channels"),
    "shortcut of nothing": (CONV + "[shortcut]\n", "from is missing"),
    "shortcut weights": (
        CONV + CONV + "[shortcut]\nfrom=-2\nweights_type=per_channel\n",
        "needs weights_normalization",
    ),
    "shortcut of other sizes": (
        CONV + "[upsample]\nstride=3\n[maxpool]\nsize=2\nstride=2\n[shortcut]\nfrom=0\n",
        "12x8",
    ),
    "scale_channels": (CONV + CONV + "[scale_channels]\nfrom=-2\n", "expected 1x1x8"),
    "sam": (CONV + NARROW + "[sam]\nfrom=-2\n", "expected 12x8x8"),
    "upsample": (CONV + "[upsample]\nstride=0\n", "expected a factor other than zero"),
    "downsample": (CONV + "[upsample]\nstride=-5\n", "does not divide"),
    "reorg": (CONV + "[reorg]\nstride=3\n", "channels divisible by 9"),
    "reorg3d": (CONV + "[reorg3d]\nstride=5\n", "width and height by 5"),
    "crop": (CONV + "[crop]\ncrop_width=13\ncrop_height=4\n", "does not fit the input"),
    "local pad": (CONV + "[local]\nsize=3\npad=2\n", "pad=2 does not fit size=3"),
    "normalization": (CONV + "[normalization]\nsize=16\n", "too large for 8 channels"),
    "crnn": (CONV + "[crnn]\noutput=3\nhidden=3\n", "change the size"),
    "conv_lstm bottleneck": (CONV + "[conv_lstm]\noutput=3\npad=1\nbottleneck=1\n", "needs output=8"),
    "shift_channels": (CONV + "[shift_channels]\nfrom=-1\n", "expected 1x1x8"),
    "pooling outside": (CONV + "[local_avgpool]\nsize=2\npadding=4\n", "padding=4 is too large"),
    "maxpool_depth": (CONV + "[maxpool]\nmaxpool_depth=1\nout_channels=9\n", "out_channels=9 exceeds 8"),
}


@pytest.mark.parametrize(("layers", "message"), REFUSED.values(), ids=list(REFUSED))
def test_refused(layers: str, message: str) -> None:
    with pytest.raises(CfgError, match=message) as caught:
        network(layers)
    assert str(caught.value).startswith("test.cfg:")


def test_unknown_activation_is_relu_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = network("[convolutional]\nactivation=sine\n")
    assert vars(net.plan.steps[0].section)["activation"] == "relu"
    assert "test.cfg:7: [convolutional] activation: unknown value 'sine', relu is used" in caplog.text


def _windows() -> list[tuple[int, int, int, int, int]]:
    """(height, width, size, padding, stride) for which no window lies entirely outside the input."""
    return [
        (height, width, size, padding, stride)
        for height, width in ((5, 6), (7, 7))
        for size in (1, 2, 3, 5)
        for padding in {0, 1, 2, 5, size - 1}
        for stride in (1, 2, 3)
        if padding // 2 < size
        and all((n + padding - size) // stride * stride - padding // 2 < n for n in (height, width))
    ]


@pytest.mark.parametrize(("height", "width", "size", "border", "stride"), _windows())
def test_pooling_windows(height: int, width: int, size: int, border: int, stride: int) -> None:
    """maxpool_layer.c: windows begin at -padding / 2; maximum and mean are taken over the part inside the input."""
    x = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    rows = (height + border - size) // stride + 1
    columns = (width + border - size) // stride + 1
    largest, mean = np.empty((2, rows, columns), np.float32)
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride - border // 2, column * stride - border // 2
        window = x[max(top, 0) : top + size, max(left, 0) : left + size]
        largest[row, column], mean[row, column] = window.max(), window.mean()
    options = f"size={size}\nstride={stride}\npadding={border}\n"
    text = f"[net]\nwidth={width}\nheight={height}\nchannels=1\n"
    image = torch.from_numpy(x)[None, None]
    for kind, expected in (("maxpool", largest), ("local_avgpool", mean)):
        net = Network(make_plan(parse(f"{text}[{kind}]\n{options}")))
        np.testing.assert_allclose(net(image)[0][0, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_common_pooling_needs_no_copy() -> None:
    for size, stride, length in ((5, 1, 13), (9, 1, 13), (13, 1, 13), (2, 2, 26), (2, 2, 13), (3, 2, 56), (3, 1, 19)):
        section = MaxpoolSection(size=size, stride=stride)
        assert Window(section, section.strides_yx).native(length, length) is not None, (size, stride, length)


def test_maxout_gives_its_gradient_to_the_first_of_equal_maxima() -> None:
    x = torch.randint(0, 3, (2, 8, 5, 6)).float()
    change = torch.rand(2, 2, 5, 6)
    groups = x.view(2, 4, 2, 5, 6)
    first = torch.zeros_like(groups).scatter_(1, groups.argmax(1, keepdim=True), change[:, None])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format).requires_grad_()
        y = MaxpoolDepth(2)(given)
        assert torch.equal(y, groups.amax(1)) and y.is_contiguous(memory_format=memory_format)
        (grad,) = torch.autograd.grad(y, given, change)
        assert torch.equal(grad.view(2, 4, 2, 5, 6), first)


def test_concatenated_inputs_get_dense_gradients() -> None:
    parts = [torch.rand(2, c, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_() for c in (3, 8, 1)]
    change = torch.rand(2, 12, 4, 6).contiguous(memory_format=torch.channels_last)
    y = Route(1, 0)(*parts)
    assert torch.equal(y, torch.cat(parts, 1))
    grads = torch.autograd.grad(y, parts, change)
    assert all(map(torch.equal, grads, change.split((3, 8, 1), 1)))
    assert all(grad.is_contiguous(memory_format=torch.channels_last) for grad in grads)


@pytest.mark.filterwarnings("ignore")
def test_concatenation_is_a_plain_operation_outside_training(tmp_path: Path) -> None:
    net = network(CONV + CONV + "[route]\nlayers=-1,-2\n").eval()
    torch.jit.trace(net, images(), check_trace=False).save(tmp_path / "traced.pt")
    (wanted,), found = net(images()), torch.jit.load(tmp_path / "traced.pt")(images())
    assert torch.equal(found[0] if isinstance(found, tuple) else found, wanted)


def test_shortcut_of_different_sizes_and_channels() -> None:
    """blas.c shortcut_cpu, index by index."""
    for first, second in ((NARROW, CONV), (CONV, NARROW)):
        other = second.replace("filters=8", "filters=5")
        net = network(
            f"{other}[route]\nlayers=-1\n{first}".replace("[route]\nlayers=-1\n", "") + "[shortcut]\nfrom=0\n"
        )
        add, base = (torch.randn(2, *shape) for shape in _shapes(net, 0, 1))
        expected = base.clone()
        stride, sample = max(add.shape[3] // base.shape[3], 1), max(base.shape[3] // add.shape[3], 1)
        for k, j, i in np.ndindex(5, min(add.shape[2], base.shape[2]), min(add.shape[3], base.shape[3])):
            expected[:, k, j * sample, i * sample] += add[:, k, j * stride, i * stride]
        assert torch.allclose(net.layers[2](base, add), expected)


def _shapes(net: Network, *layers: int) -> list[tuple[int, int, int]]:
    shapes = [net.plan.steps[index].shape for index in layers]
    return [(shape.channels, shape.height, shape.width) for shape in shapes]


@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_weighted_shortcut_has_the_gradient_of_the_gpu_kernel(normalization: str) -> None:
    """blas_kernels.cu backward_shortcut_multilayer_kernel: that of the normalised weight, times w or w (1 - w)."""
    text = f"[shortcut]\nfrom=-1\nweights_type=per_feature\nweights_normalization={normalization}\n"
    layer = network(CONV + text).train().layers[1]
    with torch.no_grad():
        layer.weights.copy_(torch.tensor([[0.5], [2.0]]))
    a, b, grad = torch.randn(3, 2, 8, 4, 4)
    layer(a, b).backward(grad)
    sums = torch.stack(((a * grad).sum(), (b * grad).sum()))
    w = torch.tensor([0.5, 2.0]) / 2.5001 if normalization == "relu" else torch.tensor([0.5, 2.0]).softmax(0)
    factor = w if normalization == "relu" else w * (1 - w)
    assert torch.allclose(layer.weights.grad.flatten(), sums * factor, rtol=1e-3, atol=1e-4)


def test_silu_means_swish_with_a_single_warning(caplog: pytest.LogCaptureFixture) -> None:
    silu = CONV.replace("[convolutional]\n", "[convolutional]\nactivation=silu\n").replace("activation=leaky\n", "")
    with caplog.at_level(logging.WARNING):
        net = network(silu * 3)
    assert [layer.activate.name for layer in net] == ["swish"] * 3
    (message,) = caplog.messages
    assert "activation: silu is read as swish" in message and message.endswith("(and 2 more times)")


@pytest.mark.parametrize("kind", ["reorg", "reorg3d"])
def test_reorg_keeps_every_value(kind: str) -> None:
    net = network(CONV + f"[{kind}]\nstride=2\n")
    x = torch.arange(2 * 8 * 8 * 12).view(2, 8, 8, 12)
    y = net.layers[1](x)
    assert torch.equal(y.flatten(1).sort().values, x.flatten(1))


def test_reorg_reversed_is_space_to_depth_reversed() -> None:
    there, back = network(CONV + "[reorg3d]\nstride=2\n"), network(CONV + "[reorg]\nstride=2\nreverse=1\n")
    x = torch.randn(2, 2, 16, 24)
    assert torch.equal(back.layers[1](there.layers[1](x)), x)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "crnn", "conv_lstm", "history"])
def test_steps_of_a_batch_belong_to_one_sequence_each(kind: str) -> None:
    """Step-major order: rows 0 and 1 are the first step of two sequences, rows 2 and 3 the second."""
    net = network(CONV + TRAINABLE[kind].replace("batch_normalize=1\n", ""), steps=2).train()
    x = images(4)
    (together,) = net(x)
    for sequence in (0, 1):
        (alone,) = net(x[[sequence, sequence + 2]])
        assert torch.allclose(together[[sequence, sequence + 2]], alone, atol=1e-5)
    (first,) = net.eval()(x[:2])
    assert torch.allclose(together[:2], first, atol=1e-5)
    assert not torch.allclose(together[2:], net(x[2:])[0], atol=1e-3)


def test_dropblock_drops_one_square_of_a_channel_and_scales_the_rest() -> None:
    net = network(CONV + "[dropout]\ndropblock=1\ndropblock_size_abs=3\nprobability=.1\n").train()
    layer = net.layers[1]
    x = torch.ones(16, 8, 8, 12)
    y = layer(x)
    dropped = (y == 0).sum((2, 3))
    assert set(dropped.flatten().tolist()) == {0, 9}
    assert torch.allclose(y.mean((1, 2, 3)), torch.ones(16), atol=1e-5)
    layer.at_iteration(0, 1000)
    assert torch.equal(layer(x), x)
    assert torch.equal(net.eval().layers[1](x), x)


def test_dropout_keeps_the_mean() -> None:
    layer = network(CONV + "[dropout]\nprobability=.25\n").train().layers[1]
    y = layer(torch.ones(8, 8, 8, 12))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean() == pytest.approx(1, abs=0.05)


def test_cross_batch_normalisation_averages_the_parts_of_a_batch() -> None:
    net = network("[convolutional]\nfilters=3\nbatch_normalize=2\nactivation=linear\n").train()
    norm = net.layers[0].norm
    first, second = torch.randn(2, 4, 3, 5, 5) * 2 + 1
    net.layers[0].at_iteration(0, 10)
    norm(first)
    y = norm(second)
    both = torch.cat((first, second))
    mean, variance = both.mean((0, 2, 3)), both.var((0, 2, 3))
    expected = (second - mean.view(-1, 1, 1)) / torch.sqrt(variance.view(-1, 1, 1) + 1e-5)
    assert torch.allclose(y, expected, atol=0.02)
    net.layers[0].at_iteration(1, 10)
    assert torch.allclose(norm(second).mean((0, 2, 3)), torch.zeros(3), atol=1e-5)


def test_depthwise_is_a_convolution_with_a_group_for_each_channel() -> None:
    one = network(CONV + "[depthwise]\nsize=3\npad=1\nactivation=linear\n")
    two = network(CONV + "[convolutional]\nfilters=8\ngroups=8\nsize=3\npad=1\nactivation=linear\n")
    assert one.tensors() == two.tensors()
    assert torch.equal(one(images())[0], two(images())[0])
    assert one.plan.steps[1].cost == two.plan.steps[1].cost


def test_se_is_pooling_connection_and_scaling() -> None:
    net = network(CONV + "[se]\nreduction=4\n")
    layer: Any = net.layers[1]
    x = torch.randn(2, 8, 4, 6)
    squeezed = F.relu(F.linear(x.mean((2, 3)), layer.squeeze.weights, layer.squeeze.biases))
    factors = torch.sigmoid(F.linear(squeezed, layer.excite.weights, layer.excite.biases))
    assert torch.allclose(layer(x), x * factors[:, :, None, None], atol=1e-6)


def test_layers_of_yolor() -> None:
    net = network(CONV + "[implicit_mul]\nfilters=8\n[route]\nlayers=0\n[control_channels]\nfrom=1\n").eval()
    x = net.layers[0](images())
    factors = net.layers[1].weights.view(1, 8, 1, 1)
    assert abs(factors.mean().item() - 1) < 0.02
    assert torch.allclose(net(images())[0], x * factors)


def test_flipped_weights_are_transposed_in_the_file_only() -> None:
    items = [item for _, item in network(CONV + "flipped=1\n").stored()]
    assert [item.transposed for item in items] == [False, True]


def test_a_layer_reads_the_blurred_size_and_the_report_shows_the_other() -> None:
    net = network("[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\nantialiasing=1\n" + CONV)
    step = net.plan.steps[0]
    assert (step.reported_shape.hwc, step.shape.hwc) == ((8, 12, 4), (4, 6, 4))
    assert net.plan.steps[1].site.input == step.shape


def test_layers_are_told_the_progress_of_training() -> None:
    head = "[convolutional]\nfilters=6\nactivation=linear\n[yolo]\nmask=0\nanchors=4,4\nnum=1\nclasses=1\n"
    text = NET.format(steps=1) + "max_batches=1000\n" + CONV + "[dropout]\ndropblock=1\n" + head
    net = Network(make_plan(parse(text)))
    training = Training(net)
    for iteration, progress in ((85, 0.1), (850, 1.0), (1000, 1.0)):
        training.begin(iteration)
        assert net.layers[1].progress == pytest.approx(progress)
