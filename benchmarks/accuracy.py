"""Top-1 on 2,000 CIFAR-10 test images after folding and pruning real ResNets, without any data.

    python benchmarks/accuracy.py [--data ../shared/data] [--images 2000] [--ratios .1 .25 .5] [--models NAME ...]

Every figure comes from this one run: plain fold, fold with closed-form recovery (Fold-AR where BatchNormalization is in
the graph, variance correction where it was fused), L1 and L2 pruning at the same widths (`--round-to 1`); once with the
inner groups of the residual blocks only, once with all groups. Needs the data folder described in the README.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import onnxfold

MODELS = ("cifar10_resnet20_bn", "cifar10_resnet56_bn", "cifar10_resnet20_fused", "cifar10_resnet56_fused")
INNER = r"layer.*conv1"
METHODS = {
    "plain fold": {"method": "fold", "recovery": "none"},
    "closed form": {"method": "fold", "recovery": "closed-form"},
    "L1": {"method": "prune-l1", "recovery": "none"},
    "L2": {"method": "prune-l2", "recovery": "none"},
}


def test_images(data: Path, name: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images as the model wants them, and labels."""
    entry = json.loads((data / "models.json").read_text())[name]
    stored = np.load(data / "cifar10" / "test2k.npz")
    images = stored["images"][:count].astype(np.float32)
    images = (images - np.float32(entry["mean"])) / np.float32(entry["std"])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), stored["labels"][:count]


def top1(model: onnx.ModelProto, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Percent of images whose largest score is the label's."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    hits = 0
    for start in range(0, len(images), 250):
        scores: Any = session.run(None, {name: images[start : start + 250]})[0]
        hits += int((scores.argmax(1) == labels[start : start + 250]).sum())
    return 100 * hits / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} does not exist: name the folder with the models and CIFAR-10 images with --data")
    print(f"{'':24}{'groups':8}{'ratio':>6}{'params':>8}" + "".join(f"{name:>13}" for name in METHODS))
    for name in options.models:
        path = options.data / "models" / f"{name}.onnx"
        images, labels = test_images(options.data, name, options.images)
        print(f"{name:24}dense{'':17}{top1(onnx.load(path), images, labels):>13.2f}", flush=True)
        for groups, include in (("inner", [INNER]), ("all", [])):
            for ratio in options.ratios:
                row, share, begin = "", 1.0, time.perf_counter()
                for how in METHODS.values():
                    result = onnxfold.fold(path, ratio=ratio, round_to=1, include=include, latency=False, **how)
                    row += f"{top1(result.model, images, labels):>13.2f}"
                    assert result.report.after is not None
                    share = result.report.after.parameters / result.report.before.parameters
                seconds = time.perf_counter() - begin
                print(f"{name:24}{groups:8}{ratio:>6.2f}{share:>8.2f}{row}   ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
