"""What is advised for arrays whose shape does not fit: done, they do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from onnxfold.calibration.reader import read_calibration
from onnxfold.errors import RequestError
from onnxfold.runtime.session import InputSpec

ADVISED: dict[str, tuple[tuple[int, ...], tuple[Any, ...], str]] = {
    "channels last": ((9, 8, 6, 3), ("N", 3, 8, 6), "they are NHWC and the model takes NCHW: give "),
    "channels last, open lengths": ((9, 8, 6, 3), ("N", 3, "h", "w"), "they are NHWC and the model takes NCHW: give "),
    "channels first": ((9, 3, 8, 6), ("N", 8, 6, 3), "they are NCHW and the model takes NHWC: give "),
    "one image": ((8, 6, 3), ("N", 3, 8, 6), "it is HWC and the model takes CHW: give "),
    "time last": ((9, 40, 7), ("N", 7, 40), "give array.transpose(0, 2, 1)"),
    "flat": ((9, 144), ("N", 3, 8, 6), "its samples have as many values, so give array.reshape(-1, 3, 8, 6)"),
    "not flat": ((9, 3, 8, 6), ("N", 144), "its samples have as many values, so give array.reshape(-1, 144)"),
    "no channels": ((9, 8, 6), ("N", 1, 8, 6), "its samples have as many values, so give array.reshape(-1, 1, 8, 6)"),
    "one sample, flat": ((144,), ("N", 3, 8, 6), "it has the values of one sample, so give array.reshape(1, 3, 8, 6)"),
}


@pytest.mark.parametrize("case", ADVISED)
def test_what_is_advised_does_it(case: str) -> None:
    shape, takes, said = ADVISED[case]
    array, spec = np.arange(np.prod(shape), dtype=np.float32).reshape(shape), InputSpec("x", np.float32, takes)
    with pytest.raises(RequestError) as refused:
        read_calibration({"x": array}, [spec])
    assert said in str(refused.value)
    found = re.search(r"array\.(reshape|transpose)\(([-\d, ]+)\)$", str(refused.value))
    assert found is not None
    mended = getattr(array, found[1])(*map(int, found[2].split(",")))
    assert read_calibration({"x": mended}, [spec]).samples == (9 if shape[0] == 9 else 1)


@pytest.mark.parametrize("shape", [(9, 8, 5, 3), (9, 100), (5,), (9, 2, 3, 8, 6)])
def test_nothing_is_guessed_where_the_values_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"the model takes \[N, 3, 8, 6\]$"):
        read_calibration({"x": np.zeros(shape, np.float32)}, [InputSpec("x", np.float32, ("N", 3, 8, 6))])


def test_lengths_that_the_user_gave_are_the_users_to_change() -> None:
    spec, given = InputSpec("x", np.float32, ("N", 3, "h", "w")), {"x": (1, 3, 64, 64)}
    with pytest.raises(RequestError, match=r"takes it too, so pass `input_shapes=\{'x': \(4, 3, 32, 32\)\}`$"):
        read_calibration({"x": np.zeros((4, 3, 32, 32), np.float32)}, [spec], input_shapes=given)
