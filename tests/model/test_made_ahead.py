"""Values that are computed while others are written."""

from __future__ import annotations

from functools import partial
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from onnxfold import ModelError
from onnxfold.model.made_ahead import MadeAhead
from onnxfold.model.tensors import Pending, deferred


def left_open(name: str, pending: Pending) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights")
    deferred(tensor, pending)
    return tensor


def test_one_at_a_time_in_order_and_never_two_ahead() -> None:
    begun = [Event() for _ in range(4)]

    def values(number: int) -> NDArray[np.float32]:
        begun[number].set()
        return np.full((2, 3), number, np.float32).T

    pending = {str(i): Pending((3, 2), partial(values, i)) for i in range(4)}
    tensors = [left_open(name, one) for name, one in pending.items()]
    tensors.insert(1, TensorProto(name="written already", data_type=TensorProto.FLOAT, raw_data=b"\0" * 4))
    with MadeAhead(tensors, pending) as made:
        for number in range(3):
            assert begun[number].wait(10)
            assert not begun[number + 1].is_set()
            assert np.frombuffer(made.next(), np.float32).tolist() == [number] * 6


def test_what_goes_wrong_ahead_is_raised_when_its_turn_comes() -> None:
    def broken() -> NDArray[np.float32]:
        raise ModelError("NaN")

    pending = {"a": Pending((1,), lambda: np.ones(1, np.float32)), "b": Pending((1,), broken)}
    tensors = [left_open(name, one) for name, one in pending.items()]
    with MadeAhead(tensors, pending) as made:
        assert bytes(made.next()) == np.ones(1, np.float32).tobytes()
        with pytest.raises(ModelError, match="NaN"):
            made.next()
