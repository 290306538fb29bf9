"""From a catalog entry to the text of its cfg."""

from __future__ import annotations

from compose.catalog import BACKBONES, HEADS, ORIGINS, Model
from compose.net import Net, Section, write_sections


def compose_text(model: Model) -> str:
    """The whole cfg: header comment, [net], layers. Raises InputError when backbone and head do not fit."""
    backbone, head = BACKBONES[model.backbone], HEADS[model.head]
    net = Net(model.side)
    head.build(net, backbone.build(net))
    settings = Section("net", model.training(model.side))
    header = [
        f"{backbone.title} + {head.title}, {model.side}x{model.side}",
        f"Backbone: {ORIGINS[backbone.origin]}.",
        f"Head: {ORIGINS[head.origin]}.",
    ]
    return "".join(f"# {line}\n" for line in header) + "\n" + write_sections([settings, *net.layers])
