"""The cache of synthetic inputs: round trip, keys, and entries that are not as they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import net, write_external

from onnxfold.calibration.origin import Origin
from onnxfold.calibration.synthetic import cache, cache_folder
from onnxfold.calibration.synthetic.synthesize import Synthetic
from onnxfold.model.model import load

FEEDS = {
    "x": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "y/z": np.ones((2, 1), np.int64),
    "none": np.zeros((0, 4), np.float16), "words": np.array(["a", "bc"]), "flag": np.array(True),
}  # fmt: skip
MADE = Synthetic(FEEDS, Origin.PICTURES, 0.5, 1.5, (3.0, 2.0), "note", True)
NAME, OTHER = "0123456789abcdef" * 4, "f" * 64


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """The file of the entry that there is."""
    cache.save(NAME, MADE)
    return tmp_path / "cache" / "onnxfold" / f"{NAME}.npz"


def is_made(found: Synthetic | None) -> bool:
    """Whether it is `MADE`, to the last bit and type."""
    if found is None or replace(found, feeds={}) != replace(MADE, feeds={}):
        return False
    assert list(found.feeds) == list(FEEDS)
    for name, x in FEEDS.items():
        np.testing.assert_array_equal(found.feeds[name], x, strict=True)
    return True


def test_round_trip(entry: Path) -> None:
    assert is_made(cache.load(NAME)) and cache.holds(NAME)
    assert cache.load(OTHER) is None and not cache.holds(OTHER)
    assert list(entry.parent.iterdir()) == [entry]  # no temporary file is left


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY", b"text", b"\x80\x04N."])
def test_a_damaged_entry_is_ignored_and_replaced(entry: Path, content: bytes) -> None:
    entry.write_bytes(content)
    assert cache.load(NAME) is None
    cache.save(NAME, MADE)
    assert is_made(cache.load(NAME))


def test_a_truncated_entry_is_ignored(entry: Path) -> None:
    whole = entry.read_bytes()
    for length in range(0, len(whole), 23):
        entry.write_bytes(whole[:length])
        assert cache.load(NAME) is None


def test_a_changed_byte_changes_no_inputs(entry: Path) -> None:
    """Some bytes of an archive mean nothing (times, say)."""
    whole, ignored = entry.read_bytes(), 0
    for place in range(0, len(whole), 7):
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found = cache.load(NAME)
        ignored += found is None
        assert found is None or is_made(found), place
    assert ignored > len(whole) // 7 // 4


def test_an_entry_under_another_name_is_ignored(entry: Path) -> None:
    entry.rename(entry.with_name(f"{OTHER}.npz"))
    assert cache.load(OTHER) is None and cache.holds(OTHER)


def rewritten(entry: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """The entry, with other facts and arrays in it."""
    with np.load(entry) as archive:
        arrays = dict(archive)
    facts = json.loads(str(arrays.pop("__onnxfold__")))
    change(facts, arrays)
    np.savez(entry, **arrays, __onnxfold__=np.array(json.dumps(facts)))


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "another value": lambda _, x: x.update(x0=x["x0"] + 1),
    "another shape": lambda _, x: x.update(x0=x["x0"].reshape(3, 2)),
    "another type": lambda _, x: x.update(x1=x["x1"].astype(np.int32)),
    "swapped": lambda _, x: x.update(x0=x["x1"], x1=x["x0"]),
    "one array less": lambda _, x: x.pop("x1"),
    "one array more": lambda _, x: x.update(x9=x["x1"]),
    "another format": lambda facts, _: facts.update(format=2),
    "no format": lambda facts, _: facts.pop("format"),
    "another fact": lambda facts, _: facts.update(more=1),
    "another note": lambda facts, _: facts.update(note="x"),
    "other inputs": lambda facts, _: facts.update(inputs=["x", "y", "a", "b", "c"]),
    "no checksum": lambda facts, _: facts.update(checksum=""),
}


@pytest.mark.parametrize("how", CHANGES)
def test_an_entry_that_was_changed_is_ignored(entry: Path, how: str) -> None:
    rewritten(entry, lambda *_: None)
    assert is_made(cache.load(NAME))  # the control
    rewritten(entry, CHANGES[how])  # type: ignore[arg-type]
    assert cache.load(NAME) is None


FORGED: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "a list for a text": lambda facts, _: facts.update(note=[]),
    "a list for an origin": lambda facts, _: facts.update(origin=["own"]),
    "an unknown origin": lambda facts, _: facts.update(origin="dreams"),
    "a text for a number": lambda facts, _: facts.update(seconds="1"),
    "no number": lambda facts, _: facts.update(match=float("nan")),
    "an infinite loss": lambda facts, _: facts.update(losses=[float("inf")]),
    "a number for a flag": lambda facts, _: facts.update(apart=0),
    "one input twice": lambda facts, _: facts.update(inputs=["x", "x", "a", "b", "c"]),
    "a mapping for a list": lambda facts, _: facts.update(shapes={}),
    "a truth for a format": lambda facts, _: facts.update(format=True),
    "another name": lambda facts, _: facts.update(name=OTHER),
    "NaN": lambda _, x: x.update(x0=np.full((2, 3), np.nan, np.float32)),
    "bytes": lambda facts, x: (x.update(x1=x["x1"].view("V8")), facts["types"].__setitem__(1, "|V8")),
}


@pytest.mark.parametrize("how", FORGED)
def test_an_entry_that_makes_no_sense_is_ignored_whatever_its_checksum(entry: Path, how: str) -> None:
    from onnxfold.calibration.synthetic.cache_entry import _checksum

    def forge(facts: dict[str, Any], arrays: dict[str, Any]) -> None:
        FORGED[how](facts, arrays)
        facts.pop("checksum")
        facts["checksum"] = _checksum(facts, arrays)

    rewritten(entry, forge)
    assert cache.load(NAME) is None


def test_pickles_are_not_loaded(entry: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    rewritten(entry, lambda _, x: x.update(x0=np.array([Harmful()], object)))
    assert cache.load(NAME) is None
    np.savez(entry, __onnxfold__=np.array([Harmful()], object))
    assert cache.load(NAME) is None and not (tmp_path / "harm").exists()


def test_an_entry_that_unpacks_to_more_than_memory_is_ignored(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.calibration.synthetic.cache_entry.memory_limit", lambda _: 1000)
    assert cache.load(NAME) is None


@pytest.mark.parametrize("value", [np.array([{}], object), np.array([1, np.inf], np.float32)])
def test_what_could_not_be_read_is_not_kept(value: Any) -> None:
    cache.save(NAME, replace(MADE, feeds={"x": value}))
    folder = cache_folder.existing()
    assert folder is not None and list(folder.iterdir()) == []


# what is no file ----------------------------------------------------------------------------------------------------


def test_a_link_is_not_followed_and_goes(entry: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.npz"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    whole = elsewhere.read_bytes()
    assert cache.load(NAME) is None and not cache.holds(NAME)
    cache.save(NAME, replace(MADE, note="new"))
    assert elsewhere.read_bytes() == whole and not entry.is_symlink()
    assert (found := cache.load(NAME)) is not None and found.note == "new"


def test_a_folder_in_its_place(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()
    assert cache.load(NAME) is None
    (entry / "mine").touch()
    cache.save(NAME, MADE)
    assert cache.load(NAME) is None and (entry / "mine").exists()
    (entry / "mine").unlink()
    cache.save(NAME, MADE)
    assert is_made(cache.load(NAME))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_nobody_waits_for_a_pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)
    assert cache.load(NAME) is None
    cache.save(NAME, MADE)
    assert is_made(cache.load(NAME))


# keys ---------------------------------------------------------------------------------------------------------------


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
    assert cache_folder.path_of(tmp_path, cache.key(model, {})).name == f"{cache.key(model, {})}.npz"
