"""Values that are left to the writer, computed while it writes others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ..compat import Self
from .tensors import Pending, is_deferred


class MadeAhead:
    """The `pending` values of `tensors` in their order; while one is written, a thread computes the next."""

    def __init__(self, tensors: Iterable[TensorProto], pending: Mapping[str, Pending]) -> None:
        self._left = iter([pending[tensor.name] for tensor in tensors if is_deferred(tensor)])
        self._pool = ThreadPoolExecutor(1)
        self._coming = self._begun()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next(self) -> memoryview:
        """The raw bytes of the next one."""
        assert self._coming is not None
        values = self._coming.result()
        self._coming = self._begun()
        return memoryview(values)

    def _begun(self) -> Future[Any] | None:
        following = next(self._left, None)
        return None if following is None else self._pool.submit(_bytes_of, following)


def _bytes_of(pending: Pending) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pending.make()).reshape(-1).view(np.uint8)
