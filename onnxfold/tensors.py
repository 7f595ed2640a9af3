"""Values of single TensorProtos, made and replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper


def made(array: NDArray[Any], name: str, kind: int = 0) -> TensorProto:
    """A tensor called `name`, of element type `kind` (0: that of the array)."""
    tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
    if kind:
        tensor.data_type = kind
    return tensor


def replaced(tensor: TensorProto, array: NDArray[Any]) -> None:
    """New values for `tensor`, whose name, documentation, metadata and kind of storage stay."""
    new = made(array, tensor.name, tensor.data_type)
    external = tensor.data_location == TensorProto.EXTERNAL
    for data in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data", "dims"):
        tensor.ClearField(data)
    tensor.dims.extend(new.dims)
    tensor.raw_data = new.raw_data
    if external:  # the bytes are here now; the writer moves them out again
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
