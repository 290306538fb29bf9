"""The committed cfgs equal the composer's output, match the printed counts, train, and survive saving and loading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from compose.backbones.densenet import ELASTIC_LAYERS
from compose.catalog import MODELS, compose_text
from compose.published import AUTHORS_CFG, BARS, PUBLISHED_CFGS, TABLES, UNIT, Row
from compose.report import LABELS, OUT, bflops, figure_layers, is_maxout, report
from models.load import load
from models.plan import read_plan
from models.published import PUBLISHED
from models.summary import totals
from models.weights import load_weights, save_weights
from tests.paths import REPOSITORY, shared

CFG = REPOSITORY / "cfg"
SMALL_SIDE = 64
SMALL = 0.0004 / UNIT
"""Bars in Figure 7 below this height are invisible."""
READING_ERROR = 0.0011
"""BFLOPs by which measured bars of Figure 7 differ from the known layers of PeleeNet-PRN."""
LARGEST = {"peleenet-yolov3-tiny": 45, "peleenet-prn": 16, "csppeleenet-efm-plain": 9}
"""The highest bar of each network in Figure 7, in UNITs."""
NOTES = "\n".join(row.note for table in TABLES for row in table.rows)
AUTHORS_CFGS = re.findall(rf"^{AUTHORS_CFG}(.+?): ([\d.]+)", NOTES, re.MULTILINE)
ROWS = [pytest.param(row, id=f"{row.label} {row.side}") for table in TABLES for row in table.rows if row.model]


def test_catalog_and_folder_hold_the_same_models() -> None:
    assert {path.stem for path in CFG.glob("*.cfg")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_file_is_what_the_composer_writes(name: str) -> None:
    assert (CFG / f"{name}.cfg").read_text("utf-8") == compose_text(name, MODELS[name])


@pytest.mark.parametrize("row", ROWS)
def test_counts_match_the_printed_ones(row: Row) -> None:
    sums = totals(read_plan(CFG / f"{row.model}.cfg", width=row.side, height=row.side))
    if row.parameters:
        assert row.parameters.agrees(sums["conv_weights" if row.counted == "weights" else "params"] / 1e6)
    if row.bflops:
        assert row.bflops.agrees(sums["bflops_paper"])
    apart = [printed for printed in (row.parameters, row.bflops) if printed and printed.reach != "digits"]
    assert row.note or not apart, "a count that does not meet the printed digits needs a note"


def test_every_printed_row_has_a_status_that_its_note_supports() -> None:
    for table in TABLES:
        for row in table.rows:
            printed = [number for number in (row.parameters, row.bflops) if number]
            assert row.status != "no count" or not printed
            assert row.status != "contradicted" or re.search(r"\d", row.note), f"{row.label}: a note without arithmetic"
            assert row.status != "quoted" or not any(each.model for each in table.rows), (
                f"{row.label}: has a place here"
            )


@pytest.mark.parametrize(("name", "bflops"), AUTHORS_CFGS)
def test_counts_of_published_cfgs_without_one_here(name: str, bflops: str) -> None:
    path = shared(f"zoo/csp/{name}.cfg")
    (printed,) = (
        row.bflops for table in TABLES for row in table.rows if row.note.startswith(f"{AUTHORS_CFG}{name}: {bflops}")
    )
    count = totals(read_plan(path))["bflops_paper"]
    assert printed is not None and printed.agrees(count) and f"{count:.3f}" == bflops


def test_layer_numbers_match_figure_7() -> None:
    """The bars are layers 0 to 150; the cost of each layer matches its bar within the reading error."""
    layers = figure_layers(read_plan(CFG / "csppeleenet-efm-plain.cfg"))
    assert len(layers) == max(BARS) + 1
    for number, measured in BARS.items():
        ours = bflops(layers[number])
        assert ours == pytest.approx(measured * UNIT, abs=SMALL * UNIT if not measured else READING_ERROR), number


@pytest.mark.parametrize("name", LARGEST)
def test_largest_layer_of_figure_7(name: str) -> None:
    assert max(map(bflops, figure_layers(read_plan(CFG / f"{name}.cfg")))) == pytest.approx(LARGEST[name] * UNIT)


def test_maxout_of_one_channel_in_four_saves_75_percent() -> None:
    """The claim in CSPNet's introduction, for the maps that EFM compresses."""
    steps = [step for step in read_plan(CFG / "csppeleenet-efm-plain.cfg").steps if is_maxout(step)]
    kept = [step.reported_shape.channels / step.site.input.channels for step in steps]
    assert sorted(kept) == [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 2]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("vovnet27-slim", 2.176),
        ("vovnet39", 7.071),
        ("vovnet57", 8.929),
        ("vovnet27-slim-caffe", 2.870),
        ("vovnet39-caffe", 7.765),
        ("vovnet57-caffe", 9.623),
    ],
)
def test_multiply_adds_of_both_vovnet_forms(name: str, billions: float) -> None:
    """Backbone convolutions at 224, as counted in the two public implementations."""
    layers = [step for step in read_plan(CFG / f"{name}.cfg").steps if step.section.names[0] == "convolutional"]
    assert round(sum(map(bflops, layers[:-1])) / 2, 3) == billions


@pytest.mark.parametrize(
    ("name", "key", "millions"),
    [
        ("resnext50", "cio", 34.4),
        ("csresnext50", "cio", 32.6),
        ("densenet40", "mac", 3.7),
        ("densenet40-osa", "mac", 2.5),
    ],
)
def test_memory_traffic_as_printed(name: str, key: str, millions: float) -> None:
    assert round(totals(read_plan(CFG / f"{name}.cfg"))[key] / 1e6, 1) == millions


def test_elastic_as_its_authors_count() -> None:
    """DenseNet-201-Elastic as printed in Table 3: all parameters, and operations including batch norm, ReLU and pooling.

    In the authors' network, batch norm precedes the convolutions: one for both paths of a layer, one inside each path.
    """
    plan = read_plan(CFG / "densenet201-elastic.cfg")
    convolutions = sum(bflops(step) for step in plan.steps if step.section.names[0] == "convolutional")
    channels, normalised, elements, pooled = 64, 64, 64 * 112**2, 64 * 112**2
    for layers, side in zip(ELASTIC_LAYERS, (56, 28, 14, 7), strict=True):
        coarse = side // 2 if side > 7 else side
        for _ in range(layers):
            normalised += channels + 2 * 64
            elements += channels * side**2 + 64 * (side**2 + coarse**2)
            pooled += channels * side**2 if side > 7 else 0
            channels += 32
        normalised += channels
        if side > 7:
            elements += channels * side**2
            channels //= 2
            pooled += channels * side**2
    last = channels * 7**2  # normalised and rectified, but by a function that the program does not count
    parameters = totals(plan)["conv_weights"] + 1000 + 2 * normalised
    operations = convolutions / 2 + (2 * (elements + last) + elements + pooled) / 1e9
    assert parameters == 19_482_824
    assert f"{parameters / 1e6:.2f}" == "19.48" and f"{2 * operations:.2f}" == "8.77"


@pytest.mark.parametrize(("name", "millions"), [("res2net50", "25.70"), ("res2next50", "24.67")])
def test_res2net_with_batch_norm_as_its_authors_list_it(name: str, millions: str) -> None:
    """Weights, a scale and a bias per convolution's output, and the biases of the classifier."""
    sums, classes = totals(read_plan(CFG / f"{name}.cfg")), 1000
    normalisation = (sums["params"] - sums["conv_weights"] - classes) / 2  # mean and variance are not parameters
    assert f"{(sums['conv_weights'] + normalisation + classes) / 1e6:.2f}" == millions


@pytest.mark.parametrize("name", MODELS)
def test_trains_saves_and_reloads(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = load(CFG / f"{name}.cfg", width=SMALL_SIDE, height=SMALL_SIDE).train()
    images = torch.rand(2, 3, SMALL_SIDE, SMALL_SIDE)
    inputs = [tensor for group in network.head_inputs(images) for tensor in group]
    sum(tensor.square().mean() for tensor in inputs).backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    save_weights(network, tmp_path / "saved.weights")
    saved = [item.tensor.detach().clone() for _, item in network.stored()]
    with torch.no_grad():
        for _, item in network.stored():
            item.tensor.zero_()
    load_weights(network, tmp_path / "saved.weights")
    (tmp_path / "saved.weights").unlink()
    assert all(item.tensor.equal(tensor) for (_, item), tensor in zip(network.stored(), saved, strict=True))


def test_page_of_models_is_current() -> None:
    assert OUT.read_text("utf-8") == report()


def test_arithmetic_on_the_page_is_right() -> None:
    """The sums, differences and quotients with which claims and contradictions are argued."""
    found = re.findall(r"([\d.]+) ([-+/]) ([\d.]+) = ([\d.]*\d)", OUT.read_text("utf-8"))
    assert len(found) > 15
    for left, sign, right, result in found:
        a, b = float(left), float(right)
        value = a / b if sign == "/" else a + b if sign == "+" else a - b
        decimals = len(result.partition(".")[2])
        assert abs(value - float(result)) <= 0.5 * 10**-decimals + 1e-9, f"{left} {sign} {right} = {result}"


def test_page_says_whose_table_each_model_is() -> None:
    lines = OUT.read_text("utf-8").splitlines()
    for name in MODELS:
        row = next(line for line in lines if line.startswith(f"| [{name}]("))
        assert row.split(" | ")[-1].split(";")[0].removesuffix(" |") in LABELS.values()


def test_page_names_the_weights_that_can_be_fetched() -> None:
    """The page lists what `convert.py fetch` lists for cfgs with a published twin, and nothing else."""
    page = OUT.read_text("utf-8")
    for _, cfg in PUBLISHED_CFGS.values():
        names = [row.name for row in PUBLISHED if row.cfg == f"{cfg}.cfg"]
        assert any(f"`python convert.py fetch {name}`" in page for name in names) == bool(names)
