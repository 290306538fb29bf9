"""What a file says of the network in it, so that the file alone is enough to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from models.network import Network
from models.plan import Plan, make_plan
from utils import cfg as cfg_text
from utils.errors import InputError

FORMAT = "cspyolo model 1"


@dataclass(frozen=True, kw_only=True)
class Description:
    """cfg: its text. names: class names, empty when unknown. seen, version: of the weights file's header."""

    cfg: str
    names: tuple[str, ...] = ()
    seen: int = 0
    version: tuple[int, int, int] = (0, 2, 5)

    @classmethod
    def of(cls, network: Network, names: tuple[str, ...] = ()) -> Description:
        return cls(cfg=network.plan.cfg.text, names=names, seen=network.seen, version=network.version)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], place: str) -> Description:
        """From what a file holds. Raises InputError when something is missing or of another kind."""
        cfg, names, seen, version = (values.get(key) for key in ("cfg", "names", "seen", "version"))
        fits = isinstance(cfg, str) and isinstance(seen, int) and isinstance(names, list | tuple)
        if not fits or not isinstance(version, list | tuple) or [type(each) for each in version] != [int] * 3:
            raise InputError(f"{place}: expected cfg, names, seen and version of the network in it")
        assert isinstance(cfg, str) and isinstance(seen, int) and names is not None
        major, minor, revision = version
        return cls(cfg=cfg, names=tuple(map(str, names)), seen=seen, version=(major, minor, revision))

    @classmethod
    def from_text(cls, text: str, place: str) -> Description:
        """The reverse of `text`. Raises InputError."""
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise InputError(f"{place}: the description of the network cannot be read")
        return cls.from_plain(values, place)

    def plain(self) -> dict[str, Any]:
        return {"cfg": self.cfg, "names": list(self.names), "seen": self.seen, "version": list(self.version)}

    def text(self) -> str:
        """As one line of ASCII; bytes of the cfg that are no UTF-8 survive it."""
        return json.dumps(self.plain())

    def plan(self, place: str, *, width: int | None = None, height: int | None = None) -> Plan:
        """The plan of the cfg inside, at another input size if given. Raises InputError."""
        return make_plan(cfg_text.parse(self.cfg, f"{place} (its cfg)"), width=width, height=height)


class Described(NamedTuple):
    """A network as a file holds it: what it is, and its tensors by name."""

    description: Description
    state: dict[str, Tensor]
