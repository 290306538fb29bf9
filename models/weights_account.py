"""Works out whether a weights file fits a network and, if not, what it may be."""

from __future__ import annotations

from pathlib import Path

from models.plan import Plan

Layout = list[tuple[int, int, bool]]  # (layer index, floats in the file, whether they are wanted)

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"version https://git", "a Git LFS pointer; run `git lfs pull`"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
)


def sniff(start: bytes, path: Path) -> str | None:
    """Guess from its first bytes what a file is; None if it may be a weights file."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML page (a download or quota page; download the file itself)"
    if text.startswith((b"[net]", b"[network]", b"#")):
        return "the text of a cfg (are cfg and weights swapped?)"
    if len(start) > 8 and start[8:9] == b"{" and start[:8] != bytes(8):
        return "a safetensors file"
    for signature, name in _SIGNATURES:
        if start.startswith(signature):
            return name
    return "empty" if not start else None


def file_layout(plan: Plan, sizes: dict[int, int], size: int, *, strict: bool, cutoff: int | None) -> Layout | None:
    """Divide the `size` bytes after the header among the layers; None if they do not fit.

    sizes: floats that each layer needs.
    strict: the file must fit exactly. Otherwise, take every layer that does not depend on the number of classes if the size
        is right for another number, else as many of the first layers as are complete.
    cutoff: number of layers to read; None: all.
    """
    exact = [(index, floats, True) for index, floats in sizes.items()]
    needed = 4 * sum(sizes.values())
    if size == needed or (cutoff is not None and size > needed):
        return exact
    if strict or size % 4:
        return None
    classes = other_classes(plan, sizes, size)
    if classes is not None:
        changed = _floats_with_classes(plan, sizes, classes)
        return [(index, changed[index], changed[index] == floats) for index, floats in sizes.items()]
    layout, left = [], size // 4
    for index, floats in sizes.items():
        if floats > left:
            break
        layout.append((index, floats, True))
        left -= floats
    heads = head_inputs(plan)
    while left and layout and layout[-1][0] in heads:  # the rest belongs to another network, and this layer may too
        layout.pop()
    return layout or None


def describe_mismatch(plan: Plan, sizes: dict[int, int], size: int) -> str:
    """Explain a mismatch: what is needed, what was found, where they diverge, and what the file may be."""
    needed, found = sum(sizes.values()), size // 4
    text = f"has {found:,} weights, {plan.cfg.path} needs {needed:,}"
    if size % 4:
        return f"{text}; the file ends in the middle of a number; it is truncated or not a weights file"
    classes = other_classes(plan, sizes, size)
    if classes is not None:
        made_for = f"{classes} class{'es' * (classes != 1)}"
        return f"{text}: it looks like this network for {made_for}; partial loading (--partial) loads all but its heads"
    if found > needed:
        return f"{text}: {4 * (found - needed):,} bytes are left over after the last layer; it belongs to a different network"
    left = found
    for index, floats in sizes.items():
        if floats > left:
            place = f"layer {index} [{plan.steps[index].raw.name}] ({plan.cfg.path}:{plan.steps[index].raw.line})"
            if left == 0 and found:
                return (
                    f"{text}: it ends before {place}; it looks like a backbone (.conv.{index}), load it with --partial"
                )
            return f"{text}: it ends within {place}; it is truncated or belongs to another network"
        left -= floats
    return text


def other_classes(plan: Plan, sizes: dict[int, int], size: int) -> int | None:
    """The number of classes, other than the cfg's, for which a file of `size` bytes would be right."""
    per_class = _floats_per_class(plan)
    classes = _classes(plan)
    growth = sum(per_class.get(index, 0) for index in sizes)
    missing = size // 4 - sum(sizes.values())
    if not growth or classes is None or missing == 0 or missing % growth:
        return None
    result = classes + missing // growth
    return result if 1 <= result <= 100_000 else None


def head_inputs(plan: Plan) -> set[int]:
    """Indices of the layers whose width depends on the classes or anchors of the next head."""
    return set(_floats_per_class(plan))


def _floats_per_class(plan: Plan) -> dict[int, int]:
    """Floats that one more class adds to the layer before each head."""
    result: dict[int, int] = {}
    for step in plan.steps:
        channels = step.section.channels_per_class
        if channels and step.sources[0] >= 0:
            feeder = plan.steps[step.sources[0]]
            result[feeder.index] = channels * (feeder.cost.parameters // feeder.shape.channels)
    return result


def _floats_with_classes(plan: Plan, sizes: dict[int, int], classes: int) -> dict[int, int]:
    own = _classes(plan)
    assert own is not None
    growth = _floats_per_class(plan)
    return {index: floats + growth.get(index, 0) * (classes - own) for index, floats in sizes.items()}


def _classes(plan: Plan) -> int | None:
    """The number of classes, if all heads agree on it."""
    found = {step.section.classes for step in plan.steps if step.section.channels_per_class}  # type: ignore[attr-defined]
    return found.pop() if len(found) == 1 else None
