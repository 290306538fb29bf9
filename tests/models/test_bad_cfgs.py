"""Impossible cfgs: each gives one error with file, line and what was expected, before anything is allocated."""

from __future__ import annotations

import tracemalloc

import pytest

from models.plan import MAX_LAYERS, make_plan
from utils import cfg
from utils.errors import CfgError, InputError

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
YOLO = "[yolo]\nmask=0,1\nanchors=4,4, 8,8\nnum=2\nclasses=3\n"

CASES: list[tuple[str, str, str]] = [
    ("no layers", NET, "a.cfg: has no layers after [net]"),
    ("first section is a layer", CONV, "a.cfg:1: [convolutional] expected [net]"),
    ("second net", NET + NET, "a.cfg:5: [net] unknown section; [net] can only be the first section"),
    ("unknown section", NET + "[convolutionel]\n", "a.cfg:5: [convolutionel] unknown section"),
    ("sections are case sensitive", NET + "[Convolutional]\n", "unknown section"),
    ("no input", "[net]\nbatch=1\n" + CONV, "a.cfg:1: [net] expected width, height and channels"),
    ("no channels", "[net]\nwidth=8\nheight=8\n" + CONV, "expected width, height and channels"),
    ("negative width", "[net]\nwidth=-8\n" + CONV, "a.cfg:2: [net] width: -8 is out of range"),
    ("width is a word", "[net]\nwidth=wide\n" + CONV, "width: cannot read 'wide', expected a whole number"),
    ("huge input", "[net]\nwidth=100000\nheight=100000\nchannels=3\n" + CONV, "is too large"),
    ("no subdivisions", NET + "subdivisions=0\n" + CONV, "a.cfg:5: [net] subdivisions: 0 is out of range"),
    (
        "filters is a word",
        NET + "[convolutional]\nfilters=three\n",
        "a.cfg:6: [convolutional] filters: cannot read 'three'",
    ),
    ("zero filters", NET + "[convolutional]\nfilters=0\n", "filters: 0 is out of range, expected at least 1"),
    ("negative filters", NET + "[convolutional]\nfilters=-4\n", "filters: -4 is out of range"),
    ("huge filters", NET + "[convolutional]\nfilters=2147483647\n", "is too large"),
    ("filters beyond 32 bits", NET + "[convolutional]\nfilters=4294967297\n", "expected a 32-bit whole number"),
    (
        "65536 filters at 65536x65536",
        "[net]\nwidth=65536\nheight=65536\nchannels=1\n[convolutional]\nfilters=65536\n",
        "is too large",
    ),
    ("too many weights", NET + CONV.replace("8", "40000") * 2, "is too large"),
    ("zero size", NET + "[convolutional]\nsize=0\n", "size: 0 is out of range"),
    ("kernel larger than the input", NET + "[convolutional]\nsize=64\n", "input is too small or a size is wrong"),
    ("zero stride", NET + "[convolutional]\nstride=0\n", "stride: 0 is out of range"),
    ("negative padding", NET + "[convolutional]\npadding=-1\n", "padding: -1 is out of range"),
    ("groups that do not divide", NET + CONV + "groups=2\n", "groups=2 does not divide 3 input channels"),
    ("groups that do not divide the filters", NET + CONV + "groups=3\n", "groups=3 does not divide"),
    ("comma for a point", NET + CONV + YOLO + "ignore_thresh=0,7\n", "ignore_thresh: cannot read '0,7'"),
    ("route without layers", NET + CONV + "[route]\n", "a.cfg:10: [route]"),
    (
        "route to itself",
        NET + CONV + "[route]\nlayers=1\n",
        "reads layer 1, expected an earlier layer; this is layer 1",
    ),
    ("route to itself by zero", NET + CONV + "[route]\nlayers=-0,1\n", "expected an earlier layer"),
    ("route to the future", NET + CONV + "[route]\nlayers=5\n", "reads layer 5"),
    ("route before the first", NET + CONV + "[route]\nlayers=-9\n", "reads layer -8"),
    ("route with a word", NET + CONV + "[route]\nlayers=-1,x\n", "layers: cannot read 'x'"),
    (
        "route of different sizes",
        NET + CONV + "[maxpool]\nsize=2\nstride=2\n[route]\nlayers=0,1\n",
        "a.cfg:14: [route] layer 1 has size 16x16x8",
    ),
    ("route groups", NET + CONV + "[route]\nlayers=-1\ngroups=3\n", "[route]"),
    ("route group out of range", NET + CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "[route]"),
    ("shortcut without from", NET + CONV + "[shortcut]\n", "a.cfg:10: [shortcut] from is missing"),
    ("shortcut out of range", NET + CONV + "[shortcut]\nfrom=-7\n", "[shortcut]"),
    ("shortcut to the future", NET + CONV + "[shortcut]\nfrom=3\n", "[shortcut]"),
    ("shortcut weights", NET + CONV * 2 + "[shortcut]\nfrom=-2\nweights_type=per_layer\n", "weights_normalization"),
    ("scale_channels without from", NET + CONV + "[scale_channels]\n", "[scale_channels]"),
    ("sam of another size", NET + CONV + "[maxpool]\nsize=2\nstride=2\n[sam]\nfrom=-2\n", "[sam]"),
    ("share with a later layer", NET + CONV + "share_index=4\n", "[convolutional]"),
    ("share of another size", NET + CONV + CONV.replace("3", "1") + "share_index=0\n", "[convolutional]"),
    ("zero pool stride", NET + "[maxpool]\nsize=2\nstride=0\n", "stride: 0 is out of range"),
    ("zero upsample", NET + CONV + "[upsample]\nstride=0\n", "[upsample]"),
    ("huge upsample", NET + CONV + "[upsample]\nstride=60000\n", "is too large"),
    ("reorg of an odd size", "[net]\nwidth=7\nheight=7\nchannels=4\n[reorg3d]\nstride=2\n", "[reorg3d]"),
    ("zero outputs", NET + "[connected]\noutput=0\n", "output: 0 is out of range"),
    ("huge connected", NET + "[connected]\noutput=2000000000\n", "is too large"),
    ("yolo with wrong filters", NET + CONV + YOLO, "a.cfg:10: [yolo]"),
    ("yolo with a mask out of range", NET + CONV + YOLO.replace("0,1", "0,7"), "[yolo]"),
    ("yolo without classes", NET + CONV + YOLO.replace("classes=3", "classes=0"), "classes: 0 is out of range"),
    ("yolo with a loss that is none", NET + CONV + YOLO + "iou_loss=eiou\n", "iou_loss: unknown value 'eiou'"),
    ("region with wrong filters", NET + CONV + "[region]\nclasses=4\nnum=2\n", "[region]"),
    ("detection of another size", NET + "[connected]\noutput=10\n[detection]\nside=2\nclasses=3\n", "[detection]"),
    ("softmax groups", NET + "[connected]\noutput=10\n[softmax]\ngroups=3\n", "[softmax]"),
    ("crop larger than the input", NET + "[crop]\ncrop_width=64\ncrop_height=64\n", "[crop]"),
    ("dropout of everything", NET + CONV + "[dropout]\nprobability=1.5\n", "[dropout]"),
    ("too many layers", NET + "[empty]\n" * (MAX_LAYERS + 1), f"expected at most {MAX_LAYERS}"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_clear_error(text: str, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(CfgError) as caught:
        make_plan(cfg.parse(text, "a.cfg"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(caught.value)
    assert str(caught.value).startswith("a.cfg:")
    assert peak < 200 * (len(text) + 50_000), "nothing large is made for a cfg that is refused"


ODD = {
    "an unknown policy is a constant rate": (NET + "policy=linear\n" + CONV, "32x32x8", 8 * 3 * 9 + 8),
    "zero groups count as one": (NET + CONV + "groups=0\n", "32x32x8", 8 * 3 * 9 + 8),
    "a tree is read when it is needed": (NET + "[connected]\noutput=10\n[softmax]\ntree=missing.tree\n", "1x1x10", 0),
    "a convolution of a vector": (NET + "[connected]\noutput=10\n" + CONV, "1x1x8", 8 * 10 * 9 + 8),
}


@pytest.mark.parametrize(("text", "shape", "parameters"), ODD.values(), ids=ODD)
def test_odd_but_possible(text: str, shape: str, parameters: int) -> None:
    last = make_plan(cfg.parse(text, "a.cfg")).steps[-1]
    assert str(last.shape) == shape and last.cost.parameters == parameters


def test_a_size_that_does_not_fit_is_named() -> None:
    reorg = cfg.parse("[net]\nwidth=8\nheight=8\nchannels=4\n[reorg3d]\nstride=2\n", "a.cfg")
    with pytest.raises(
        InputError, match=r"a.cfg:6: \[reorg3d\].*requested, 7x8, the cfg's own is 8x8; most .* multiples of 32"
    ):
        make_plan(reorg, width=7)
    with pytest.raises(InputError, match="height: 0 is out of range"):
        make_plan(reorg, height=0)
