"""Networks through every file format and back, byte for byte; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import convert
from models.formats.files import LoadOptions, load_model, save_model
from models.formats.fuse import without_batch_norm
from models.load import load
from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE
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


def test_text_of_a_cfg_that_is_no_utf8_survives(tmp_path: Path) -> None:
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


def test_a_run_s_checkpoint_with_and_without_its_average(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="no average"):
        load_model(tmp_path / "last.pt", LoadOptions(ema=True))


def _pytorch_state(network: Network) -> dict[str, torch.Tensor]:
    """As programs that build nn.Conv2d and nn.BatchNorm2d from a cfg would save it."""
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


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("harm", "w"))  # type: ignore[return-value]


def test_nothing_is_executed_without_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harm()}, "evil.pt")
    for cfg in (None, PLAIN):
        with pytest.raises(InputError, match="cannot be loaded safely"):
            load_model("evil.pt", LoadOptions(cfg=cfg))
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.weights": torch.zeros(3)}, "has shape"),
        ({"layers.0.weights": torch.zeros(1, dtype=torch.int64)}, "expected a tensor of floats"),
        ({"layers.99.weights": torch.zeros(3)}, "none of the network's"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    network = load(PLAIN)
    save_model(network, tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save(content | {"model": content["model"] | change}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "a.pt")


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
