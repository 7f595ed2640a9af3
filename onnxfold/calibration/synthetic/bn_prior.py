"""Traces of BatchNormalization that was fused into a convolution, in its weights and bias.

For a channel with scale gamma, shift beta and the statistics m, v of its input, fusing leaves a row of norm
rho = gamma |w| / sqrt(v) and the bias b = beta - gamma m / sqrt(v); beta and gamma, which are the mean and the
deviation of the output, are lost, but not without a trace. Measured on the 200 or so BatchNormalization layers of seven
networks (four CIFAR-10 ResNets, SimpNet, PP-OCR detection, UltraFace):

* log gamma = 0.6 log rho + a constant of the layer, to 0.12 (its own spread within a layer: 0.3 to 0.5);
* beta / gamma = 0.3 b / gamma - 0.3, to 0.45 (its own spread: 0.5 to 1.5);
* the constant is such that the root mean square of b / gamma over a layer is about 0.8.

So every convolution's output is asked for a mean and a deviation near those, as a prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, numpy_helper

from ...frozen import read_only

Floats = NDArray[np.float64]
EXPONENT, SLOPE, SHIFT, RATIO = 0.6, 0.3, -0.3, 0.8  # the three laws above
POSITION, EVENNESS, LEVEL = 1.0, 4.0, 0.25  # weights of their squared residuals
FEWEST = 3  # convolutions: of fewer, the priors are too uncertain


@dataclass(frozen=True)
class Prior:
    """Tensor [N, C, ...] made by a convolution. Per channel [C]: `log_norm` = EXPONENT log rho, `bias`, and whether it
    is `alive`; `level` is the deviation expected of the layer.
    """

    tensor: str
    log_norm: Floats
    bias: Floats
    alive: NDArray[np.bool_]
    level: float

    def __post_init__(self) -> None:
        read_only(self)


def convolutions(graph: GraphProto) -> list[Prior]:
    """A prior for every Conv of fixed weight and bias; those with a bias of zeros are left out."""
    fixed = {t.name: t for t in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or not all(name in fixed for name in node.input[1:3]):
            continue
        weight, bias = (numpy_helper.to_array(fixed[name]).astype(np.float64) for name in node.input[1:3])
        rho = np.linalg.norm(weight.reshape(len(weight), -1), axis=1)
        alive = rho > 1e-3 * rho.max(initial=0)
        level = float(np.sqrt(np.mean(np.square(bias[alive])))) / RATIO if alive.any() else 0.0
        if level > 0 and np.isfinite(level) and np.isfinite(rho).all():
            log_norm = EXPONENT * np.log(np.where(alive, rho, 1.0))
            found.append(Prior(node.output[0], log_norm, bias, alive, level))
    return found
