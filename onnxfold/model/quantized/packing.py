"""Integers of 2, 4 or 8 bits side by side in bytes, in blocks, as com.microsoft's MatMulNBits holds its weight.

Layout: docs/ContribOperators.md of onnxruntime, "com.microsoft.MatMulNBits".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MICROSOFT, NBITS = "com.microsoft", "MatMulNBits"
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class PackedLayout:
    """A weight [n, k] (outputs, inputs) in blocks of `block` numbers along k, the last one filled up."""

    n: int
    k: int
    bits: int
    block: int

    @property
    def blocks(self) -> int:
        """How many blocks a row has."""
        return -(-self.k // self.block)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the bytes."""
        return self.n, self.blocks, self.block * self.bits // 8

    @property
    def zeros_width(self) -> int:
        """Bytes that the zero points of a row take."""
        return -(-self.blocks * self.bits // 8)

    @property
    def middle(self) -> int:
        """The zero point where none is given."""
        return int(2 ** (self.bits - 1))

    def weight(self, held: Bytes) -> Bytes:
        """The integers [n, k] in bytes of `shape`."""
        return split(held, self.bits).reshape(self.n, -1)[:, : self.k]

    def held(self, weight: NDArray[Any]) -> Bytes:
        """The bytes for integers [n, k]; the last block is filled up with zeros."""
        whole = np.pad(weight, [(0, 0), (0, self.blocks * self.block - self.k)])
        return join(whole, self.bits).reshape(self.shape)

    def zeros(self, held: Bytes) -> Bytes:
        """The zero points [n, blocks] in their bytes."""
        return split(held.reshape(self.n, self.zeros_width), self.bits)[:, : self.blocks]


def layout(attrs: Mapping[str, Any]) -> PackedLayout | None:
    """What the attributes of a MatMulNBits say; None where it is nothing that onnxruntime describes."""
    n, k, bits, block = (attrs.get(name, 4 if name == "bits" else 0) for name in ("N", "K", "bits", "block_size"))
    whole = all(isinstance(number, int) and number > 0 for number in (n, k, bits, block))
    if not whole or bits not in (2, 4, 8) or block < 16 or block & (block - 1) or attrs.get("weight_prepacked", 0):
        return None
    return PackedLayout(n, k, bits, block)


def split(held: Bytes, bits: int) -> Bytes:
    """The integers in bytes [..., m], the first in the lowest bits: [..., m * 8 / bits].

    >>> split(np.array([0x21, 0x43], np.uint8), 4).tolist()
    [1, 2, 3, 4]
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((held[..., None] >> shifts) & np.uint8(2**bits - 1)).reshape(*held.shape[:-1], -1)


def join(integers: NDArray[Any], bits: int) -> Bytes:
    """The inverse of `split`; the last byte is filled up with zeros.

    >>> join(np.array([1, 2, 3]), 4).tolist()
    [33, 3]
    """
    per = 8 // bits
    short = -integers.shape[-1] % per
    whole = np.pad(integers.astype(np.uint8), [(0, 0)] * (integers.ndim - 1) + [(0, short)])
    parts = whole.reshape(*integers.shape[:-1], -1, per) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts, axis=-1), np.uint8)
