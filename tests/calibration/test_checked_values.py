"""Calibration data whose types, values, shapes or names do not suit the model ends in one clear line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import (
    I64,
    IMAGE,
    TEXTS,
    F,
    Reader,
    numbered,
    refused,
    save_npy,
    save_npz,
)

from onnxfold.calibration.reader import read_calibration
from onnxfold.runtime.session import InputSpec

# element types and values ---------------------------------------------------------------------------------------------


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
        ([0.0, np.nan], "float32", ("nan", "[1, 0]", "not usable")),
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
    refused({"x": [[1, 2], [3]]}, IMAGE, "not an array")
    refused({"x": object()}, IMAGE, "Python objects")
    refused(np.zeros((2, 4)), TEXTS, "2 (ids, mask)")
    refused(save_npy(tmp_path / "x.npy", np.zeros((2, 4))), TEXTS, "x.npy", "2 (ids, mask)")


def test_stream_is_no_file() -> None:
    refused(io.BytesIO(b"PK"), IMAGE, "feed 0", "bytes")
