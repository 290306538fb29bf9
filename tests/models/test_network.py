"""The network as a module: sizes, batches, number formats, memory, and what it rejects."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from models.layers.base import Layer
from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE, REPOSITORY
from utils.errors import InputError

TINY = REPOSITORY / "cfg" / "yolov3-tiny-prn.cfg"


def network(width: int = 96, height: int = 64) -> Network:
    torch.manual_seed(1)
    net = Network(read_plan(TINY, width=width, height=height)).eval()
    for _, item in net.stored():
        if item.kind == "rolling_variance":
            item.tensor.fill_(1.0)
    return net


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 96), (3, 64, 96), (2, 96, 64), (1, 416, 32)])
def test_any_batch_and_any_size_that_the_strides_allow(batch: int, height: int, width: int) -> None:
    with torch.inference_mode():
        coarse, fine = network()(torch.rand(batch, 3, height, width))
    assert coarse.shape == (batch, 255, height // 32, width // 32)
    assert fine.shape == (batch, 255, height // 16, width // 16)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    net, images = network(), torch.rand(3, 3, 64, 96)
    with torch.inference_mode():
        together = net(images)
        alone = [net(images[i : i + 1]) for i in range(3)]
    for head, output in enumerate(together):
        for i in range(3):
            torch.testing.assert_close(output[i : i + 1], alone[i][head], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float64, 1e-4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_number_formats(dtype: torch.dtype, tolerance: float, layout: torch.memory_format) -> None:
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        exact = network()(images)
        other = network().fold().to(dtype)(images.to(dtype).contiguous(memory_format=layout))
    for one, two in zip(exact, other, strict=True):
        assert (one - two.float()).abs().max() < tolerance * one.std() * 10


def test_outputs_are_released_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    made: list[weakref.ref[Tensor]] = []
    most = 0

    def watch(layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal most
        made.append(weakref.ref(output))
        most = max(most, len({id(one()) for one in made if one() is not None}))

    for layer in net.layers:
        layer.register_forward_hook(watch)
    with torch.inference_mode():
        net(torch.rand(1, 3, 64, 96))
    gc.collect()
    assert most < 8 < len(net.layers)


def test_chosen_outputs() -> None:
    net, images = network(), torch.rand(1, 3, 64, 96)
    last = len(net.plan.steps) - 1
    with torch.inference_mode():
        chosen = net.outputs(images, [0, 5, last])
        assert list(chosen) == [0, 5, last]
        torch.testing.assert_close(chosen[last], net(images)[-1])
    for index, output in chosen.items():
        shape = net.plan.steps[index].shape
        assert output.shape == (1, shape.channels, shape.height, shape.width)
    assert net.outputs(images, []) == {}
    with pytest.raises(InputError, match=f"has layers 0 to {last}, no layer {last + 1}"):
        net.outputs(images, [last + 1])


def test_tensors_lists_the_weights_file() -> None:
    net = Network(read_plan(REFERENCE / "cfg" / "shortcut_per_feature_relu.cfg"))
    kinds = {kind for kind, _, _ in net.tensors()}
    assert "shortcut_weights" in kinds
    assert sum(count for _, count, _ in net.tensors()) == net.plan.parameters
    assert all(fan_in >= 1 for _, _, fan_in in net.tensors())
