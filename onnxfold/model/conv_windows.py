"""Which input positions every output position of a convolution sees, kernel position by kernel position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The geometry of a Conv or ConvTranspose node, one entry per spatial axis; `pads` those before, then those behind.

    `sized`: a ConvTranspose whose pads follow from the length of its output (output_shape).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str = "NOTSET"
    output_padding: tuple[int, ...] = ()
    sized: bool = False

    def slide(self, x: Array, out: Sequence[int], chosen: Ints | None) -> Array:
        """What a Conv sees of x [N, C, *space]: [rows, C, *kernel], a row per output place (`out` per sample)."""
        spatial = len(self.kernel)
        padded = np.pad(x, [(0, 0), (0, 0), *self.padding(x.shape[2:], out)])
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
        step = tuple(slice(None, n * s, s) for n, s in zip(out, self.strides, strict=True))
        windows = windows[(slice(None), slice(None), *step, *(slice(None, None, d) for d in self.dilations))]
        if chosen is None:
            taken = windows.transpose(0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial))
            return taken.reshape(-1, x.shape[1], *self.kernel)
        sample, place = np.divmod(chosen, math.prod(out))
        at: tuple[Any, ...] = (sample, slice(None), *np.unravel_index(place, tuple(out)))
        return np.asarray(windows[at])

    def padding(self, size: Sequence[int], out: Sequence[int]) -> list[tuple[int, int]]:
        """Zeros before and behind each spatial axis of a Conv whose input and output are of these lengths."""
        n = len(self.kernel)
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return [(self.pads[i], self.pads[n + i]) for i in range(n)]
        result = []
        for i in range(n):
            total = max(0, (out[i] - 1) * self.strides[i] + (self.kernel[i] - 1) * self.dilations[i] + 1 - size[i])
            small, large = total // 2, total - total // 2
            result.append((small, large) if self.auto_pad == "SAME_UPPER" else (large, small))
        return result

    def gather(self, x: Array, out: Sequence[int], chosen: Ints | None) -> Array:
        """What a ConvTranspose sees, as `slide`: 0 where a kernel position meets no input.

        Output o gets w[k] x[i] for every i, k with i * stride - pad + k * dilation = o (the definition in the ONNX
        operator reference). With strides above 1 a place sees a part of the kernel only, another part for every phase.
        """
        spatial = len(self.kernel)
        if chosen is None:
            chosen = np.arange(len(x) * math.prod(out))
        sample, place = np.divmod(chosen, math.prod(out))
        places = np.unravel_index(place, tuple(out))
        padded = np.moveaxis(np.pad(x, [(0, 0), (0, 0), *[(0, 1)] * spatial]), 1, -1)  # a zero behind every axis
        at: list[Any] = [sample.reshape(-1, *[1] * spatial)]
        for i in range(spatial):
            found = self._sources(i, x.shape[2 + i], out[i])[places[i]]
            at.append(found.reshape(-1, *(self.kernel[i] if j == i else 1 for j in range(spatial))))
        return np.moveaxis(padded[tuple(at)], -1, 1)

    def _sources(self, axis: int, size: int, out: int) -> Ints:
        """[out, kernel] the input positions along one axis; `size` where there is none."""
        stride, dilation, kernel = self.strides[axis], self.dilations[axis], self.kernel[axis]
        if self.sized or self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            extra = self.output_padding[axis] if self.output_padding else 0
            total = max(0, (size - 1) * stride + extra + (kernel - 1) * dilation + 1 - out)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
        else:
            before = 0 if self.auto_pad == "VALID" else self.pads[axis]
        scaled = np.arange(out)[:, None] + before - np.arange(kernel) * dilation
        meets = (scaled % stride == 0) & (scaled >= 0) & (scaled < size * stride)
        return np.where(meets, scaled // stride, size)


def windows(kernel: Sequence[int], attributes: dict[str, Any]) -> Windows:
    """The geometry that a node's attributes and the kernel's shape give."""
    n = len(kernel)
    auto = attributes.get("auto_pad", b"NOTSET")
    return Windows(
        tuple(kernel), tuple(attributes.get("strides", [1] * n)), tuple(attributes.get("pads", [0] * 2 * n)),
        tuple(attributes.get("dilations", [1] * n)), auto.decode() if isinstance(auto, bytes) else str(auto),
        tuple(attributes.get("output_padding", [0] * n)), "output_shape" in attributes,
    )  # fmt: skip
