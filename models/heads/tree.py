"""A class hierarchy (YOLO9000, arXiv:1612.08242): softmax within each sibling group, products along paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import InputError
from utils.files import read_text


@dataclass(frozen=True)
class Tree:
    """Classes in file order; parents come before their children.

    parents: parent of each class; -1 at the top.
    groups: index of each class's sibling group, from 0.
    levels: classes by depth, starting below the top.
    """

    parents: tuple[int, ...]
    groups: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.parents)

    def softmax(self, values: Tensor, temperature: float = 1.0) -> Tensor:
        """Softmax within each sibling group over the last dimension, of len(self) values (softmax_layer.c softmax_tree)."""
        group = torch.tensor(self.groups, device=values.device).expand_as(values)
        values = values / temperature
        shape = (*values.shape[:-1], self.groups[-1] + 1)
        largest = values.new_zeros(shape).scatter_reduce(-1, group, values, "amax", include_self=False)
        powers = (values - largest.gather(-1, group)).exp()
        sums = values.new_zeros(shape).scatter_add(-1, group, powers)
        return powers / sums.gather(-1, group)

    def absolute(self, values: Tensor) -> Tensor:
        """Absolute probabilities over the last dimension: products along the path from the top (tree.c hierarchy_predictions)."""
        parents = torch.tensor(self.parents, device=values.device)
        values = values.clone()
        for level in self.levels:
            here = torch.tensor(level, device=values.device)
            values[..., here] *= values[..., parents[here]]
        return values

    def path(self, class_ids: Tensor) -> tuple[Tensor, Tensor]:
        """For classes (k,): masks (k, len(self)) of the path from each to the top, and of all sibling groups on that path."""
        device = class_ids.device
        parents, groups = torch.tensor(self.parents, device=device), torch.tensor(self.groups, device=device)
        on_path = torch.zeros(len(class_ids), len(self), dtype=torch.bool, device=device)
        of_groups = torch.zeros_like(on_path)
        here = class_ids
        for _ in range(len(self.levels) + 1):
            climbing = (here >= 0)[:, None]
            at = here.clamp(min=0)
            on_path |= climbing & torch.nn.functional.one_hot(at, len(self)).bool()
            of_groups |= climbing & (groups == groups[at][:, None])
            here = torch.where(here >= 0, parents[at], -1)
        return on_path, of_groups


def read_tree(path: str | Path) -> Tree:
    """Read a tree file: each line is `name parent`, the parent a line number from 0, or -1 at the top (tree.c read_tree).

    Raises InputError for a line that cannot be read, and for a parent that does not come before its child.
    """
    parents: list[int] = []
    groups: list[int] = []
    depths: list[int] = []
    for number, line in enumerate(read_text(path, "class tree").splitlines()):
        parent = _parent(path, number, line)
        if not -1 <= parent < number:
            raise InputError(f"{path}:{number + 1}: parent {parent}, expected -1 or a line before: 0 to {number - 1}")
        last = parents[-1] if parents else -1
        groups.append((groups[-1] if groups else 0) + (parent != last))
        depths.append(0 if parent < 0 else depths[parent] + 1)
        parents.append(parent)
    if not parents:
        raise InputError(f"{path}: is empty, expected `name parent` on each line")
    levels: list[list[int]] = [[] for _ in range(max(depths))]
    for index, depth in enumerate(depths):
        if depth:
            levels[depth - 1].append(index)
    return Tree(tuple(parents), tuple(groups), tuple(map(tuple, levels)))


def _parent(path: str | Path, number: int, line: str) -> int:
    try:
        _, *words = line.split()
        return int(words[0]) if words else -1
    except ValueError:
        raise InputError(f"{path}:{number + 1}: cannot read {line[:40]!r}, expected `name parent`") from None
