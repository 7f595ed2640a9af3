"""The cache of synthetic inputs: round trip, keys, damage, a folder that cannot be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import net, write_external

from onnxfold.calibration.origin import Origin
from onnxfold.calibration.synthetic import cache
from onnxfold.calibration.synthetic.synthesize import Synthetic
from onnxfold.model.model import load

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y/z": np.ones((2, 1), np.int64)}
MADE = Synthetic(FEEDS, Origin.PICTURES, 0.5, 1.5, (3.0, 2.0), "note")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_round_trip() -> None:
    assert cache.load("k") is None
    cache.save("k", MADE)
    found = cache.load("k")
    assert found is not None
    assert (found.origin, found.match, found.seconds, found.losses, found.note) == (
        Origin.PICTURES,
        0.5,
        1.5,
        (3.0, 2.0),
        "note",
    )
    assert found.feeds.keys() == MADE.feeds.keys()
    for name, x in MADE.feeds.items():
        np.testing.assert_array_equal(found.feeds[name], x)
        assert found.feeds[name].dtype == x.dtype
    assert [p.name for p in cache.folder().iterdir()] == ["k.npz"]  # no temporary file is left


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY", b"text"])
def test_a_damaged_entry_is_ignored(content: bytes) -> None:
    cache.save("k", MADE)
    (cache.folder() / "k.npz").write_bytes(content)
    assert cache.load("k") is None
    cache.save("k", MADE)
    assert cache.load("k") is not None


def test_a_truncated_or_foreign_entry_is_ignored() -> None:
    cache.save("k", MADE)
    path = cache.folder() / "k.npz"
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert cache.load("k") is None
    np.savez(path, other=np.zeros(3))
    assert cache.load("k") is None
    np.savez(path, __onnxfold__=np.array([{}], object))
    assert cache.load("k") is None  # no pickles


def test_keys_depend_on_weights_and_settings(tmp_path: Path) -> None:
    model = load(net())
    assert cache.key(model, {"seed": 0}) == cache.key(load(net()), {"seed": 0})
    assert cache.key(model, {"seed": 0}) != cache.key(model, {"seed": 1})
    assert cache.key(model, {"seed": 0}) != cache.key(load(net(seed=1)), {"seed": 0})
    outside = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        outside.append(load(write_external(tmp_path / str(seed) / "m.onnx", net(seed=seed))))
    assert cache.key(outside[0], {}) != cache.key(outside[1], {})


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.save("k", MADE)
    assert cache.load("k") is None


def test_a_relative_cache_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == Path.home() / ".cache" / "onnxfold"
