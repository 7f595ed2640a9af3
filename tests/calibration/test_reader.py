"""Calibration data: every source gives feeds that the model runs, with samples chosen evenly."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import tracemalloc_domain
from samples import (
    I64,
    IMAGE,
    STATE,
    TEXTS,
    F,
    Reader,
    numbered,
    order,
    refused,
    save_npy,
    save_npz,
    save_set,
)
from tiny import TEXT, net

from onnxfold.calibration.reader import read_calibration
from onnxfold.runtime.batching import Batching, batches
from onnxfold.runtime.session import Feeds, InputSpec, Session

# sources --------------------------------------------------------------------------------------------------------------


def stored(kind: str, folder: Path) -> tuple[object, str]:
    """Ten samples of x [3, 8, 8], kept in some way, and what that is called."""
    x = numbered(10, 3, 8, 8)
    folder = folder / "data"
    folder.mkdir()
    match kind:
        case "npz":
            return save_npz(folder / "calib.npz", x=x), "calib.npz"
        case "npz without a name":
            np.savez(folder / "calib.npz", x)
            return str(folder / "calib.npz"), "calib.npz"
        case "npz of another name":
            return save_npz(folder / "calib.npz", images=x), "calib.npz"
        case "compressed npz":
            np.savez_compressed(folder / "calib.npz", x=x)
            return folder / "calib.npz", "calib.npz"
        case "npy":
            return save_npy(folder / "calib.npy", x), "calib.npy"
        case "folder of samples":
            for i, sample in enumerate(x):
                save_npy(folder / f"{i}.npy", sample)
        case "folder of feeds":
            for i, sample in enumerate(x):
                save_npz(folder / f"{i}.npz", x=sample[None])
        case "folder of batches":
            save_npz(folder / "a.npz", x=x[:7])
            save_npy(folder / "b.npy", x[7:])
        case "test data":
            for i, sample in enumerate(x):
                save_set(folder / f"test_data_set_{i}", sample[None])
        case "one test data set":
            return save_set(folder / "test_data_set_0", x), "test_data_set_0"
        case "dict":
            return {"x": x}, "the arrays given"
        case "array":
            return x, "the array given"
        case "dicts":
            return [{"x": x[:4]}, {"x": x[4:]}], "the feeds given"
        case "generator":
            return ({"x": sample} for sample in x), "the feeds given"
        case "reader":
            return Reader([{"x": x[i : i + 2]} for i in range(0, 10, 2)]), "the calibration reader"
        case "lists of numbers":
            return {"x": x.tolist()}, "the arrays given"
    return folder, "data"


KINDS = [
    "npz", "npz without a name", "npz of another name", "compressed npz", "npy", "folder of samples",
    "folder of feeds", "folder of batches", "test data", "one test data set", "dict", "array", "dicts", "generator",
    "reader", "lists of numbers",
]  # fmt: skip


@pytest.mark.parametrize("size", ["N", 1, 5], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_source(tmp_path: Path, kind: str, size: str | int) -> None:
    """Each kind of source gives all samples in order, in feeds that the model runs as they are."""
    session = Session(net(TEXT.replace("N,3,8,8", f"{size},3,8,8")).SerializeToString())
    source, title = stored(kind, tmp_path)
    found = read_calibration(source, session.inputs)
    assert found.samples == 10 and found.description == f"10 samples of {title}"
    assert order(found) == list(range(10))
    assert {feed["x"].dtype for feed in found.feeds} == {np.dtype(F)}
    assert [len(feed["x"]) for feed in found.feeds] == ([5, 5] if size == 5 else [1] * 10)
    for feed in found.feeds:
        session.run(feed)
    for feed in batches(found.feeds, session.inputs, 4):
        session.run(feed)


def test_notes(tmp_path: Path) -> None:
    source = save_npz(tmp_path / "c.npz", images=numbered(4, 3, 8, 8))
    found = read_calibration(source, IMAGE)
    assert found.notes == (
        "array 'images' is used as input 'x'",
        "c.npz: 4 samples (up to 128 are used)",
    )
    assert read_calibration(source, [InputSpec("images", F, ("N", 3, 8, 8))], samples=4).notes == ()
    labeled = {"x": numbered(4, 3, 8, 8), "labels": np.arange(4)}
    assert read_calibration(labeled, IMAGE, samples=4).notes == (
        "array 'labels' does not match any model input and is ignored",
    )


def test_several_inputs(tmp_path: Path) -> None:
    feeds = [{"ids": numbered(1, 4 + i % 2, dtype=I64) + i, "mask": np.ones((1, 4 + i % 2), I64)} for i in range(6)]
    for i, feed in enumerate(feeds):
        save_set(tmp_path / f"test_data_set_{i}", feed["ids"], feed["mask"])
    for source in (feeds, Reader(feeds), tmp_path):
        found = read_calibration(source, TEXTS)
        assert order(found, "ids") == list(range(6))
        assert [feed["mask"].shape for feed in found.feeds] == [(1, 4), (1, 5)] * 3


def test_test_data_sets_in_the_order_of_numbers(tmp_path: Path) -> None:
    specs = [InputSpec(f"x{i}", F, ("N",)) for i in range(11)]
    for number in range(12):
        save_set(tmp_path / f"test_data_set_{number}", *(np.full(1, number + i, F) for i in range(11)))
    found = read_calibration(tmp_path, specs)
    assert order(found, "x0") == list(range(12)) and order(found, "x10") == list(range(10, 22))


def test_inputs_without_a_common_axis(tmp_path: Path) -> None:
    """Recurrent states: a feed is passed as it is, and never joined with another."""
    feeds = [{"x": np.full((1, 5), i, F), "h": np.zeros((2, 1, 4), F)} for i in range(5)]
    for i, feed in enumerate(feeds):
        save_npz(tmp_path / f"{i}.npz", **feed)
    for source in (feeds, tmp_path):
        found = read_calibration(source, STATE, samples=3)
        assert found.samples == 3 and order(found) == [0, 1, 3]
        assert [f["x"].shape for f in batches(found.feeds, STATE, 8)] == [(1, 5)] * 3
    assert read_calibration(feeds[0], STATE).samples == 1
    refused({"x": np.zeros((7, 5), F), "h": np.zeros((14, 1, 4), F)}, STATE, "[7, 5]", "one file or dict for each")


def test_scalar_beside_a_batch() -> None:
    specs = [InputSpec("x", F, ("N", 5)), InputSpec("rate", I64, ())]
    found = read_calibration({"x": numbered(6, 5), "rate": np.asarray(16000)}, specs)
    assert order(found) == list(range(6)) and all(f["rate"].shape == () for f in found.feeds)
    assert [len(f["x"]) for f in batches(found.feeds, specs, 4)] == [4, 2]
    mixed = [{"x": np.zeros((1, 5), F), "rate": np.asarray(r)} for r in (8, 8, 16)]
    assert [len(f["x"]) for f in batches(read_calibration(mixed, specs).feeds, specs, 4)] == [2, 1]


@pytest.mark.parametrize(
    ("shapes", "names", "size"),
    [
        ([("N", 3)], ["a"], None),
        ([(None, 3, "H")], ["a"], None),
        ([("?", 3, "?", "?")], ["a"], None),
        ([("N", 3), (None, 4)], ["a", "b"], None),
        ([("N", 3), ("M", 4)], [], None),  # two lengths: nodes and edges of a graph
        ([("N", "N")], [], None),  # a graph's adjacency
        ([("N", 3), (2, "N", 4)], [], None),  # the state of a recurrent cell
        ([("N", 3), (2, 4)], ["a"], None),
        ([("N", 3), ()], ["a"], None),
        ([(1, 3), (1, 2, 4)], ["a", "b"], 1),
        ([(8, 3), ()], ["a"], 8),
        ([(1, 3), (2, 1, 4)], [], None),
        ([()], [], None),
    ],
)
def test_batching(shapes: list[tuple[int | str | None, ...]], names: list[str], size: int | None) -> None:
    specs = [InputSpec(name, F, shape) for name, shape in zip("ab", shapes, strict=False)]
    assert Batching.of(specs) == Batching(frozenset(names), size)


def test_batches() -> None:
    feeds = [{"ids": np.full((1, t), i), "mask": np.ones((1, t))} for i, t in enumerate([3, 3, 3, 5, 5, 3])]
    joined = list(batches(feeds, TEXTS, 2))
    assert [f["ids"].shape for f in joined] == [(2, 3), (1, 3), (2, 5), (1, 3)]
    assert [int(v) for f in joined for v in f["ids"][:, 0]] == list(range(6))
    assert [f["ids"].shape for f in batches(feeds, TEXTS, 1)] == [f["ids"].shape for f in feeds]
    assert [f["ids"].shape for f in batches([joined[0]], TEXTS, 1)] == [(2, 3)]
    assert list(batches([], TEXTS, 4)) == []
    one_by_one = [InputSpec("x", F, (1, 2))]
    assert [len(f["x"]) for f in batches([{"x": np.ones((1, 2))}] * 3, one_by_one, 8)] == [1, 1, 1]


# choosing samples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "asked"), [(10, 3), (10, 10), (10, 11), (100, 7), (1000, 7), (1000, 1), (17, 16)])
@pytest.mark.parametrize("kind", ["table", "dicts"])
def test_samples_are_evenly_spaced(kind: str, count: int, asked: int) -> None:
    x = numbered(count, 2)
    specs = [InputSpec("x", F, ("N", 2))]
    source: Any = x if kind == "table" else [{"x": part} for part in np.array_split(x, min(count, 9))]
    found = order(read_calibration(source, specs, samples=asked))
    assert len(found) == min(count, asked) and found == sorted(set(found)) and found[0] == 0
    gaps = np.diff([*found, count])
    assert gaps.max() <= 2 * np.ceil(count / asked)
    assert found == order(read_calibration(source, specs, samples=asked))


def test_folder_is_chosen_from_before_it_is_read(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.npy").write_bytes(b"broken")
    for i in range(0, 20, 5):
        save_npy(tmp_path / f"{i:02}.npy", np.full((1, 2), i, F))
    assert order(read_calibration(tmp_path, [InputSpec("x", F, ("N", 2))], samples=4)) == [0, 5, 10, 15]


class Dataset:
    """Many large feeds, made when they are asked for. `most`: how many were in memory at a time, copies too."""

    def __init__(self) -> None:
        self.most = 0

    def __len__(self) -> int:
        return 400

    def __iter__(self) -> Iterator[Feeds]:
        for number in range(len(self)):
            feed = {"x": np.full((1, 25_000), number, F)}
            arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, tracemalloc_domain)])
            self.most = max(self.most, sum(trace.size == feed["x"].nbytes for trace in arrays.traces))
            yield feed


def test_large_sources_are_not_held_in_memory() -> None:
    """What other threads allocate meanwhile does not count, so arrays of this size do, not bytes."""
    source = Dataset()
    tracemalloc.start()
    try:
        found = read_calibration(source, [InputSpec("x", F, ("N", 25_000))], samples=5)
    finally:
        tracemalloc.stop()
    assert found.samples == 5 and 5 <= source.most <= 13, "5 wanted, 11 held at most, two in the making"


def test_endless_generator() -> None:
    """Of a stream of unknown length the first samples are taken, and no more is asked for."""

    def feeds() -> Iterator[Mapping[str, Any]]:
        while True:
            yield {"x": np.ones((2, 3, 8, 8))}

    found = read_calibration(feeds(), IMAGE, samples=5)
    assert found.samples == 5 and found.description == "the first 5 samples of the feeds given"
    reader = Reader([{"x": np.ones((1, 3, 8, 8))}] * 9)
    assert read_calibration(reader, IMAGE, samples=4).samples == 4 and reader.asked == 4


@pytest.mark.parametrize(
    ("count", "asked", "used", "note"),
    [
        (16, 16, 16, ""),
        (18, 128, 16, "2 samples at the end"),
        (100, 20, 16, ""),
        (100, 3, 8, ""),
        (9, 8, 8, "1 sample at the end"),
    ],
)
def test_fixed_batch(count: int, asked: int, used: int, note: str) -> None:
    specs = [InputSpec("x", F, (8, 2))]
    single = [{"x": sample[None]} for sample in numbered(count, 2)]
    for source in (numbered(count, 2), single):
        found = read_calibration(source, specs, samples=asked)
        assert found.samples == used and all(f["x"].shape == (8, 2) for f in found.feeds)
        assert all(np.diff(f["x"][:, 0]).max() == 1 for f in found.feeds), "a batch was torn apart"
        assert (note in " ".join(found.notes)) if note else not found.notes


def test_fixed_batch_too_large() -> None:
    refused(numbered(7, 2), [InputSpec("x", F, (8, 2))], "only 7 samples", "batches of 8")
    odd = [{"x": np.ones((1, 2 + i % 2))} for i in range(4)]
    refused(odd, [InputSpec("x", F, (4, "T"))], "differ in shape")


def test_memory_of_its_own(tmp_path: Path) -> None:
    """Feeds outlive and never change what they were read from."""
    x = numbered(4, 3, 8, 8)
    found = read_calibration({"x": x}, IMAGE)
    assert not any(np.shares_memory(x, f["x"]) for f in found.feeds)
    found = read_calibration(save_npy(tmp_path / "x.npy", x), IMAGE)
    assert all(type(f["x"]) is np.ndarray and f["x"].flags.c_contiguous for f in found.feeds)
