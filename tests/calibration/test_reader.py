"""Calibration data: every source gives feeds that the model runs, and every bad one ends in one clear line."""

from __future__ import annotations

import builtins
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny import TEXT, net

from onnxfold.calibration.reader import Calibration, read_calibration
from onnxfold.errors import RequestError
from onnxfold.options.preprocess import Layout, Preprocess
from onnxfold.runtime.batching import Batching, batches
from onnxfold.runtime.session import Feeds, InputSpec, Session

F, I64 = np.float32, np.int64
IMAGE = [InputSpec("x", F, ("N", 3, 8, 8))]
TEXTS = [InputSpec("ids", I64, ("N", "T")), InputSpec("mask", I64, ("N", "T"))]
STATE = [InputSpec("x", F, (1, 5)), InputSpec("h", F, (2, 1, 4))]
PLAIN = Preprocess.parse("0,1,nchw")
IMAGENET = "0.485:0.456:0.406,0.229:0.224:0.225,nchw"


def numbered(count: int, *shape: int, dtype: Any = F) -> NDArray[Any]:
    """`count` samples; all values of sample i are i."""
    return np.broadcast_to(np.arange(count).reshape(-1, *[1] * len(shape)), (count, *shape)).astype(dtype)


def order(calibration: Calibration, name: str = "x") -> list[int]:
    """Which of the `numbered` samples were taken."""
    return [int(v) for feed in calibration.feeds for v in feed[name].reshape(len(feed[name]), -1)[:, 0]]


def refused(source: object, specs: list[InputSpec], *says: str, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read_calibration(source, specs, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) > 30
    for word in says:
        assert word in line, line
    return line


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def save_npy(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


def save_image(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path, **options)
    return path


def save_set(folder: Path, *arrays: NDArray[Any]) -> Path:
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
        (folder / f"input_{i}.pb").write_bytes(numpy_helper.from_array(array, f"any{i}").SerializeToString())
    (folder / "output_0.pb").write_bytes(numpy_helper.from_array(arrays[0], "y").SerializeToString())
    return folder


class Reader:
    """As onnxruntime.quantization.CalibrationDataReader."""

    def __init__(self, feeds: list[Any]) -> None:
        self.feeds, self.asked = iter(feeds), 0

    def get_next(self) -> Any:
        self.asked += 1
        return next(self.feeds, None)


# sources ------------------------------------------------------------------------------------------------------------


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
        "array 'images' is taken for input 'x'",
        "c.npz: 4 samples, fewer than the 128 asked for",
    )
    assert read_calibration(source, [InputSpec("images", F, ("N", 3, 8, 8))], samples=4).notes == ()
    labeled = {"x": numbered(4, 3, 8, 8), "labels": np.arange(4)}
    assert read_calibration(labeled, IMAGE, samples=4).notes == ("array 'labels' is no input of the model: ignored",)


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
    """Many large feeds, made when they are asked for."""

    def __len__(self) -> int:
        return 400

    def __iter__(self) -> Iterator[Feeds]:
        return ({"x": np.full((1, 25_000), i, F)} for i in range(len(self)))


def test_large_sources_are_not_held_in_memory() -> None:
    tracemalloc.start()
    try:
        found = read_calibration(Dataset(), [InputSpec("x", F, ("N", 25_000))], samples=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.samples == 5 and peak < 20 * 100_000, "100 kB a feed: 5 wanted, 11 held at most, two in the making"


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
        (9, 8, 8, "1 samples"),
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


# element types and values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float64", "float32"), ("float16", "float32"), (">f4", "float32"), ("float32", "float16"),
        ("float32", "float64"), ("int64", "int32"), ("int16", "int64"), ("uint8", "int64"), ("uint64", "int8"),
        ("bool", "int64"), ("bool", "bool"), ("int64", "bool"), ("uint8", "uint8"),
    ],
)  # fmt: skip
def test_safe_casts(given: str, wanted: str) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(given)
    found = read_calibration(values, [InputSpec("x", np.dtype(wanted).type, ("N", 2))])
    assert [f["x"].tolist() for f in found.feeds] == [[v] for v in values.astype(wanted).tolist()]
    assert {f["x"].dtype for f in found.feeds} == {np.dtype(wanted)}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float32", "int64"), ("int64", "float32"), ("uint8", "float32"), ("bool", "float32"), ("float64", "bool"),
        ("complex64", "float32"), ("S3", "float32"), ("U3", "int64"), ("datetime64[s]", "int64"), ("V4", "int32"),
    ],
)  # fmt: skip
def test_other_casts_are_refused(given: str, wanted: str) -> None:
    refused(np.zeros((2, 2), given), [InputSpec("x", np.dtype(wanted).type, ("N", 2))], "'x'", wanted)


@pytest.mark.parametrize(
    ("values", "wanted", "says"),
    [
        ([0, 300], "uint8", ("300", "[1, 0]", "uint8 cannot hold")),
        ([0, -1], "uint64", ("-1", "cannot hold")),
        ([0, 2**40], "int32", (str(2**40), "cannot hold")),
        ([1, 2], "bool", ("2", "cannot hold")),
        ([0.0, 1e39], "float32", ("1e+39", "[1, 0]", "cannot hold")),
        ([0.0, 7e4], "float16", ("70000", "cannot hold")),
        ([0.0, np.nan], "float32", ("nan", "[1, 0]", "no number")),
        ([-np.inf, 0.0], "float32", ("-inf", "[0, 0]")),
    ],
)
def test_values_that_do_not_fit(values: list[Any], wanted: str, says: tuple[str, ...]) -> None:
    array = np.array(values)[:, None]
    specs = [InputSpec("x", np.dtype(wanted).type, ("N", 1))]
    refused(array, specs, "'x'", *says)
    refused([{"x": array}], specs, "feed 0", *says)
    refused(array[:, 0], [InputSpec("x", np.dtype(wanted).type, (2,))], "'x'")


def test_nan_says_which_file(tmp_path: Path) -> None:
    x = numbered(6, 3, 8, 8).copy()
    x[4, 2, 0, 7] = np.nan
    save_npz(tmp_path / "good.npz", x=x[:3])
    save_npz(tmp_path / "wrong.npz", x=x[3:])
    refused(tmp_path, IMAGE, "wrong.npz", "nan at [1, 2, 0, 7]")


# shapes and names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3, 8, 9), (4, 8, 8, 3), (4, 3, 64), (4, 1, 3, 8, 8), (3, 8), (), (192,)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    refused({"x": np.zeros(shape, F)}, IMAGE, str(list(shape)), "[N, 3, 8, 8]")


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0)])
def test_no_values(shape: tuple[int, ...]) -> None:
    refused(np.zeros(shape, F), [InputSpec("x", F, ("N", *["A"] * (len(shape) - 1)))] if shape[0] else IMAGE, "'x'")


def test_input_shapes_close_open_dimensions() -> None:
    specs = [InputSpec("x", F, ("N", 3, None, None))]
    shapes = {"x": (1, 3, 8, 8)}
    assert read_calibration(numbered(4, 3, 8, 8), specs, input_shapes=shapes).samples == 4
    refused(np.zeros((4, 3, 8, 9), F), specs, "[4, 3, 8, 9]", "[N, 3, 8, 8]", input_shapes=shapes)
    refused(np.zeros((4, 3, 8, 8), F), specs, "4 dimensions", input_shapes={"x": (1, 3)})


@pytest.mark.parametrize("source", ["dict", "npz", "reader"])
def test_wrong_names(tmp_path: Path, source: str) -> None:
    arrays = {"ids": np.zeros((2, 4), I64), "musk": np.zeros((2, 4), I64)}
    given: Any = {"dict": arrays, "npz": save_npz(tmp_path / "a.npz", **arrays), "reader": Reader([arrays])}[source]
    refused(given, TEXTS, "'mask'", "it holds ids, musk", "the model's inputs are ids, mask")


def test_lengths_that_differ() -> None:
    refused({"ids": np.zeros((3, 4), I64), "mask": np.zeros((2, 4), I64)}, TEXTS, "3 samples of 'ids'", "2 of 'mask'")


@pytest.mark.parametrize("dtype", [None, np.str_])
def test_inputs_that_are_not_numeric(dtype: Any) -> None:
    refused(np.zeros((2, 2)), [InputSpec("t", dtype, ("N", 2))], "'t'", "not a numeric tensor")


def test_bad_requests(tmp_path: Path) -> None:
    refused(np.zeros((1, 3, 8, 8)), IMAGE, "at least 1, not 0", samples=0)
    refused({}, [], "no inputs")
    for source in (None, 7, 2.5, b"calib.npz", object()):
        refused(source, IMAGE, type(source).__name__, "CalibrationDataReader")
    for source in ([], iter([]), Reader([])):
        refused(source, IMAGE, "no samples")
    refused([np.zeros((1, 3, 8, 8))], IMAGE, "feed 0", "ndarray", "dict")
    refused([({"x": 1}, 2)], IMAGE, "feed 0", "tuple")
    refused({"x": [[1, 2], [3]]}, IMAGE, "no array")
    refused({"x": object()}, IMAGE, "Python objects")
    refused(np.zeros((2, 4)), TEXTS, "2 (ids, mask)")
    refused(save_npy(tmp_path / "x.npy", np.zeros((2, 4))), TEXTS, "x.npy", "2 (ids, mask)")


# files --------------------------------------------------------------------------------------------------------------


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    refused(tmp_path / "no.npz", IMAGE, "no.npz", "does not exist")
    refused("x" * 5000, IMAGE)
    refused("a\0b.npz", IMAGE)
    (tmp_path / "x.csv").write_text("1,2,3\n")
    refused(tmp_path / "x.csv", IMAGE, "x.csv", "give an .npz")
    refused(tmp_path, IMAGE, "holds no calibration data")


def test_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, IMAGE, str(tmp_path), "holds no calibration data")
    (tmp_path / ".hidden.npz").touch()
    refused(tmp_path, IMAGE, "holds no calibration data")


def test_other_files_are_skipped_with_a_note(tmp_path: Path) -> None:
    save_npy(tmp_path / "x.npy", numbered(2, 3, 8, 8))
    for name in ("README.md", "a.txt", "b.txt", "c.txt", ".DS_Store"):
        (tmp_path / name).touch()
    notes = read_calibration(tmp_path, IMAGE, samples=2).notes
    assert notes == (f"{tmp_path.name}: skipped README.md, a.txt, b.txt and 1 more",)


@pytest.mark.parametrize("name", ["calib.npz", "calib.npy"])
@pytest.mark.parametrize(
    "content", [b"", b"no arrays at all", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': ", b"PK\x03\x04" + bytes(99)]
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, IMAGE, name)
    refused(tmp_path, IMAGE, name)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz(tmp_path: Path, compressed: bool) -> None:
    """Cut off anywhere or with a changed byte: read or refused, no other exception."""
    path = tmp_path / "calib.npz"
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(F)
    (np.savez_compressed if compressed else np.savez)(path, x=x)
    content = path.read_bytes()
    for length in range(0, len(content), 41):
        path.write_bytes(content[:length])
        refused(path, IMAGE, "calib.npz")
    outcomes = {True: 0, False: 0}
    for at in [*range(200), *range(len(content) - 150, len(content))]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        try:
            read_calibration(path, IMAGE)
            outcomes[True] += 1
        except RequestError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 10, "the changes say nothing: all end alike"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", ["(1125899906842624, 3, 8, 8)", "(4611686018427387904, 4)", "(-5, 3, 8, 8)"])
def test_a_header_that_promises_too_much(tmp_path: Path, shape: str, zipped: bool) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(400)
    path = tmp_path / ("calib.npz" if zipped else "calib.npy")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    refused(path, IMAGE, path.name)


def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = save_npz(tmp_path / "calib.npz", x=np.zeros((1, 3, 8, 8)))
    monkeypatch.setattr(np, "load", full)
    refused(path, IMAGE, "does not fit into memory", "folder of smaller files")


def test_npz_that_holds_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"text")
    refused(tmp_path / "a.npz", IMAGE, "a.npz")
    zipfile.ZipFile(tmp_path / "b.npz", "w").close()
    refused(tmp_path / "b.npz", IMAGE, "holds nothing")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["object npz", "object npy", "pickle as npz", "pickle as npy", "pickle in npz"])
def test_nothing_is_unpickled(tmp_path: Path, kind: str) -> None:
    mark, how = tmp_path / "executed", kind.split()[-1]
    path = tmp_path / f"calib.{how}"
    array = np.array([Bomb(mark)], object)
    if kind.startswith("object"):
        if how == "npz":
            np.savez(path, x=array)
        else:
            np.save(path, array)
    elif kind == "pickle in npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", pickle.dumps(Bomb(mark)))
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    says = "Python objects" if kind.startswith("object") else path.name
    refused(path, IMAGE, path.name, says)
    refused(tmp_path, IMAGE, path.name, says)
    assert not mark.exists()
    # the negative control: the same bytes do execute where pickles are loaded
    if kind == "pickle in npz":
        with zipfile.ZipFile(path) as archive:
            pickle.loads(archive.read("x.npy"))
    elif kind == "object npz":
        with np.load(path, allow_pickle=True) as loaded:
            loaded["x"]
    else:
        np.load(path, allow_pickle=True)
    assert mark.exists()


def test_broken_test_data(tmp_path: Path) -> None:
    folder = save_set(tmp_path / "test_data_set_0", np.zeros((1, 3, 8, 8), F))
    refused(tmp_path, TEXTS, "1 files input_*.pb", "2 inputs (ids, mask)")
    tensor = onnx.TensorProto(data_type=1, dims=[1, 3, 8, 8], data_location=onnx.TensorProto.EXTERNAL)
    for content in (b"", b"\xff\xff\xff", b"hello world", tensor.SerializeToString()):
        (folder / "input_0.pb").write_bytes(content)
        refused(tmp_path, IMAGE, "input_0.pb")
    tensor = numpy_helper.from_array(np.zeros((1, 3, 8, 8), F))
    for change in ({"dims": [2**60, 8]}, {"dims": [-1, 4]}, {"data_type": 99}, {"data_type": 16}):
        other = onnx.TensorProto()
        other.CopyFrom(tensor)
        other.ClearField(next(iter(change)))
        other.MergeFrom(onnx.TensorProto(**change))
        (folder / "input_0.pb").write_bytes(other.SerializeToString())
        refused(folder, IMAGE, "_0")


# images -------------------------------------------------------------------------------------------------------------


def test_preprocess() -> None:
    assert Preprocess.parse(IMAGENET) == Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Layout.NCHW)
    assert Preprocess.parse(" 0.5 , 127.5/255 , NHWC ") == Preprocess((0.5,), (0.5,), Layout.NHWC)
    assert Preprocess.parse("0,1/255,nchw").std == (1 / 255,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "MEAN,STD,LAYOUT"), ("0,1", "MEAN,STD,LAYOUT"), ("0,1,nchw,2", "MEAN,STD,LAYOUT"),
        ("a,1,nchw", "MEAN,STD,LAYOUT"), ("0,1,chw", "MEAN,STD,LAYOUT"), ("0,1/0,nchw", "MEAN,STD,LAYOUT"),
        ("0,1/2/3,nchw", "MEAN,STD,LAYOUT"), ("0:1:,1,nchw", "MEAN,STD,LAYOUT"),
        ("127.5,127.5,nhwc", "127.5/255"), ("0,255,nchw", "scaled to 0..1"), ("0,0,nchw", "std 0"),
        ("-0.5,1,nchw", "mean -0.5"), ("nan,1,nchw", "mean nan"), ("0,inf,nchw", "std inf"), ("0:0,1,nchw", "1 or 3"),
    ],
)  # fmt: skip
def test_bad_preprocess(text: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        Preprocess.parse(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("stored_as", [Layout.NCHW, Layout.NHWC])
@pytest.mark.parametrize("taken_as", [Layout.NCHW, Layout.NHWC])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_pixels(stored_as: Layout, taken_as: Layout, dtype: str) -> None:
    """uint8 arrays become what the model takes, by the rule written out in numpy."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 10, 3), np.uint8)
    preprocess = Preprocess.parse(IMAGENET.replace("nchw", taken_as.value))
    expected = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    shape: tuple[int | str, ...] = ("N", 8, 10, 3)
    if taken_as is Layout.NCHW:
        expected, shape = expected.transpose(0, 3, 1, 2), ("N", 3, 8, 10)
    given = pixels.transpose(0, 3, 1, 2) if stored_as is Layout.NCHW else pixels
    specs = [InputSpec("x", np.dtype(dtype).type, shape)]
    found = read_calibration(given, specs, preprocess=preprocess)
    assert {f["x"].dtype for f in found.feeds} == {np.dtype(dtype)}
    close = 2e-3 if dtype == "float16" else 2e-6  # values up to 2.7: half an ulp of float16 is 1e-3
    np.testing.assert_allclose(np.concatenate([f["x"] for f in found.feeds]), expected, rtol=0, atol=close)
    single = read_calibration(given[2], specs, preprocess=preprocess)
    np.testing.assert_allclose(single.feeds[0]["x"], expected[2:3], rtol=0, atol=close)


def test_raw_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(4, 8, 8, 3)
    found = read_calibration(pixels, IMAGE, preprocess=Preprocess.parse("0,1/255,nchw"))
    exact = np.concatenate([f["x"] for f in found.feeds]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(exact, pixels.astype(F), rtol=1e-6)


def test_pixels_refused() -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    refused(pixels, IMAGE, "pixels", "`preprocess='0.485")
    refused(np.zeros((2, 8, 9, 3), np.uint8), IMAGE, "3 x 8 x 8", "[2, 8, 9, 3]", preprocess=PLAIN)
    refused(np.zeros((2, 8), np.uint8), IMAGE, "[2, 8]", preprocess=PLAIN)
    refused(pixels, [InputSpec("x", F, ("N", 8, 8, 3))], "8 channels in layout nchw", "try nhwc", preprocess=PLAIN)
    refused(pixels, [InputSpec("x", F, ("N", 1, 8, 8))], "3 channels", preprocess=Preprocess.parse(IMAGENET))
    both = np.zeros((2, 3, 8, 3), np.uint8)
    refused(both, [InputSpec("x", F, ("N", 3, None, None))], "as NCHW and as NHWC", preprocess=PLAIN)


def test_image_files(tmp_path: Path) -> None:
    """Images of the right size go in as they are; also those in folders below, in the order of their paths."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    save_image(tmp_path / "b" / "1.PNG", pixels[2])
    save_image(tmp_path / "a" / "2.png", pixels[1])
    save_image(tmp_path / "a" / "1.bmp", pixels[0])
    (tmp_path / "labels.csv").touch()
    found = read_calibration(tmp_path, IMAGE, samples=3, preprocess=PLAIN)
    assert found.notes == (f"{tmp_path.name}: skipped labels.csv",)
    values = np.concatenate([f["x"] for f in found.feeds])
    np.testing.assert_allclose(values, pixels.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    alone = read_calibration(tmp_path / "a" / "2.png", IMAGE, preprocess=PLAIN)
    assert np.array_equal(alone.feeds[0]["x"], values[1:2]) and alone.description == "1 sample of 2.png"


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (16, 16), (500, 7), (1, 1)])
@pytest.mark.parametrize("wanted", [(32, 32), (16, 48), (48, 16)])
def test_images_are_scaled_and_cropped_in_the_center(
    tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """On an image whose colors are its coordinates, the crop is centered and shows 0.875 of the tighter side."""
    rows, columns = np.meshgrid(*((np.arange(n) + 0.5) / n * 255 for n in size), indexing="ij")
    path = save_image(tmp_path / "x.png", np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))
    specs = [InputSpec("x", F, ("N", *wanted, 3))]
    seen = read_calibration(path, specs, preprocess=Preprocess.parse("0,1,nhwc")).feeds[0]["x"][0]
    assert seen.shape == (*wanted, 3)
    assert abs(seen[..., :2].mean((0, 1)) - 0.5).max() < 0.05
    if min(size) >= 64:
        spans = [np.ptp(seen[..., axis]) * wanted[axis] / (wanted[axis] - 1) for axis in (0, 1)]
        scale = max(w / 0.875 / s for w, s in zip(wanted, size, strict=True))
        shown = [w / (s * scale) for w, s in zip(wanted, size, strict=True)]
        np.testing.assert_allclose(spans, shown, atol=0.06)  # a pixel of 16


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"x.{suffix}")
    found = read_calibration(tmp_path, [InputSpec("x", F, ("N", channels, 8, 8))], preprocess=PLAIN)
    np.testing.assert_allclose(found.feeds[0]["x"], np.ones((1, channels, 8, 8)), atol=0.01)


def test_models_that_take_pixels(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    path = save_image(tmp_path / "x.png", pixels)
    specs = [InputSpec("x", np.uint8, ("N", 16, 16, 3))]
    found = read_calibration(path, specs, preprocess=Preprocess.parse("0,1/255,nhwc")).feeds[0]["x"]
    assert found.dtype == np.uint8 and np.array_equal(found[0], pixels)
    assert np.array_equal(read_calibration(pixels, specs).feeds[0]["x"][0], pixels)
    refused(path, specs, "uint8", "0,1/255,nhwc", preprocess=Preprocess.parse("0,1,nhwc"))


def test_images_refused(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    path = save_image(tmp_path / "a.png", pixels)
    refused(tmp_path, IMAGE, "a.png", "preprocess")
    refused(tmp_path, TEXTS, "2 (ids, mask)", preprocess=PLAIN)
    refused(tmp_path, [InputSpec("x", F, ("N", 784))], "images need 4", preprocess=PLAIN)
    refused(
        tmp_path, [InputSpec("x", F, ("N", 3, None, None))], "`input_shapes={'x': (1, 3, 224, 224)}`", preprocess=PLAIN
    )
    open_size = [InputSpec("x", F, ("N", 3, "H", "W"))]
    shapes = {"x": (1, 3, 4, 4)}
    assert read_calibration(path, open_size, preprocess=PLAIN, input_shapes=shapes).feeds[0]["x"].shape == (1, 3, 4, 4)
    (tmp_path / "b.jpg").write_text("a text with the wrong name")
    refused(tmp_path, IMAGE, "b.jpg", "not an image", preprocess=PLAIN)
    noise = save_image(tmp_path / "b.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.write_bytes(noise.read_bytes()[:-2000])
    refused(tmp_path, IMAGE, "b.jpg", preprocess=PLAIN)
    (tmp_path / "b.jpg").unlink()
    save_image(tmp_path / "deep.png", np.full((8, 8), 40000, np.uint16))
    refused(tmp_path, IMAGE, "deep.png", "more than 8 bits", preprocess=PLAIN)
    save_npy(tmp_path / "x.npy", numbered(2, 3, 8, 8))
    refused(tmp_path, IMAGE, "x.npy and images", "one kind", preprocess=PLAIN)


def test_image_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 50)
    save_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    refused(tmp_path, IMAGE, "a.png", "bomb", preprocess=PLAIN)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return imported(name, *more, **named)

    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr(builtins, "__import__", missing)
    refused(tmp_path, IMAGE, "pip install pillow", preprocess=PLAIN)
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    assert read_calibration(pixels, IMAGE, preprocess=PLAIN).samples == 2, "arrays of pixels need no Pillow"


def test_image_folder_with_a_fixed_batch(tmp_path: Path) -> None:
    for i in range(10):
        save_image(tmp_path / f"{i}.png", np.full((8, 8, 3), i, np.uint8))
    specs = [InputSpec("x", F, (4, 3, 8, 8))]
    found: list[Feeds] = list(read_calibration(tmp_path, specs, preprocess=Preprocess.parse("0,1/255,nchw")).feeds)
    assert [np.rint(f["x"][:, 0, 0, 0]).tolist() for f in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_stream_is_no_file() -> None:
    refused(io.BytesIO(b"PK"), IMAGE, "feed 0", "bytes")
