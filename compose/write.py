"""From backbone, head and settings to the text of a cfg."""

from __future__ import annotations

from compose.catalog import Model
from compose.net import Net, Section, write_sections
from compose.parts import BACKBONES, HEADS, ORIGINS
from models.plan import make_plan
from models.summary import totals
from utils import cfg
from utils.errors import InputError


def compose_text(name: str, model: Model) -> str:
    """The whole cfg: header comment, [net], layers.

    Raises InputError when a part is unknown, or when backbone and head do not fit.
    """
    for kind, part, known in (("backbone", model.backbone, BACKBONES), ("head", model.head, HEADS)):
        if part not in known:
            raise InputError(f"no {kind} {part!r}, expected one of: {', '.join(known)}")
    backbone, head = BACKBONES[model.backbone], HEADS[model.head]
    net = Net(model.side, model.activation)
    head.build(net, backbone.build(net))
    body = write_sections([Section("net", model.training(model.side)), *net.layers])
    sums = totals(make_plan(cfg.parse(body, f"{name}.cfg")))
    activation = "" if model.activation == "leaky" else f", {model.activation}"
    header = [
        f"{backbone.title} + {head.title}{activation}, {model.side}x{model.side}",
        f"Backbone: {ORIGINS[backbone.origin]}.",
        f"Head: {ORIGINS[head.origin]}.",
        f"{sums['conv_weights'] / 1e6:.4f} M convolution weights ({sums['params'] / 1e6:.4f} M stored values), "
        f"{sums['bflops_paper']:.4f} BFLOPs",
        "counted as CSPNet's tables do: convolutions and pooling.",
    ]
    return "".join(f"# {line}\n" for line in header) + "\n" + body
