"""How many channels the kernels of a device compute at once: a small table, each line with where it is from.

Widths in between cost as much as the next multiple. The tables are fixed, so that the same input gives the same bytes
on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..compat import StrEnum


class Device(StrEnum):
    """Where the result is going to run."""

    PORTABLE = "portable"
    AVX2 = "x86-avx2"
    AVX512 = "avx512"
    ARM64 = "arm64"
    CUDA = "cuda-fp16"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    QNN = "qnn-int8"
    WEB = "web"


@dataclass(frozen=True)
class Blocks:
    """Channels that a kernel computes at once: of convolutions in floats (`conv`) and on integers (`int8`), of matrix
    products (`linear`)."""

    conv: int
    int8: int
    linear: int
    source: str

    @property
    def grain(self) -> int:
        """What all widths are a multiple of, also of groups that are narrower than a block."""
        return math.gcd(self.conv, self.int8, self.linear)


BLOCKS: Mapping[Device, Blocks] = {
    Device.PORTABLE: Blocks(16, 16, 8, "a multiple of the blocks of all processors here, and of Tensor Cores in FP16"),
    Device.AVX2: Blocks(8, 16, 8, "onnxruntime, mlas/lib/platform.cpp: NchwcBlockSize = 8; INT8: int8_widths.py"),
    Device.AVX512: Blocks(16, 16, 16, "onnxruntime, mlas/lib/platform.cpp: NchwcBlockSize = 16 with AVX-512"),
    Device.ARM64: Blocks(16, 16, 8, "onnxruntime, mlas/lib/mlasi.h: MLAS_NEON_NCHWC_BLOCK_SIZE = 16"),
    Device.CUDA: Blocks(8, 16, 8, "NVIDIA, Tips for Optimizing GPU Performance Using Tensor Cores: 8 (INT8: 16)"),
    Device.TENSORRT: Blocks(8, 32, 8, "TensorRT, TensorFormat: kHWC8 (FP16), kCHW32 (INT8)"),
    Device.OPENVINO: Blocks(16, 16, 16, "oneDNN, Understanding Memory Formats: nChw16c (nChw8c without AVX-512)"),
    Device.QNN: Blocks(32, 32, 32, "Qualcomm, HTP guidelines, low depth activations: the next multiple of 32"),
    Device.WEB: Blocks(4, 4, 4, "onnxruntime-web, WebGPU convolutions: isVec4, where channels are multiples of 4"),
}  # fmt: skip
