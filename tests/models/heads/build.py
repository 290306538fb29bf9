"""Builds heads for tests directly from the text of a cfg section."""

from __future__ import annotations

from models.heads.base import Head
from models.plan import make_plan
from utils.cfg import parse


def build_head(text: str, channels: int, width: int = 4, height: int = 3, path: str = "<cfg>") -> Head:
    """Build the head of the section `text`, for an input of the given shape."""
    net = f"[net]\nwidth={width}\nheight={height}\nchannels={channels}\n"
    step = make_plan(parse(net + text, path)).steps[0]
    head = step.section.build(step.site)
    assert isinstance(head, Head)
    return head
