"""Top-1 on 2,000 CIFAR-10 test images of every method at the same widths or MACs, with and without data, in one run.

    python benchmarks/recovery.py [--data ../shared/data] [--images 2000] [--models NAME ...] [--effort balanced]

First the inner groups of the residual blocks, the same share of channels kept in each: L1, L2, plain fold, closed form
(Fold-AR, or variance correction where BatchNormalization was fused), a GRAIL-like channel ridge (k-means clusters,
readers multiplied by a ridge map fitted on 128 images; arXiv 2602.23795, written from the formula), and ours with
synthetic and with 128 real images. Then all groups with a target for the MACs: planned by ours, uniform by the
others. onnxsim's L2 pruning (fused models only, all channels, by sparsity) stands beside, with the share of MACs that
it leaves.
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
from accuracy import INNER, test_images, top1
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import onnxfold
from onnxfold.analyse import analyse
from onnxfold.channels import Role
from onnxfold.compress import Compressor
from onnxfold.costs import costs
from onnxfold.merge import Merge
from onnxfold.model import load
from onnxfold.walk import Walk

MODELS = ("cifar10_resnet20_bn", "cifar10_resnet20_fused", "cifar10_resnet56_bn", "cifar10_resnet56_fused")
RIVALS: dict[str, dict[str, Any]] = {
    "L1": {"method": "prune-l1", "recovery": "none"},
    "L2": {"method": "prune-l2", "recovery": "none"},
    "fold": {"method": "fold", "recovery": "none"},
    "closed form": {"method": "fold", "recovery": "closed-form"},
}
COLUMNS = (*RIVALS, "ridge 128", "no data", "128 images")


def calibration(data: Path, name: str, count: int) -> NDArray[np.float32]:
    """Training images without labels, as the model wants them."""
    entry = json.loads((data / "models.json").read_text())[name]
    with np.load(data / "cifar10" / "calib512.npz") as stored:
        images = stored[stored.files[0]][:: 512 // count][:count].astype(np.float32)
    images = (images - np.float32(entry["mean"])) / np.float32(entry["std"])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def channel_ridge(path: Path, images: NDArray[np.float32], include: str, ratio: float) -> onnx.ModelProto:
    """GRAIL's map: readers times B = G R' (R G R' + 1e-3 mean(diag) I)^-1, G the uncentred moments of their input."""
    import re

    model = load(path)
    analysis = analyse(model)
    work = Compressor(model, analysis)
    (source,) = [name for name in model.graph.inputs if name not in model.constants]
    nodes = model.graph.nodes
    merges = {}
    for group in analysis.groups:
        if not re.search(include, group.name):
            continue
        merge = work.merge(group.name, round(group.size * (1 - ratio)))
        moments = np.zeros((group.size, group.size))
        walk = Walk(model.proto, [{source: images}])
        readers = sorted({i for p in group.parameters if p.role is Role.READS for i in p.nodes})
        for index in readers:
            x = walk.advance(index, [nodes[index].inputs[0]])[0][nodes[index].inputs[0]]
            flat = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
            if len(flat) == group.size:
                moments += flat @ flat.T
        means = merge.makes.toarray()
        small = means @ moments @ means.T
        small += np.eye(len(small)) * 1e-3 * np.trace(small) / len(small)
        mapped = np.linalg.solve(small, means @ moments)
        merges[group.name] = Merge(merge.keep, merge.labels, merge.makes, csr_matrix(mapped), error=merge.error)
    return work.emit(merges)


def onnxsim_rows(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> list[str]:
    """onnxsim's structured L2 pruning at two sparsities: MACs left, top-1."""
    try:
        import onnxsim
    except ImportError:
        return ["onnxsim is not installed (pip install '.[bench]')"]
    rows = []
    whole = costs(load(path)).macs({})
    for sparsity in (0.1, 0.25, 0.5):
        pruned = onnxsim.apply_structured_pruning(onnx.load(path), sparsity=sparsity)
        share = costs(load(pruned)).macs({}) / whole
        rows.append(
            f"onnxsim sparsity {sparsity:.2f}: {share:.2f} of the MACs, top-1 {top1(pruned, images, labels):.2f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--effort", default="balanced")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} does not exist: name the folder with the models and CIFAR-10 images with --data")
    print(f"{'':24}{'':20}{'MACs':>6}" + "".join(f"{name:>13}" for name in COLUMNS))
    for name in options.models:
        path = options.data / "models" / f"{name}.onnx"
        images, labels = test_images(options.data, name, options.images)
        real = calibration(options.data, name, 128)
        print(f"{name:24}dense{top1(onnx.load(path), images, labels):>34.2f}", flush=True)
        ours: dict[str, dict[str, Any]] = {"no data": {"effort": options.effort}, "128 images": {"calibration": real}}

        def row(
            title: str, how: dict[str, Any], share: float, path: Path = path, images: Any = images,
            labels: Any = labels, real: Any = real, ours: Any = ours, name: str = name,
        ) -> None:  # fmt: skip
            begin, cells, left = time.perf_counter(), "", 1.0
            for column in COLUMNS:
                if column == "ridge 128":
                    model = channel_ridge(path, real, INNER, share) if "ratio" in how else None
                else:
                    more = RIVALS.get(column) or ours[column]
                    result = onnxfold.fold(path, round_to=1, latency=False, **how, **more)
                    assert result.report.after is not None
                    model, left = result.model, result.report.after.macs / result.report.before.macs
                cells += f"{'-' if model is None else format(top1(model, images, labels), '.2f'):>13}"
            print(f"{name:24}{title:20}{left:>6.2f}{cells}   ({time.perf_counter() - begin:.0f} s)", flush=True)

        for ratio in (0.25, 0.5, 0.75):
            row(f"inner, keep {1 - ratio:.2f}", {"ratio": ratio, "include": INNER}, ratio)
        for macs in (0.75, 0.5):
            row(f"all, MACs {macs:.2f}", {"target_macs": macs}, 1 - macs)
        if "fused" in name:
            print("\n".join(f"{name:24}{line}" for line in onnxsim_rows(path, images, labels)), flush=True)


if __name__ == "__main__":
    main()
