"""Compiled models on disk: reused, limited in size, and ignored if damaged or not writable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inference import compile_cache
from inference.engine import EngineNetwork
from models.layers.convolutional import Convolutional
from models.network import Network
from models.plan import read_plan
from tests.paths import REFERENCE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cspyolo"


def cut(content: bytes) -> bytes:
    return content[:-1]


def changed(content: bytes) -> bytes:
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


def emptied(content: bytes) -> bytes:
    return b""


def test_read_back(cache: Path) -> None:
    assert compile_cache.read("a") is None
    compile_cache.write("a", b"content")
    assert compile_cache.read("a") == b"content" and [each.name for each in cache.iterdir()] == ["a"]
    compile_cache.remove("a")
    compile_cache.remove("a")
    assert compile_cache.read("a") is None


@pytest.mark.parametrize("damage", [cut, changed, emptied])
def test_damaged_files_are_removed(damage: Callable[[bytes], bytes], cache: Path) -> None:
    compile_cache.write("a", b"content" * 10)
    (cache / "a").write_bytes(damage((cache / "a").read_bytes()))
    assert compile_cache.read("a") is None and not (cache / "a").exists()


def test_least_recently_used_models_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "MOST_BYTES", 1000)
    for time, key in enumerate("abc"):
        compile_cache.write(key, bytes(250))
        os.utime(cache / key, (time, time))
    compile_cache.read("a")
    compile_cache.write("d", bytes(250))
    compile_cache.write("too large", bytes(1001))
    assert sorted(each.name for each in cache.iterdir()) == ["a", "c", "d"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
    compile_cache.write("a", b"content")
    assert compile_cache.read("a") is None


def test_a_relative_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache.folder() == tmp_path / ".cache" / "cspyolo"


def engine(network: Network) -> EngineNetwork:
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    return EngineNetwork(network, "openvino", torch.device("cpu"), required=True, cache=True)


def test_a_compiled_model_is_found_by_its_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(read_plan(REFERENCE / "cfg" / "yolo_basic.cfg")).fold()
    shape = network.plan.input
    images = torch.rand(1, shape.channels, shape.height, shape.width)
    with torch.inference_mode():
        first = engine(network)(images)
        (path,) = cache.iterdir()
        monkeypatch.setattr(EngineNetwork, "_model", lambda self: pytest.fail("compiled again"))
        for one, other in zip(first, engine(network)(images), strict=True):
            assert torch.equal(one, other)
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
        path.write_bytes(path.read_bytes()[:-1])
        assert torch.equal(engine(network)(images)[0], first[0])
        next(each for each in network if isinstance(each, Convolutional)).weights.data[0] += 1.0
        assert not torch.equal(engine(network)(images)[0], first[0])
    assert len(list(cache.iterdir())) == 2


def test_a_stale_model_is_compiled_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of cspyolo that computes a layer differently."""
    network = Network(read_plan(REFERENCE / "cfg" / "yolo_basic.cfg")).fold()
    shape = network.plan.input
    export = Convolutional.export
    monkeypatch.setattr(
        Convolutional, "export", lambda self, graph, *rest: graph.node("Add", export(self, graph, *rest), 0.3)
    )
    engine(network)
    (before,) = [path.read_bytes() for path in cache.iterdir()]
    monkeypatch.setattr(Convolutional, "export", export)
    with torch.inference_mode():
        engine(network)(torch.rand(1, shape.channels, shape.height, shape.width))
    (after,) = [path.read_bytes() for path in cache.iterdir()]
    assert before != after
