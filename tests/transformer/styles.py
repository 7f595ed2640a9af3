"""All export styles."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from .builder import Builder
from .config import Config
from .dynamo import Dynamo, Modern
from .flat import Flat
from .fused import Fused
from .torchscript import TorchScript, opset


class Style(Enum):
    """DECOMPOSED: torch.onnx's TorchScript exporter, eager attention. DYNAMO: its newer exporter, opset 20, scaled dot
    product attention. OPSET23: the same with opset 23: Attention of 4-D inputs, RMSNormalization, RotaryEmbedding.
    OPSET23_3D: Attention of 3-D inputs, as written by hand. FUSED: com.microsoft operators."""

    DECOMPOSED = "decomposed"
    DYNAMO = "dynamo"
    OPSET23 = "opset23"
    OPSET23_3D = "opset23-3d"
    FUSED = "fused"


def build(config: Config, style: Style, dtype: Any = np.float32) -> Builder:
    """A network in a style, its weights not drawn yet."""
    match style:
        case Style.DECOMPOSED:
            return TorchScript(config, Builder(opset(config), dtype)).run()
        case Style.DYNAMO:
            return Dynamo(config, Builder(20, dtype)).run()
        case Style.OPSET23:
            return Modern(config, Builder(23, dtype)).run()
        case Style.OPSET23_3D:
            return Flat(config, Builder(23, dtype, producer="builder")).run()
        case Style.FUSED:
            return Fused(config, Builder(17, dtype, ["com.microsoft"], "onnxruntime.transformers")).run()
