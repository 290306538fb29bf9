"""The metadata of an exported model, as key-value pairs of strings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.export.build import OUTPUTS, ExportOptions, Outputs
from models.formats.checkpoint import Description
from models.network import Network
from models.plan import Plan
from utils.documents import parse_json
from utils.errors import InputError

_NOTE = "RGB in [0, 1], planes; resize: bilinear, corners aligned (as Darknet's)"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What an exported model records about itself.

    description: cfg and class names.
    size_wh: input size in pixels; the cfg's if the size is dynamic.
    outputs, batch, dynamic_size: see ExportOptions.
    conf: score threshold of the built-in NMS; None without NMS, or if the file does not record it.
    int8: calibration data and measured quality of an 8-bit model; empty for other models.
    """

    description: Description
    size_wh: tuple[int, int]
    outputs: Outputs
    batch: int | None
    dynamic_size: bool
    letter_box: bool
    conf: float | None = None
    int8: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, options: ExportOptions, names: tuple[str, ...]) -> Metadata:
        plan = network.plan
        return cls(
            description=Description.of(network, names),
            size_wh=plan.input.size_wh,
            outputs=options.outputs,
            batch=options.batch,
            dynamic_size=options.dynamic_size,
            letter_box=plan.net.letter_box,
            conf=options.conf if options.outputs == "nms" else None,
            int8=options.int8.report if options.int8 else {},
        )

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str], place: str) -> Metadata:
        """Inverse of `pairs`. Raises InputError for a model that cspyolo did not write."""
        try:
            settings = parse_json(pairs["settings"], place, "its metadata")
            description = Description.from_text(pairs["darknet"], place)
            (width, height), outputs = settings["size_wh"], settings["outputs"]
            result = cls(
                description=description,
                size_wh=(int(width), int(height)),
                outputs=outputs,
                batch=settings["batch"],
                dynamic_size=bool(settings["dynamic_size"]),
                letter_box=bool(settings["letter_box"]),
                conf=None if settings.get("conf") is None else float(settings["conf"]),
                int8=dict(settings.get("int8", {})),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{place}: does not describe its network, expected a file written by export.py") from None
        if result.batch is not None and (type(result.batch) is not int or result.batch < 1):
            raise InputError(f"{place}: batch {result.batch!r:.80}, expected a whole number above 0")
        if outputs not in OUTPUTS:
            raise InputError(f"{place}: outputs {outputs!r}, expected one of {', '.join(OUTPUTS)}")
        return result

    def pairs(self) -> dict[str, str]:
        """Key-value pairs to store in the model; `names` and `input` are for people and other programs."""
        width, height = self.size_wh
        settings = {
            "size_wh": self.size_wh,
            "outputs": self.outputs,
            "batch": self.batch,
            "dynamic_size": self.dynamic_size,
            "letter_box": self.letter_box,
            "conf": self.conf,
            **({"int8": self.int8} if self.int8 else {}),
        }
        fitted = "kept aspect ratio on a border of 0.5" if self.letter_box else "stretched"
        return {
            "names": json.dumps(self.description.names),
            "input": f"{width}x{height}, {fitted}; {_NOTE}",
            "boxes": "centre x, centre y, width, height relative to the input",
            "settings": json.dumps(settings),
            "darknet": self.description.text(),
        }

    def plan(self, place: str) -> Plan:
        return self.description.plan(place, width=self.size_wh[0], height=self.size_wh[1])
