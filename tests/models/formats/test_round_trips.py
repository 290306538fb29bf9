"""Networks survive a round trip through every file format byte for byte; and which files are rejected."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import convert
import export
from inference.backends import OnnxRuntimeSession
from models.formats.files import LoadOptions, load_model, save_model
from models.formats.fuse import without_batch_norm
from models.load import load
from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE, REPOSITORY
from tests.recipe import weights_file
from utils.errors import InputError

CFGS = sorted((REFERENCE / "cfg").glob("*.cfg"))
STORED = [path for path in CFGS if path.stem != "shortcut_weights_no_norm" and list(Network(read_plan(path)).stored())]
PLAIN = REFERENCE / "cfg" / "conv_basic.cfg"


def weights_of(cfg: Path, folder: Path) -> Path:
    path = folder / f"{cfg.stem}.weights"
    path.write_bytes(weights_file(Network(read_plan(cfg)).tensors(), 7))
    return path


def test_every_type_with_stored_tensors_is_among_the_cfgs() -> None:
    found = {step.raw.name for path in STORED for step in read_plan(path).steps if step.cost.parameters}
    assert {"convolutional", "connected", "local", "batchnorm", "shortcut", "implicit"} < found
    assert {"rnn", "gru", "lstm", "crnn", "conv_lstm"} < found


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("cfg", STORED, ids=lambda path: path.stem)
def test_weights_come_back_byte_for_byte(cfg: Path, suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    before = weights_of(cfg, tmp_path)
    network, _ = load_model(before, LoadOptions(cfg=cfg))
    network.seen = 2**40 + 3
    save_model(network, tmp_path / "a.weights")
    save_model(network, tmp_path / f"a{suffix}", ("one", "two words", "drei ä"))
    again, names = load_model(tmp_path / f"a{suffix}")
    save_model(again, tmp_path / "b.weights", names)
    assert names == ("one", "two words", "drei ä")
    assert (tmp_path / "b.weights").read_bytes() == (tmp_path / "a.weights").read_bytes()
    assert again.plan.cfg.text == network.plan.cfg.text


def test_cfg_text_that_is_not_utf8_is_preserved(tmp_path: Path) -> None:
    cfg = tmp_path / "a.cfg"
    cfg.write_bytes(b"# caf\xe9\r\n" + PLAIN.read_bytes())
    for name in ("a.pt", "a.safetensors"):
        if name.endswith("safetensors"):
            pytest.importorskip("safetensors")
        save_model(load(cfg), tmp_path / name)
        load_model(tmp_path / name).network.plan.cfg.write(tmp_path / "b.cfg")
        assert (tmp_path / "b.cfg").read_bytes() == cfg.read_bytes()


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    network = load(PLAIN)
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        save_model(network, tmp_path / str(number) / "a.pt")
    assert (tmp_path / "1/a.pt").read_bytes() == (tmp_path / "2/a.pt").read_bytes()


def test_a_training_checkpoint_with_and_without_its_average(tmp_path: Path) -> None:
    network = load(PLAIN)
    state = network.state_dict()
    average = {name: value + 1 for name, value in dict(network.named_parameters()).items()}
    content = {
        "format": "cspyolo checkpoint 1",
        "cfg": network.plan.cfg.text,
        "names": ["a"],
        "seen": 64,
        "model": state,
        "ema": {name: value.detach() for name, value in average.items()},
    }
    torch.save(content, tmp_path / "last.pt")
    plain, names = load_model(tmp_path / "last.pt")
    averaged, _ = load_model(tmp_path / "last.pt", LoadOptions(ema=True))
    assert names == ("a",) and plain.seen == 64
    for (name, one), other in zip(plain.named_parameters(), averaged.parameters(), strict=True):
        assert torch.equal(one, state[name]) and torch.equal(other, average[name])
    torch.save(content | {"ema": {}}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="no averaged weights"):
        load_model(tmp_path / "last.pt", LoadOptions(ema=True))


def _pytorch_state(network: Network) -> dict[str, torch.Tensor]:
    """State dict as saved by programs that build nn.Conv2d and nn.BatchNorm2d from a cfg."""
    state = {}
    for index, layer in enumerate(network):
        items = {item.kind: item.tensor.detach().clone() for item in layer.stored()}
        order = ("weights", "scales", "biases", "rolling_mean", "rolling_variance")
        state.update({f"module_list.{index}.{kind}": items[kind] for kind in order if kind in items})
        if "scales" in items:
            state[f"module_list.{index}.num_batches_tracked"] = torch.tensor(3)
    return state


def test_tensors_of_another_program(tmp_path: Path) -> None:
    before, _ = load_model(weights_of(PLAIN, tmp_path), LoadOptions(cfg=PLAIN))
    torch.save({"model": _pytorch_state(before), "epoch": 3}, tmp_path / "other.pt")
    after, _ = load_model(tmp_path / "other.pt", LoadOptions(cfg=PLAIN))
    for (_, one), (_, other) in zip(before.stored(), after.stored(), strict=True):
        assert torch.equal(one.tensor, other.tensor)
    with pytest.raises(InputError, match="--cfg"):
        load_model(tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"tensors|has shape"):
        load_model(tmp_path / "other.pt", LoadOptions(cfg=REFERENCE / "cfg" / "conv_groups.cfg"))


PORT = """[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=silu
[convolutional]
filters=4
size=1
activation=linear
[shortcut]
from=-2
weights_type=per_feature
weights_normalization=softmax
activation=linear
[implicit_mul]
filters=4
[route]
layers=2
[control_channels]
from=3
[convolutional]
filters=6
size=1
activation=linear
"""


def _port_state() -> dict[str, torch.Tensor]:
    """State dict with the key names of PyTorch ports, in a different order from the cfg."""
    shapes = {
        "6.Conv2d.weight": (6, 4, 1, 1),
        "6.Conv2d.bias": (6,),
        "3.implicit": (1, 4, 1, 1),
        "2.w": (2,),
        "1.Conv2d.bias": (4,),
        "1.Conv2d.weight": (4, 4, 1, 1),
        "0.BatchNorm2d.running_var": (4,),
        "0.BatchNorm2d.running_mean": (4,),
        "0.BatchNorm2d.bias": (4,),
        "0.BatchNorm2d.weight": (4,),
        "0.Conv2d.weight": (4, 3, 3, 3),
    }
    generator = torch.Generator().manual_seed(5)
    state = {f"module_list.{name}": torch.rand(shape, generator=generator) + 0.1 for name, shape in shapes.items()}
    return state | {"module_list.0.BatchNorm2d.num_batches_tracked": torch.tensor(7)}


def _port_forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    s = {name.removeprefix("module_list."): tensor for name, tensor in state.items()}
    mean, var, weight, bias = (s[f"0.BatchNorm2d.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    first = F.silu(F.batch_norm(F.conv2d(x, s["0.Conv2d.weight"], stride=2, padding=1), mean, var, weight, bias))
    second = F.conv2d(first, s["1.Conv2d.weight"], s["1.Conv2d.bias"])
    w = s["2.w"].softmax(0)
    joined = (second * w[0] + first * w[1]) * s["3.implicit"]
    return F.conv2d(joined, s["6.Conv2d.weight"], s["6.Conv2d.bias"])


def test_weights_of_pytorch_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("port.cfg").write_text(PORT)
    state = _port_state()
    torch.save({"model": state, "epoch": 3}, "port.pt")
    x = torch.rand(2, 3, 16, 16)
    wanted = _port_forward(state, x)
    for out in ("a.weights", "a.pt"):
        assert convert.main(["weights", "--cfg", "port.cfg", "--weights", "port.pt", "--out", out]) == 0
        network, _ = load_model(out, LoadOptions(cfg="port.cfg"))
        with torch.no_grad():
            torch.testing.assert_close(network(x)[0], wanted, rtol=1e-3, atol=1e-4)
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        flags = ["--cfg", "port.cfg", "--weights", "port.pt", "--output", "raw", "--batch-size", "2", "--out", "port"]
        assert export.main(flags) == 0
        found = OnnxRuntimeSession("port.onnx", torch.device("cpu")).run(x.numpy())
        np.testing.assert_allclose(found[0].reshape(wanted.shape), wanted.numpy(), rtol=1e-3, atol=1e-4)
    for wrong, message in (
        (
            {key: value for key, value in state.items() if key != "module_list.2.w"},
            "lacks the shortcut_weights of layer 2",
        ),
        (state | {"module_list.4.Conv2d.weight": torch.zeros(1)}, "module_list.4.Conv2d.weight has no counterpart"),
        (state | {"module_list.6.Conv2d.bias": torch.zeros(7)}, "has shape"),
    ):
        torch.save({"model": wrong}, "wrong.pt")
        with pytest.raises(InputError, match=message):
            load_model("wrong.pt", LoadOptions(cfg="port.cfg"))


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("harm", "w"))  # type: ignore[return-value]


def test_nothing_is_executed_without_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harm()}, "evil.pt")
    for cfg in (None, PLAIN):
        with pytest.raises(InputError, match=r"cannot be loaded safely.*state_dict\(\)"):
            load_model("evil.pt", LoadOptions(cfg=cfg))
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.weights": torch.zeros(3)}, "has shape"),
        ({"layers.0.weights": torch.zeros(1, dtype=torch.int64)}, "expected a tensor of floats"),
        ({"layers.99.weights": torch.zeros(3)}, "not a tensor of the network"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    network = load(PLAIN)
    save_model(network, tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save(content | {"model": content["model"] | change}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "a.pt")


def test_the_files_that_are_converted_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in (".cfg", ".weights"):
        shutil.copy(REPOSITORY / "weights" / f"scenes{suffix}", tmp_path / f"my{suffix}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    source = ["--cfg", "my.cfg", "--weights", "my.weights"]
    for command in (
        ["weights", *source, "--out", "./my.weights"],
        ["weights", *source, "--out", "a.pt", "--out-cfg", "my.cfg"],
        ["partial", *source, "--layers", "3", "--out", str(tmp_path / "my.weights")],
        ["fold", *source, "--out", "b.weights", "--out-cfg", "my.cfg"],
    ):
        with pytest.raises(InputError, match="is the file to convert, expected another file name"):
            convert.main(command)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "cfg", [path for path in STORED if "batch_normalize" in path.read_text()], ids=lambda p: p.stem
)
def test_without_batch_norm(cfg: Path, tmp_path: Path) -> None:
    network, _ = load_model(weights_of(cfg, tmp_path), LoadOptions(cfg=cfg))
    fused = without_batch_norm(network)
    assert not any(getattr(step.section, "norm_kind", 0) for step in fused.plan.steps)
    assert fused.plan.parameters < network.plan.parameters
    save_model(fused, tmp_path / "folded.weights")
    fused.plan.cfg.write(tmp_path / "folded.cfg")
    load(tmp_path / "folded.cfg", tmp_path / "folded.weights")


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = weights_of(PLAIN, tmp_path)
    source = ["--cfg", str(PLAIN), "--weights", str(weights)]
    (tmp_path / "a.names").write_text("cat\ndog\n")
    assert convert.main(["weights", *source, "--out", "a.pt", "--names", "a.names"]) == 0
    assert load_model("a.pt").names == ("cat", "dog")
    assert convert.main(["weights", "--weights", "a.pt", "--out", "b.weights", "--out-cfg", "b.cfg"]) == 0
    assert Path("b.weights").read_bytes() == weights.read_bytes()
    assert Path("b.cfg").read_bytes() == PLAIN.read_bytes()
    assert convert.main(["partial", *source, "--layers", "2"]) == 0
    backbone = Path("conv_basic.conv.2").read_bytes()
    assert weights.read_bytes().startswith(backbone) and len(backbone) < weights.stat().st_size
    assert convert.main(["fold", *source, "--out", "c.weights", "--out-cfg", "c.cfg"]) == 0
    with pytest.raises(InputError, match="--layers 99"):
        convert.main(["partial", *source, "--layers", "99"])
    with pytest.raises(InputError, match="extension"):
        convert.main(["weights", *source, "--out", "a.h5"])


def test_a_missing_package_names_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(InputError, match="pip install safetensors"):
        save_model(load(PLAIN), tmp_path / "a.safetensors")
