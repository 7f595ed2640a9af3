"""What gradients cost: seconds of a gradient over seconds of a forward pass of the same images, for three networks.

    python benchmarks/gradient_cost.py [--data FOLDER] [--rounds 15]

`inputs`: the gradient with respect to images, as deep inversion takes it. `weights`: with respect to all weights, as
distillation takes it of a student as wide as its teacher; the teacher's forward pass is in it. Medians of turns in one
process (forward, inputs, weights, forward, ...), so a busy machine changes the seconds more than the ratios.

Before the rules of conv_adjoints.py, depthwise.py, simplify.py and pads.py the ratios were 8.4 and 20 for
EfficientNet-Lite0, 8.8 and 16 for MobileNetV2, 4.4 and 11 for ResNet-20, on two busy cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nets import options, parsed

from onnxfold.calibration.synthetic import problem as inversion
from onnxfold.model.model import Model, load
from onnxfold.passes.distillation import problem as distillation
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.runtime.session import SHORT, Session

NETWORKS = {
    "larger/effnet_lite0": 8, "models/imagenet_mobilenetv2_1.0_224": 8, "models/cifar10_resnet20_bn": 16,
}  # fmt: skip


def runs(model: Model, batch: int) -> dict[str, Callable[[], Any]]:
    """A forward pass and both gradients of `batch` random images."""
    forward = Session.of(model)
    spec = forward.inputs[0]
    shape = (batch, *(d if isinstance(d, int) else 1 for d in spec.shape[1:]))
    x = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    shapes = {spec.name: shape}
    of_inputs = inversion.pose(model, forward.inputs, batch, shapes, SHORT["cpu"])
    classes = of_inputs.terms.classes
    target = np.eye(classes, dtype=np.float32)[np.arange(batch) % classes] if classes else None
    of_weights = distillation.pose(model, model, shapes, Counterparts(), SHORT["cpu"])
    values = {name: array * np.float32(1.01) for name, array in of_weights.start.items()}
    return {
        "forward": lambda: forward.run(x),
        "inputs": lambda: of_inputs.evaluate(x, target),
        "weights": lambda: of_weights.evaluate(values, x),
    }


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, called in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn:  # the first prepares
                taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=15, help="turns (default: 15)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    given = parsed(parser)
    print(f"{'network':30} {'images':>6} {'forward':>9} {'inputs':>9} {'ratio':>6} {'weights':>9} {'ratio':>6}")
    for name in given.networks:
        batch = NETWORKS.get(name, 8)
        found = medians(runs(load(given.data / f"{name}.onnx"), batch), given.rounds)
        forward = found["forward"]
        parts = (f"{found[kind]:8.3f}s {found[kind] / forward:6.1f}" for kind in ("inputs", "weights"))
        print(f"{Path(name).name:30} {batch:6} {forward:8.3f}s {' '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
